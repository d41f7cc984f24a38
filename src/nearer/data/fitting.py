"""Which judgments fit the documents and queries they are about; what does not fit becomes a finding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nearer.data import items
from nearer.data.corpus import Corpus
from nearer.errors import DataError
from nearer.types import Finding, Judgments, Query, is_blank

_MAY_FIND_ITSELF = f"set {items.SETTING}: false if a query may find the document with its id"
_FOREIGN = 0.5  # from this share of unknown ids on, the judgments belong to other data
_LONGEST = 200  # characters of an example

Queries = Mapping[str, Query]
Grades = Mapping[str, int]  # of one query: document id → grade
Splits = dict[str, dict[str, Grades]]

_CONSEQUENCES = {
    "documents": "Their judgments stay: nothing can find these documents, so they count as missed, "
    "as trec_eval counts them, and diagnose names them missing_document. No model trains on them.",
    "queries": "Their judgments are left out.",
}
_REPAIRS = {
    "documents": "index the documents, or correct the judgments, then nearer check",
    "queries": None,
}


class Findings:
    """Findings as they come in, with at most so many examples each."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.items: list[Finding] = []

    def add(
        self,
        code: str,
        message: str,
        examples: Sequence[str] = (),
        count: int | None = None,
        **more: Any,
    ) -> None:
        """`count` is how many examples there are, where not all of them are given.

        `more` are further fields of `Finding`.
        """
        if count is None:
            count = len(examples)
        lines = tuple(_short_line(example) for example in examples[: self.examples])
        self.items.append(Finding(code, message, count, examples=lines, **more))

    def stop_if_fatal(self) -> None:
        """Raises DataError with a line for each fatal finding."""
        fatal = [finding for finding in self.items if finding.fatal]
        if fatal:
            raise DataError(
                "\n".join(finding.message for finding in fatal),
                where=fatal[0].where,
                next_step=fatal[0].next_step,
            )


def _short_line(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST - 1]}…"


def notice_item_to_item(
    corpus: Corpus,
    queries: Queries,
    judgments: Mapping[str, Judgments],
    setting: bool | None,
    findings: Findings,
) -> bool:
    """Whether queries are documents (see `nearer.data.items`); a guess, either way, becomes a finding."""
    noticed = items.notice(corpus, queries, judgments, setting)
    if noticed.by_setting or not noticed.coincide:
        return noticed.item_to_item
    count = f"{noticed.same_ids} of {noticed.judged} judged queries"
    if noticed.item_to_item:
        findings.add(
            "item_to_item",
            f"Item-to-item data: {count} are documents, in id and text. An item is left out of its own results.",
            count=noticed.same_ids,
            next_step=f"set {items.SETTING}: false if a query may find itself",
        )
    else:
        findings.add(
            "same_ids",
            f"{count} have the id of a document, but are not that document, so far as texts and judgments show. "
            "Every document may be found.",
            count=noticed.same_ids,
            next_step=f"set {items.SETTING}: true if queries are documents (an item is then left out of its own results)",
        )
    return noticed.item_to_item


def fitting_judgments(
    corpus: Corpus,
    queries: Queries,
    judgments: Mapping[str, Judgments],
    item_to_item: bool,
    findings: Findings,
) -> Splits:
    """Judgments without those of unknown queries, and of an item for itself.

    Judgments of documents that the corpus lacks stay: a query that asks for one fails, and leaving
    it out would measure a search that users do not have.
    """
    doc_ids: set[str] = set()
    query_ids: set[str] = set()
    n_self = 0
    fitting: Splits = {}
    for split, graded in judgments.items():
        fitting[split] = {}
        for query_id, grades in sorted(graded.items()):
            query_ids.add(query_id)
            doc_ids.update(grades)
            if query_id not in queries:
                continue
            kept = dict(grades)
            if item_to_item and query_id in kept:
                del kept[query_id]
                n_self += 1
            fitting[split][query_id] = kept
    _report_unknown("documents", doc_ids, corpus, corpus.ids, findings)
    _report_unknown("queries", query_ids, queries, list(queries), findings)
    if n_self:
        findings.add(
            "self_judgments",
            f"{n_self} items are judged relevant to themselves; these judgments are left out.",
            count=n_self,
            next_step=_MAY_FIND_ITSELF,
        )
    if not query_ids:
        findings.add("no_judgments", "There are no judgments.", fatal=True, where="data.judgments")
    return fitting


def _report_unknown(
    what: str,
    judged_ids: set[str],
    known: Corpus | Queries,
    own_ids: Sequence[str],
    findings: Findings,
) -> None:
    """A finding when judgments name ids that the data lacks; fatal when most are such."""
    unknown = sorted(judged_id for judged_id in judged_ids if judged_id not in known)
    if not unknown:
        return
    code = f"missing_{what}"
    message = f"{len(unknown)} of the {len(judged_ids)} judged {what} are not in the data"
    if len(unknown) < _FOREIGN * len(judged_ids):
        findings.add(
            code,
            f"{message}. {_CONSEQUENCES[what]}",
            unknown,
            next_step=_REPAIRS[what],
        )
        return
    own_id = own_ids[0] if own_ids else ""
    findings.add(
        code,
        f"{message}, for example {unknown[0]!r} (the data has {own_id!r}): these judgments belong to another corpus.",
        unknown,
        fatal=True,
        where="data.judgments",
        next_step="name the judgments that belong to this corpus, or the right id column in data.columns",
    )


def usable_queries(
    corpus: Corpus, queries: Queries, judgments: Mapping[str, Judgments], findings: Findings
) -> Splits:
    """Judgments of queries that have a text and at least one relevant document, there or missing."""
    judged = {query_id for graded in judgments.values() for query_id in graded}
    _report_unjudged(queries, judged, findings)
    blank = {query_id for query_id in judged if is_blank(queries[query_id].text)}
    if blank:
        message = f"{len(blank)} judged queries have no text that can be seen and are left out."
        findings.add("empty_queries", message, sorted(blank))
    usable: Splits = {}
    relevant: dict[str, list[str]] = {}
    barren: set[str] = set()
    for split, graded in judgments.items():
        usable[split] = {}
        for query_id, grades in graded.items():
            if query_id in blank:
                continue
            doc_ids = _relevant(grades)
            if doc_ids:
                usable[split][query_id] = grades
                relevant[query_id] = doc_ids
            else:
                barren.add(query_id)
    assumption = _self_judgments_left_out(findings)
    _report_barren(_with_texts(barren, queries), assumption, findings)
    unanswerable = [query_id for query_id in relevant if not _any_in(corpus, relevant[query_id])]
    _report_unanswerable(_with_texts(unanswerable, queries), findings)
    if len(unanswerable) == len(relevant):
        findings.add(
            "no_usable_query",
            f"No query has both a text and a relevant document that is in the corpus.{assumption}",
            fatal=True,
            where="data.judgments",
            next_step=_MAY_FIND_ITSELF if assumption else None,
        )
    return usable


def _report_unjudged(queries: Queries, judged: Collection[str], findings: Findings) -> None:
    unjudged = [query_id for query_id in queries if query_id not in judged]
    if unjudged:
        findings.add(
            "queries_without_judgments",
            f"{len(unjudged)} of {len(queries)} queries have no judgment and are not used.",
            [f"{query_id}: {queries[query_id].text}" for query_id in unjudged],
        )


def _report_barren(examples: Sequence[str], assumption: str, findings: Findings) -> None:
    """`examples` are the judged queries without a relevant document in their judgments."""
    if examples:
        findings.add(
            "queries_without_relevant",
            f"{len(examples)} judged queries have no relevant document in their judgments and are "
            f"left out: no ranking could score above 0.{assumption}",
            examples,
            next_step=_MAY_FIND_ITSELF if assumption else None,
        )


def _report_unanswerable(examples: Sequence[str], findings: Findings) -> None:
    """`examples` are the queries whose relevant documents are all missing from the corpus."""
    if examples:
        findings.add(
            "queries_without_findable",
            f"{len(examples)} judged queries have no relevant document in the corpus. "
            "They count 0 in every measure of every system.",
            examples,
            next_step="index their documents, or correct the judgments, then nearer check",
        )


def _self_judgments_left_out(findings: Findings) -> str:
    """A sentence about the judgments that item-to-item data loses; empty where it lost none."""
    left_out = sum(finding.count for finding in findings.items if finding.code == "self_judgments")
    if not left_out:
        return ""
    return (
        f" Item-to-item data is assumed ({items.SETTING}), so {left_out} judgments of an item "
        "for itself do not count."
    )


def _with_texts(query_ids: Collection[str], queries: Queries) -> list[str]:
    """A line per query, by id."""
    return [f"{query_id}: {queries[query_id].text}" for query_id in sorted(query_ids)]


def _any_in(corpus: Corpus, doc_ids: Sequence[str]) -> bool:
    return any(doc_id in corpus for doc_id in doc_ids)


def _relevant(grades: Grades) -> list[str]:
    """Documents with a grade above 0; a negative grade is one of trec_eval's for "not relevant"."""
    return [doc_id for doc_id, grade in grades.items() if grade > 0]
