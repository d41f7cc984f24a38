"""Findings as they come in, and which judgments fit the documents and queries they speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearer.data import items
from nearer.data.corpus import Corpus
from nearer.errors import DataError
from nearer.types import Finding, Judgments, Query, is_blank

_MAY_FIND_ITSELF = f"set {items.SETTING}: false if a query may find the document with its id"
_FOREIGN = 0.5  # from this share of unknown ids on, the judgments belong to other data
Splits = dict[str, dict[str, Mapping[str, int]]]

_CONSEQUENCES = {
    "documents": "Their judgments stay: nothing can find these documents, so they count as missed, "
    "as trec_eval counts them, and diagnose names them missing_document. No model trains on them.",
    "queries": "Their judgments are left out.",
}
_MENDS: Mapping[str, Mapping[str, Any]] = {
    "documents": {"next_step": "index the documents, or correct the judgments, then nearer check"},
    "queries": {},
}


class Found:
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
        """`count` is how many examples there are, where not all of them are given."""
        lines = (" ".join(example.split()) for example in examples[: self.examples])
        shown = tuple(line if len(line) <= 200 else f"{line[:199]}…" for line in lines)
        self.items.append(
            Finding(
                code, message, len(examples) if count is None else count, examples=shown, **more
            )
        )

    def stop_if_fatal(self) -> None:
        """Raises DataError with a line for each fatal finding."""
        if fatal := [item for item in self.items if item.fatal]:
            raise DataError(
                "\n".join(item.message for item in fatal),
                where=fatal[0].where,
                next_step=fatal[0].next_step,
            )


def notice_item_to_item(
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Judgments],
    setting: bool | None,
    found: Found,
) -> bool:
    """Whether queries are documents (see `nearer.data.items`); a guess, either way, becomes a finding."""
    noticed = items.notice(corpus, queries, judgments, setting)
    if noticed.by_setting or not noticed.coincide:
        return noticed.item_to_item
    count = f"{noticed.same_ids} of {noticed.judged} judged queries"
    if noticed.item_to_item:
        found.add(
            "item_to_item",
            f"Item-to-item data: {count} are documents, in id and text. An item is left out of its own results.",
            count=noticed.same_ids,
            next_step=f"set {items.SETTING}: false if a query may find itself",
        )
    else:
        found.add(
            "same_ids",
            f"{count} have the id of a document, but are not that document, so far as texts and judgments show. "
            "Every document may be found.",
            count=noticed.same_ids,
            next_step=f"set {items.SETTING}: true if queries are documents (an item is then left out of its own results)",
        )
    return noticed.item_to_item


def fitting_judgments(
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Judgments],
    item_to_item: bool,
    found: Found,
) -> Splits:
    """Judgments without those of unknown queries, and of an item for itself.

    Judgments of documents that the corpus lacks stay: a query that asks for one fails, and leaving
    it out would measure a search that users do not have.
    """
    doc_ids = {
        doc_id for graded in judgments.values() for judged in graded.values() for doc_id in judged
    }
    query_ids = {query_id for graded in judgments.values() for query_id in graded}
    kinds: tuple[tuple[str, set[str], Any, Sequence[str]], ...] = (
        ("documents", doc_ids, corpus, corpus.ids), ("queries", query_ids, queries, list(queries))
    )  # fmt: skip
    for what, ids, known, own_ids in kinds:
        lost = sorted(one for one in ids if one not in known)
        message = f"{len(lost)} of the {len(ids)} judged {what} are not in the data"
        if lost and len(lost) >= _FOREIGN * len(ids):
            message += f", for example {lost[0]!r} (the data has {next(iter(own_ids), '')!r}): these judgments belong to another corpus."
            mend = "name the judgments that belong to this corpus, or the right id column in data.columns"
            found.add(
                f"missing_{what}", message, lost, fatal=True, where="data.judgments", next_step=mend
            )
        elif lost:
            found.add(f"missing_{what}", f"{message}. {_CONSEQUENCES[what]}", lost, **_MENDS[what])
    if own := item_to_item and sum(
        q in docs for graded in judgments.values() for q, docs in graded.items() if q in queries
    ):
        found.add(
            "self_judgments",
            f"{own} items are judged relevant to themselves; these judgments are left out.",
            count=own,
            next_step=_MAY_FIND_ITSELF,
        )
    if not query_ids:
        found.add("no_judgments", "There are no judgments.", fatal=True, where="data.judgments")
    return {
        name: {
            q: {d: grade for d, grade in docs.items() if not (item_to_item and d == q)}
            for q, docs in sorted(graded.items())
            if q in queries
        }
        for name, graded in judgments.items()
    }


def usable_queries(
    corpus: Corpus, queries: Mapping[str, Query], judgments: Mapping[str, Judgments], found: Found
) -> Splits:
    """Judgments of queries that have a text and at least one relevant document, there or missing."""
    left_out = sum(item.count for item in found.items if item.code == "self_judgments")
    assumed, next_step = "", None
    if left_out:
        next_step = _MAY_FIND_ITSELF
        assumed = (
            f" Item-to-item data is assumed ({items.SETTING}), so {left_out} judgments of an item "
            "for itself do not count."
        )
    judged = {query_id for graded in judgments.values() for query_id in graded}
    unjudged = [
        f"{query_id}: {query.text}" for query_id, query in queries.items() if query_id not in judged
    ]
    if unjudged:
        found.add(
            "queries_without_judgments",
            f"{len(unjudged)} of {len(queries)} queries have no judgment and are not used.",
            unjudged,
        )
    blank = sorted(query_id for query_id in judged if is_blank(queries[query_id].text))
    if blank:
        message = f"{len(blank)} judged queries have no text that can be seen and are left out."
        found.add("empty_queries", message, blank)
    barren = sorted(
        {q for graded in judgments.values() for q, docs in graded.items() if not _relevant(docs)}
        - set(blank)
    )
    if barren:
        message = (
            "judged queries have no relevant document in their judgments and are left out: "
            "no ranking could score above 0."
        )
        found.add(
            "queries_without_relevant",
            f"{len(barren)} {message}{assumed}",
            [f"{q}: {queries[q].text}" for q in barren],
            next_step=next_step,
        )
    useless = set(blank)
    usable = {
        name: {q: docs for q, docs in graded.items() if q not in useless and _relevant(docs)}
        for name, graded in judgments.items()
    }
    wanted = {q: _relevant(docs) for graded in usable.values() for q, docs in graded.items()}
    unanswerable = sorted(
        q for q, docs in wanted.items() if not any(doc_id in corpus for doc_id in docs)
    )
    if unanswerable:
        found.add(
            "queries_without_findable",
            f"{len(unanswerable)} judged queries have no relevant document in the corpus. "
            "They count 0 in every measure of every system.",
            [f"{q}: {queries[q].text}" for q in unanswerable],
            next_step="index their documents, or correct the judgments, then nearer check",
        )
    if len(unanswerable) == len(wanted):
        found.add(
            "no_usable_query",
            f"No query has both a text and a relevant document that is in the corpus.{assumed}",
            fatal=True,
            where="data.judgments",
            next_step=next_step,
        )
    return usable


def _relevant(judged: Mapping[str, int]) -> list[str]:
    """Documents with a grade above 0; a negative grade is one of trec_eval's for "not relevant"."""
    return [doc_id for doc_id, grade in judged.items() if grade > 0]
