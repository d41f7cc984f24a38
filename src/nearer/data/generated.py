"""Generated queries (`generated/`, see `nearer.generated`), put to the splits behind those of people.

The splits of people's queries are made before and never because of generated ones.  A held-out
split in which people asked anything holds their queries alone; generated ones fill dev and test
only where nobody asked, and only where `data.generated` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nearer.config import Data
from nearer.data import fields, sources, trec
from nearer.data.corpus import Corpus
from nearer.data.division import Rules, divide
from nearer.data.fitting import Findings, Splits
from nearer.data.importance import TRUTHS
from nearer.data.splits import Apart, documents_apart
from nearer.types import SPLITS, Judgments, Query, Split

#: Key of judgments of generated queries among those that `check` is given.
GENERATED = "generated"
#: Key of a query's metadata that says that nobody asked it.
MARK = "generated"
PEOPLE = "people"
_ASK = (
    "have people ask and judge (nearer log import, nearer review); until then the verdict ships "
    "nothing without decide.accept_generated"
)


@dataclass(frozen=True, slots=True)
class Made:
    """Generated queries with their judgments; `stale` ones ask for documents that are gone."""

    queries: Mapping[str, Query] = field(default_factory=dict)
    judgments: Judgments = field(default_factory=dict)
    stale: int = 0

    @property
    def notes(self) -> list[str]:
        """What was left out, as a sentence for people."""
        if not self.stale:
            return []
        return [f"{self.stale} generated queries ask for documents that are gone: left out."]


def read_generated(data: Data, root: Path, corpus: Corpus, people: Mapping[str, Query]) -> Made:
    """What `nearer generate` wrote, where the settings take it in; nothing otherwise.

    A query that people's own files hold under the same id is theirs.  Raises DataError.
    """
    paths = sources.generated_files(data, root)
    if not paths:
        return Made()
    queries = fields.read_queries(paths["generated/queries.jsonl"])
    judgments: dict[str, Mapping[str, int]] = {}
    stale = 0
    for query_id, grades in trec.read_qrels(paths["generated/qrels.tsv"]).items():
        if query_id not in queries or query_id in people:
            continue
        if all(doc_id in corpus for doc_id in grades):
            judgments[query_id] = grades
        else:
            stale += 1
    return Made({query_id: queries[query_id] for query_id in judgments}, judgments, stale)


def is_generated(query: Query) -> bool:
    """Whether a query is marked as one that nobody asked.

    A field of that name that says something else (a date, say) marks nothing.
    """
    return bool(TRUTHS.get(str(query.metadata.get(MARK)).strip().lower()))


def origins(queries: Iterable[Query]) -> dict[str, int]:
    """How many queries are from people, and how many are generated."""
    counts = {PEOPLE: 0, GENERATED: 0}
    for query in queries:
        counts[GENERATED if is_generated(query) else PEOPLE] += 1
    return counts


def people_first(query: Query) -> tuple[bool, str]:
    """Key to sort queries by: those of people before generated ones, then by id."""
    return is_generated(query), query.id


def divided_with_generated(
    queries: Mapping[str, Query],
    usable: Mapping[str, Judgments],
    generated: Judgments,
    rules: Rules,
    findings: Findings,
    *,
    asked: Collection[str] = (),
) -> tuple[Splits, list[str]]:
    """The splits of people's queries, then generated ones put to them; and how they came about.

    `asked` are splits whose queries people have asked, and whose judgments come in later.
    Raises DataError where generated queries are for training alone and nobody asked anything.
    """
    divided: Splits = {name: {} for name in SPLITS}
    notes: list[str] = []
    if not generated or any(usable.values()):
        divided, notes = divide(queries, usable, rules, findings)
    divided, how = with_generated(divided, generated, queries, rules, findings, asked=asked)
    findings.stop_if_fatal()
    return divided, [*notes, *how]


def with_generated(
    divided: Splits,
    generated: Judgments,
    queries: Mapping[str, Query],
    rules: Rules,
    findings: Findings,
    *,
    asked: Collection[str] = (),
) -> tuple[Splits, list[str]]:
    """The splits with generated queries, and how they came in.

    A fatal finding is added where `data.generated` is train and people asked nothing.
    """
    if not generated:
        return divided, []
    lacking = [name for name in SPLITS[1:] if not divided.get(name) and name not in asked]
    if rules.data.generated == "train":
        if len(lacking) == len(SPLITS[1:]) and not divided.get("train"):
            _refuse_training_alone(findings)
        lacking = []
    parts: Splits = {"train": dict(generated)}
    how: tuple[str, ...] = ()
    if lacking:
        parts, how = _divided(generated, queries, rules, lacking, findings)
    splits: Splits = {}
    for name in SPLITS:
        splits[name] = {**divided.get(name, {}), **parts.get(name, {})}
    sizes = ", ".join(f"{name} {len(parts.get(name, {}))}" for name in SPLITS)
    return splits, [f"Generated queries were added: {sizes}.", *how]


def _divided(
    generated: Judgments,
    queries: Mapping[str, Query],
    rules: Rules,
    lacking: list[str],
    findings: Findings,
) -> tuple[Splits, tuple[str, ...]]:
    """Generated queries by group, with shares for the splits that people left empty.

    No document is asked for in two splits.  Where queries of several documents tie most of them into
    one group, documents are dealt, and queries whose documents fell apart are left out.
    """
    settings = rules.data.split
    shares = dict.fromkeys(SPLITS[1:], 0.0)
    for name in lacking:
        shares[name] = getattr(settings, name)
    by_group = settings.model_copy(update={"by": "group"})  # nobody asked them at any time
    data = rules.data.model_copy(update={"split": by_group})
    parts, how = replace(rules, data=data).apply(queries, generated, **shares)
    if not _share_documents(parts):
        return parts, how
    apart = documents_apart(
        queries, generated, by_group.model_copy(update=shares), rules.seed, rules.near_duplicate
    )
    _report_left_out(apart, queries, findings)
    for name in SPLITS:
        parts[name] = {query_id: generated[query_id] for query_id in apart.ids[name]}
    sizes = ", ".join(f"{name} {len(apart.ids[name])}" for name in SPLITS)
    note = (
        f"Shared documents tie most generated queries together, so documents were dealt with seed "
        f"{rules.seed}: {sizes} queries; {len(apart.left_out)} whose documents fell into two splits "
        "were left out."
    )
    return parts, (note,)


def _share_documents(parts: Splits) -> bool:
    """Whether a document is asked for in two splits."""
    seen: dict[str, str] = {}
    for name, judged in parts.items():
        for grades in judged.values():
            for doc_id, grade in grades.items():
                if grade > 0 and seen.setdefault(doc_id, name) != name:
                    return True
    return False


def _report_left_out(apart: Apart, queries: Mapping[str, Query], findings: Findings) -> None:
    count = len(apart.left_out)
    if count:
        findings.add(
            "generated_apart",
            f"{count} generated queries of several documents were left out: their documents fell into "
            "two splits.",
            [f"{query_id} “{queries[query_id].text}”" for query_id in apart.left_out],
            count=count,
        )


def _refuse_training_alone(findings: Findings) -> None:
    findings.add(
        "only_generated_training",
        "There are no queries of people, and data.generated is train: nothing could be measured.",
        fatal=True,
        where="data.generated",
        next_step="nearer run --set data.generated=train,dev,test, or add queries of people",
    )


def report_origins(splits: Mapping[str, Split], findings: Findings) -> dict[str, dict[str, int]]:
    """Queries of people and generated ones by split; a finding where numbers rest on generated ones."""
    counts = {name: origins(splits[name].queries) for name in SPLITS}
    parts = []
    for name in SPLITS[1:]:
        made = counts[name][GENERATED]
        if made:
            parts.append(f"{made} of {len(splits[name])} {name} queries")
    if parts:
        findings.add(
            "generated_queries",
            f"{' and '.join(parts)} are generated: nobody asked them. They were kept because dense "
            "and BM25 find their documents, so both look better on them than they are.",
            count=sum(counts[name][GENERATED] for name in SPLITS[1:]),
            next_step=_ASK,
        )
    return counts


def origin_lines(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """How many queries of each split are from people, and how many are generated, as a list."""
    lines = []
    for name, row in counts.items():
        people, made = row[PEOPLE], row[GENERATED]
        lines.append(f"- {name}: {people:,} queries from people, {made:,} generated")
    return lines
