"""Why did each failing query fail, and what is the cheapest thing that repairs it?  Train and dev only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.missing import missing_documents
from nearer.diagnosis.causes import causes
from nearer.diagnosis.evidence import diagnosed
from nearer.diagnosis.totals import freshness, waterfall
from nearer.diagnosis.values import Diagnosis, Pair, Probe
from nearer.errors import DataError
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.project import Project
from nearer.results import Block, Line, Result, Row, Table
from nearer.search.systems import Systems
from nearer.types import Query, Run, Split, typed_query

#: What `step.json` repeats of the summary.
_BRIEF = (
    "n_failures",
    "n_failing_queries",
    "n_queries",
    "causes",
    "fine_tuning_ceiling",
    "label_suspects",
)
_AROUND = 5  # results shown on each side in the story of a pair
_AROUND = 5  # first results shown in the story of a pair
_BESIDE = 2  # results shown on each side of the document


@dataclass(frozen=True)
class Diagnoses(Result):
    """Lines of `failures.jsonl` and `summary.json`."""

    failures: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """`failures.jsonl` (one line per failure, with every probe) and `summary.json`."""
        write_jsonl(folder / "failures.jsonl", self.failures)
        write_json(folder / "summary.json", self.summary)

    @classmethod
    def load(cls, folder: Path) -> Diagnoses:
        failures = list(read_jsonl(folder / "failures.jsonl"))
        return cls(failures, read_json(folder / "summary.json"))

    def brief(self) -> dict[str, Any]:
        return {key: self.summary[key] for key in _BRIEF}

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per failure: ids, cause, kind, evidence, and the rank under each probe."""
        for line in self.failures:
            record = {key: value for key, value in line.items() if key != "probes"}
            for name, probe in line["probes"].items():
                record[f"rank: {name}"] = probe["rank"]
            yield record

    def blocks(self) -> list[Block]:
        summary = self.summary
        ceiling = summary["fine_tuning_ceiling"]
        rows = []
        for step in summary["steps"]:
            tone = "bold" if step["cause"] == "semantic" else ""
            measure = f"{step['measure']:.3f}"
            rows.append(
                Row((step["cause"], f"{step['failures']:,}", measure, step["remedy"]), tone)
            )
        columns = ("cause", "missed", f"{ceiling['measure']} then", "what repairs it")
        blocks: list[Block] = [
            Line(
                f"{summary['n_failing_queries']:,} of {summary['n_queries']:,} queries find nothing "
                f"relevant in the first {summary['k']} ({summary['n_failures']:,} documents missed)"
            ),
            Table(columns, rows, prose=("what repairs it",)),
            Line(
                f"{ceiling['measure']} is {ceiling['today']:.3f} today; finding the semantic ones "
                f"first adds {ceiling['gain']:.3f}"
            ),
        ]
        if fresh := summary["freshness"]:
            blocks.append(Line(f"! {fresh['remedy']} (field {fresh['field']})", "warn"))
        for untried in summary.get("not_tried", []):
            probe = untried["probe"].replace("_", " ")
            what = f"not tried for {untried['failures']:,}: {probe}: {untried['why']}"
            blocks.append(Line(f"  · {what}", "dim"))
            blocks.append(Line(f"    → {untried['next']}", "command"))
        return blocks


def diagnose(
    systems: Systems, splits: Sequence[Split], settings: config.Config, rng: np.random.Generator
) -> Diagnoses:
    """Name the cause of every failure by executing the repairs.

    `splits` are dev and train; a query fails when none of its relevant documents is among the first
    k.  A relevant document that the corpus lacks is diagnosed even where its query does not fail:
    its line has `query_fails` false.  With more than `diagnose.limit` failing queries a random
    sample of all queries is looked at.
    """
    looked_at, failed = _looked_at(systems, splits, settings, rng)
    wanted = _wanted(systems, looked_at, failed, settings.data.min_grade)
    queries = tuple(query for query in looked_at.queries if query.id in wanted)
    failing = Split("failing", queries, looked_at.judgments)
    probes, diagnoses = diagnosed(systems, failing, wanted, settings)
    failures = []
    for pair, of_pair in probes.items():
        line = _line(pair, diagnoses[pair], of_pair, settings.diagnose.k)
        failures.append(line | {"query_fails": pair[0] in failed})
    run = systems.run(systems.base(systems.today), looked_at, settings.diagnose.depth)
    summary = {
        "n_failures": len(failures),
        "n_failing_queries": len(failed),
        "missing": missing_documents(looked_at, systems.corpus),
        "n_queries": len(looked_at.queries),
        "k": settings.diagnose.k,
        "splits": list(settings.diagnose.splits),
        "causes": _counts(failures),
        "kinds": _kinds(failures),
        "label_suspects": sum(_is_label_suspect(line) for line in failures),
        **waterfall(run, looked_at, failures, settings.evaluate.primary),
        "freshness": _freshness(systems, looked_at, failed, settings.data.min_grade),
        "not_run": _not_run(probes.values()),
        "not_tried": _not_tried(probes.values()),
        "examples": _examples(systems, failures, queries, run, settings.diagnose.examples),
    }
    return Diagnoses(failures, summary)


def _looked_at(
    systems: Systems,
    splits: Sequence[Split],
    settings: config.Config,
    rng: np.random.Generator,
) -> tuple[Split, set[str]]:
    """The queries that are looked at, and the ids of those that fail."""
    baseline, grade = systems.base(systems.today), settings.data.min_grade
    queries: list[Query] = []
    judgments: dict[str, Mapping[str, int]] = {}
    failed: set[str] = set()
    for split in splits:
        run = systems.run(baseline, split, settings.diagnose.depth)
        for query in split.queries:
            relevant = split.relevant(query.id, grade)
            if not relevant or (systems.today == "run" and query.id not in run.results):
                continue
            queries.append(query)
            judgments[query.id] = split.judgments[query.id]
            if relevant.keys().isdisjoint(run.top(query.id, settings.diagnose.k)):
                failed.add(query.id)
    if len(failed) > settings.diagnose.limit:
        queries = _sample(queries, failed, settings.diagnose.limit, rng)
        failed &= {query.id for query in queries}
    return Split("diagnosed", tuple(queries), judgments), failed


def _sample(
    queries: Sequence[Query], failed: Collection[str], limit: int, rng: np.random.Generator
) -> list[Query]:
    """Queries at random, until `limit` failing ones are among them, in their order."""
    chosen: list[int] = []
    count = 0
    for position in rng.permutation(len(queries)):
        chosen.append(int(position))
        count += queries[position].id in failed
        if count == limit:
            break
    return [queries[position] for position in sorted(chosen)]


def _wanted(
    systems: Systems, split: Split, failed: Collection[str], grade: int
) -> dict[str, list[str]]:
    """The documents to diagnose: all relevant ones of failing queries, of others those that are missing."""
    wanted: dict[str, list[str]] = {}
    for query in split.queries:
        relevant = list(split.relevant(query.id, grade))
        if query.id not in failed:
            relevant = [doc_id for doc_id in relevant if doc_id not in systems.corpus]
        if relevant:
            wanted[query.id] = relevant
    return wanted


def _line(pair: Pair, diagnosis: Diagnosis, probes: Mapping[str, Probe], k: int) -> dict[str, Any]:
    return {
        "query_id": pair[0],
        "doc_id": pair[1],
        "cause": diagnosis.cause,
        "kind": diagnosis.kind,
        "probes": {name: probe.as_dict(k) for name, probe in probes.items()},
        "evidence": diagnosis.evidence,
        "also": list(diagnosis.also),
    }


def _is_label_suspect(line: Mapping[str, Any]) -> bool:
    return line["cause"] == "label_suspect" or "label_suspect" in line["also"]


def _counts(failures: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Failures per cause, in the order of the cost of their repair."""
    counts = Counter(line["cause"] for line in failures)
    return {cause.name: counts[cause.name] for cause in causes() if counts[cause.name]}


def _kinds(failures: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Failures per cause and kind, the most frequent kind first."""
    counts: dict[str, Counter[str]] = {}
    for line in failures:
        if line["kind"]:
            counts.setdefault(line["cause"], Counter())[line["kind"]] += 1
    return {cause: dict(kinds.most_common()) for cause, kinds in counts.items()}


def _skipped(results: Iterable[Mapping[str, Probe]]) -> list[tuple[str, Probe]]:
    """Every probe that was not tried, or not in every way, with its name."""
    skipped = []
    for probes in results:
        skipped += [(name, probe) for name, probe in probes.items() if probe.skipped]
    return skipped


def _not_run(results: Iterable[Mapping[str, Probe]]) -> dict[str, int]:
    """How many failures each probe left out, by name and reason."""
    return dict(Counter(f"{name}: {probe.skipped}" for name, probe in _skipped(results)))


def _not_tried(results: Iterable[Mapping[str, Probe]]) -> list[dict[str, Any]]:
    """Probes that could have settled a failure and did not run: why, for how many, and what would run them."""
    counts = Counter((name, probe.skipped, probe.next_step) for name, probe in _skipped(results))
    return [
        {"probe": name, "why": why, "next": next_step, "failures": count}
        for (name, why, next_step), count in counts.most_common()
    ]


def _freshness(
    systems: Systems, split: Split, failed: Collection[str], grade: int
) -> dict[str, Any] | None:
    """Do failures concentrate on recent documents?"""
    recency = systems.fields.recency()
    if recency is None:
        return None
    name, dates = recency
    missed: list[float] = []
    fine: list[float] = []
    for query in split.queries:
        side = missed if query.id in failed else fine
        for doc_id in split.relevant(query.id, grade):
            if doc_id in systems.corpus:
                side.append(float(dates[systems.corpus.position(doc_id)]))
    return freshness(name, missed, fine)


def _examples(
    systems: Systems,
    failures: Iterable[Mapping[str, Any]],
    queries: Iterable[Query],
    run: Run,
    limit: int,
) -> dict[str, list[dict[str, Any]]]:
    """Readable examples per cause, at most `limit`, one per query."""
    texts = {query.id: query.text for query in queries}
    examples: dict[str, list[dict[str, Any]]] = {}
    for line in failures:
        query_id = line["query_id"]
        of_cause = examples.setdefault(line["cause"], [])
        named = {example["query_id"] for example in of_cause}
        if len(of_cause) >= limit or query_id in named:
            continue
        above = run.top(query_id, 1)
        of_cause.append(
            {
                "query_id": query_id,
                "query": texts[query_id][:200],
                "doc_id": line["doc_id"],
                "document": label(systems, line["doc_id"]),
                "first": label(systems, above[0]) if above else "",
                "evidence": line["evidence"],
            }
        )
    return examples


def label(systems: Systems, doc_id: str, length: int = 120) -> str:
    """Title or beginning of a document."""
    document = systems.corpus.get(doc_id)
    if document is None:
        return ""
    text = document.title or " ".join(document.text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


# -- the story of one pair ----------------------------------------------------------------------------


def why(
    systems: Systems,
    splits: Sequence[Split],
    query: str,
    documents: Sequence[str],
    settings: config.Config,
) -> list[dict[str, Any]]:
    """The story of a query and each document: probes, cause, and the baseline's list around the document.

    `query` is the id of a train or dev query, or any text; without `documents` its relevant ones are
    meant.  Raises DataError for unknown ids.
    """
    known, judged = _query_of(splits, query)
    if known is None and (not documents or " " not in query.strip()):
        step = "give the id of a train or dev query, or a text of several words with a document id"
        raise DataError(f"no train or dev query called {query!r}", where="query", next_step=step)
    for doc_id in documents:
        if doc_id not in systems.corpus and doc_id not in judged:
            raise DataError(
                f"no document called {doc_id!r}",
                where="document",
                next_step="check the id in the corpus file",
            )
    asked = known or typed_query(query)
    grade = settings.data.min_grade
    chosen = list(documents) or [doc_id for doc_id, value in judged.items() if value >= grade]
    judgments = {asked.id: {**judged, **dict.fromkeys(chosen, 1)}}
    split = Split(f"why {asked.id}", (asked,), judgments)
    probes, diagnoses = diagnosed(systems, split, {asked.id: chosen}, settings)
    run = systems.run(systems.base(systems.today), split, settings.diagnose.depth)
    stories = []
    for doc_id in chosen:
        pair = (asked.id, doc_id)
        line = _line(pair, diagnoses[pair], probes[pair], settings.diagnose.k)
        line["query_id"] = asked.id if known else "your query"
        rank = run.rank(*pair)
        stories.append(
            line
            | {
                "query": asked.text,
                "document": label(systems, doc_id),
                "rank": rank,
                "fails": rank is None or rank > settings.diagnose.k,
                "around": _around(systems, split, run, rank),
            }
        )
    return stories


def _query_of(splits: Iterable[Split], query_id: str) -> tuple[Query | None, dict[str, int]]:
    """The query of a split that has this id, with its judgments; None where no split has it."""
    for split in splits:
        for query in split.queries:
            if query.id == query_id:
                return query, dict(split.judgments.get(query_id, {}))
    return None, {}


def _around(systems: Systems, split: Split, run: Run, rank: int | None) -> list[dict[str, Any]]:
    """The first results of the one query of a split, and those around a rank."""
    query_id = split.queries[0].id
    shown = set(range(1, _AROUND + 1))
    if rank is not None:
        shown.update(range(rank - _BESIDE, rank + _BESIDE + 1))
    rows = []
    for position, (doc_id, score) in enumerate(run.results.get(query_id, ()), start=1):
        if position in shown:
            rows.append(
                {
                    "rank": position,
                    "id": doc_id,
                    "score": score,
                    "title": label(systems, doc_id),
                    "relevant": split.judgments[query_id].get(doc_id, 0) > 0,
                }
            )
    return rows


def run(project: Project) -> Diagnoses:
    """Name the cause of every failing dev and train query by executing the repairs."""
    systems, splits = prepared(project)
    return diagnose(systems, splits, project.settings, project.rng("diagnose"))


RESULT = Diagnoses


def prepared(project: Project) -> tuple[Systems, list[Split]]:
    """Systems with their reranker and the tuned hybrid, and the splits that are diagnosed."""
    systems, settings = project.systems, project.settings
    splits = []
    for name in settings.diagnose.splits:
        if name == "train" and systems.today == "run":
            continue  # a run file holds dev (and test) results only
        split = project.split(name)
        if split.queries:
            splits.append(split)
    if systems.today == "convex":
        systems.tune(project.split("dev"), settings.evaluate.primary)
    return project.systems_with_reranker, splits
