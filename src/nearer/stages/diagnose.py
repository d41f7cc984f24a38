"""Why did each failing query fail, and what is the cheapest thing that repairs it?  Train and dev only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer import config
from nearer.diagnosis.causes import causes, remedies
from nearer.diagnosis.evidence import diagnosed
from nearer.diagnosis.totals import freshness, waterfall
from nearer.diagnosis.values import ByName, Diagnosis, Failure, Pair, Probe
from nearer.errors import DataError
from nearer.files import write_json, write_jsonl
from nearer.search.systems import Systems
from nearer.stages.shared import (
    corpus_of,
    missing_of,
    random_of,
    reranker_of_run,
    split_of,
    systems_of,
)
from nearer.types import Query, Run, Split, typed_query
from nearer.workspace import StepContext

_AROUND = 5  # first results shown in the story of a pair
_BESIDE = 2  # results shown on each side of the document


@dataclass(frozen=True, slots=True)
class Diagnoses:
    """Lines of `failures.jsonl` and `summary.json`."""

    failures: Sequence[Failure]
    summary: Mapping[str, Any]

    def __str__(self) -> str:
        failing = self.summary["n_failing_queries"]
        queries = self.summary["n_queries"]
        documents = self.summary["n_failures"]
        lines = [f"{failing} of {queries} queries fail, {documents} documents"]
        known = remedies()
        for cause, count in self.summary["causes"].items():
            lines.append(f"{count:>6}  {cause:<16} {known.get(cause, '')}")
        return "\n".join(lines)


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
    failures: list[dict[str, Any]] = []
    for pair, diagnosis in diagnoses.items():
        line = _line(pair, diagnosis, probes[pair], settings.diagnose.k)
        line["query_fails"] = pair[0] in failed
        failures.append(line)
    baseline = systems.base(systems.today)
    run = systems.run(baseline, looked_at, settings.diagnose.depth)
    summary = {
        "n_failures": len(failures),
        "n_failing_queries": len(failed),
        "missing": missing_of(looked_at, systems.corpus),
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
    k, depth, limit = settings.diagnose.k, settings.diagnose.depth, settings.diagnose.limit
    baseline = systems.base(systems.today)
    queries: list[Query] = []
    judgments: dict[str, Mapping[str, int]] = {}
    failed: set[str] = set()
    for split in splits:
        run = systems.run(baseline, split, depth)
        for query in split.queries:
            relevant = split.relevant(query.id, settings.data.min_grade)
            if not relevant:
                continue
            if systems.today == "run" and query.id not in run.results:
                continue
            queries.append(query)
            judgments[query.id] = split.judgments[query.id]
            top = run.top(query.id, k)
            if relevant.keys().isdisjoint(top):
                failed.add(query.id)
    if len(failed) > limit:
        queries = _sample(queries, failed, limit, rng)
        failed.intersection_update([query.id for query in queries])
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


def _line(pair: Pair, diagnosis: Diagnosis, probes: ByName, k: int) -> dict[str, Any]:
    return {
        "query_id": pair[0],
        "doc_id": pair[1],
        "cause": diagnosis.cause,
        "kind": diagnosis.kind,
        "probes": {name: probe.as_dict(k) for name, probe in probes.items()},
        "evidence": diagnosis.evidence,
        "also": list(diagnosis.also),
    }


def _is_label_suspect(line: Failure) -> bool:
    named = (line["cause"], *line["also"])
    return "label_suspect" in named


def _counts(failures: Iterable[Failure]) -> dict[str, int]:
    """Failures per cause, in the order of the cost of their repair."""
    counts = Counter(line["cause"] for line in failures)
    names = [cause.name for cause in causes()]
    return {name: counts[name] for name in names if counts[name]}


def _kinds(failures: Iterable[Failure]) -> dict[str, dict[str, int]]:
    """Failures per cause and kind, the most frequent kind first."""
    counts: dict[str, Counter[str]] = {}
    for line in failures:
        if line["kind"]:
            of_cause = counts.setdefault(line["cause"], Counter())
            of_cause[line["kind"]] += 1
    return {cause: dict(kinds.most_common()) for cause, kinds in counts.items()}


def _skipped(results: Iterable[ByName]) -> list[tuple[str, Probe]]:
    """Every probe that was not tried, or not in every way, with its name."""
    skipped: list[tuple[str, Probe]] = []
    for probes in results:
        skipped += [(name, probe) for name, probe in probes.items() if probe.skipped]
    return skipped


def _not_run(results: Iterable[ByName]) -> dict[str, int]:
    """How many failures each probe left out, by name and reason."""
    counts: Counter[str] = Counter()
    for name, probe in _skipped(results):
        counts[f"{name}: {probe.skipped}"] += 1
    return dict(counts)


def _not_tried(results: Iterable[ByName]) -> list[dict[str, Any]]:
    """Probes that could have settled a failure and did not run: why, for how many, and what would run them."""
    counts: Counter[tuple[str, str | None, str]] = Counter()
    for name, probe in _skipped(results):
        counts[name, probe.skipped, probe.next_step] += 1
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
                position = systems.corpus.position(doc_id)
                side.append(float(dates[position]))
    return freshness(name, missed, fine)


def _examples(
    systems: Systems,
    failures: Iterable[Failure],
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
        first = ""
        for doc_id in run.top(query_id, 1):
            first = label(systems, doc_id)
        of_cause.append(
            {
                "query_id": query_id,
                "query": texts[query_id][:200],
                "doc_id": line["doc_id"],
                "document": label(systems, line["doc_id"]),
                "first": first,
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
    if len(text) <= length:
        return text
    return text[: length - 1] + "…"


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
    judged.update(dict.fromkeys(chosen, 1))
    split = Split(f"why {asked.id}", (asked,), {asked.id: judged})
    probes, diagnoses = diagnosed(systems, split, {asked.id: chosen}, settings)
    baseline = systems.base(systems.today)
    run = systems.run(baseline, split, settings.diagnose.depth)
    stories: list[dict[str, Any]] = []
    for doc_id in chosen:
        pair = (asked.id, doc_id)
        story = _line(pair, diagnoses[pair], probes[pair], settings.diagnose.k)
        rank = run.rank(*pair)
        if known is None:
            story["query_id"] = "your query"
        story["query"] = asked.text
        story["document"] = label(systems, doc_id)
        story["rank"] = rank
        story["fails"] = rank is None or rank > settings.diagnose.k
        story["around"] = _around(systems, split, run, rank)
        stories.append(story)
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
    judged = split.judgments[query_id]
    hits = run.results.get(query_id, ())
    rows: list[dict[str, Any]] = []
    for position, (doc_id, score) in enumerate(hits, start=1):
        if position not in shown:
            continue
        rows.append(
            {
                "rank": position,
                "id": doc_id,
                "score": score,
                "title": label(systems, doc_id),
                "relevant": judged.get(doc_id, 0) > 0,
            }
        )
    return rows


def step(context: StepContext) -> dict[str, Any]:
    """Files: `failures.jsonl` (one line a failure, with every probe) and `summary.json`."""
    systems, splits = prepared(context)
    result = diagnose(systems, splits, context.config, random_of(context))
    write_jsonl(context.out / "failures.jsonl", result.failures)
    write_json(context.out / "summary.json", result.summary)
    told = (
        "n_failures",
        "n_failing_queries",
        "n_queries",
        "causes",
        "fine_tuning_ceiling",
        "label_suspects",
    )
    return {key: result.summary[key] for key in told}


def prepared(context: StepContext) -> tuple[Systems, list[Split]]:
    """Systems with their reranker and the tuned hybrid, and the splits that are diagnosed."""
    systems = systems_of(context, corpus_of(context))
    names = [
        name for name in context.config.diagnose.splits if name != "train" or systems.today != "run"
    ]
    splits = [split for name in names if (split := split_of(context, name)).queries]
    if systems.today == "convex":
        systems.tune(split_of(context, "dev"), context.config.evaluate.primary)
    systems.reranker = reranker_of_run(context, systems)
    return systems, splits
