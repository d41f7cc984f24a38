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
from nearer.diagnosis.causes import CAUSES, Diagnosis, Probe, freshness, waterfall
from nearer.diagnosis.evidence import diagnosed
from nearer.diagnosis.pieces import Pair
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
    its line has `query_fails` false.  With more than `diagnose.limit` failing queries a random sample of all queries is looked at.
    """
    how, grade = settings.diagnose, settings.data.min_grade
    split, failing = _failing(systems, splits, how, grade, rng)
    failed = {query.id for query in failing.queries}
    wanted = _wanted(systems, split, failed, grade)
    looked_at = tuple(query for query in split.queries if query.id in wanted)
    found, diagnoses = diagnosed(
        systems, Split("failing", looked_at, split.judgments), wanted, settings
    )
    failures = [
        _line(pair, diagnoses[pair], found[pair], how.k) | {"query_fails": pair[0] in failed}
        for pair in found
    ]
    run = systems.run(systems.base(systems.today), split, how.depth)
    counts = Counter(line["cause"] for line in failures)
    primary = settings.evaluate.primary
    skipped = Counter(
        f"{name}: {probe.skipped}"
        for probes in found.values()
        for name, probe in probes.items()
        if probe.skipped
    )
    summary = {
        "n_failures": len(failures),
        "n_failing_queries": len(failing.queries),
        "missing": missing_documents(split, systems.corpus),
        "n_queries": len(split.queries),
        "k": how.k,
        "splits": list(how.splits),
        "causes": {cause: counts[cause] for cause in CAUSES if counts[cause]},
        "kinds": _kinds(failures),
        "label_suspects": sum(
            "label_suspect" in line["also"] or line["cause"] == "label_suspect" for line in failures
        ),
        **waterfall(run, split, failures, primary),
        "freshness": _freshness(systems, split, failed, grade),
        "not_run": dict(skipped),
        "not_tried": _not_tried(found.values()),
        "examples": _examples(
            systems, failures, {query.id: query for query in looked_at}, run, how
        ),
    }
    return Diagnoses(failures, summary)


def _failing(
    systems: Systems,
    splits: Sequence[Split],
    how: config.Diagnose,
    grade: int,
    rng: np.random.Generator,
) -> tuple[Split, Split]:
    """The queries that are looked at, and those of them that fail."""
    today = systems.base(systems.today)
    queries: list[Query] = []
    judgments: dict[str, Mapping[str, int]] = {}
    failed: set[str] = set()
    for split in splits:
        run = systems.run(today, split, how.depth)
        answered = [
            query
            for query in split.queries
            if split.relevant(query.id, grade)
            and (systems.today != "run" or query.id in run.results)
        ]
        queries += answered
        judgments |= {query.id: split.judgments[query.id] for query in answered}
        failed |= {
            query.id
            for query in answered
            if not set(run.top(query.id, how.k)) & set(split.relevant(query.id, grade))
        }
    if len(failed) > how.limit:
        chosen, count = [], 0
        for place in rng.permutation(len(queries)):
            count += queries[place].id in failed
            chosen.append(int(place))
            if count == how.limit:
                break
        queries = [queries[place] for place in sorted(chosen)]
    split = Split("diagnosed", tuple(queries), judgments)
    return split, Split(
        "failing", tuple(query for query in queries if query.id in failed), judgments
    )


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


def _line(pair: Pair, diagnosis: Diagnosis, probes: Mapping[str, Any], k: int) -> dict[str, Any]:
    return {
        "query_id": pair[0],
        "doc_id": pair[1],
        "cause": diagnosis.cause,
        "kind": diagnosis.kind,
        "probes": {name: probe.as_dict(k) for name, probe in probes.items()},
        "evidence": diagnosis.evidence,
        "also": list(diagnosis.also),
    }


def _not_tried(found: Iterable[Mapping[str, Probe]]) -> list[dict[str, Any]]:
    """Probes that could have settled a failure and did not run: why, for how many, and what would run them."""
    counts = Counter(
        (name, probe.skipped, probe.next_step)
        for probes in found
        for name, probe in probes.items()
        if probe.skipped
    )
    return [
        {"probe": name, "why": why, "next": step, "failures": count}
        for (name, why, step), count in counts.most_common()
    ]


def _kinds(failures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for line in failures:
        if line["kind"]:
            counts.setdefault(line["cause"], Counter())[line["kind"]] += 1
    return {cause: dict(kinds.most_common()) for cause, kinds in counts.items()}


def _freshness(
    systems: Systems, split: Split, failed: set[str], grade: int
) -> dict[str, Any] | None:
    """Do failures concentrate on recent documents?"""
    recency = systems.fields.recency()
    if recency is None:
        return None
    name, values = recency
    sides: tuple[list[float], list[float]] = ([], [])
    for query in split.queries:
        for doc_id in split.relevant(query.id, grade):
            if doc_id in systems.corpus:
                sides[query.id not in failed].append(float(values[systems.corpus.position(doc_id)]))
    return freshness(name, *sides)


def _examples(
    systems: Systems,
    failures: Sequence[Mapping[str, Any]],
    queries: Mapping[str, Query],
    run: Run,
    how: config.Diagnose,
) -> dict[str, list[dict[str, Any]]]:
    """Readable examples a cause, one a query."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for line in failures:
        examples = shown.setdefault(line["cause"], [])
        if len(examples) < how.examples and all(
            example["query_id"] != line["query_id"] for example in examples
        ):
            above = run.top(line["query_id"], 1)
            examples.append(
                {
                    "query_id": line["query_id"],
                    "query": queries[line["query_id"]].text[:200],
                    "doc_id": line["doc_id"],
                    "document": label(systems, line["doc_id"]),
                    "first": label(systems, above[0]) if above else "",
                    "evidence": line["evidence"],
                }
            )
    return shown


def label(systems: Systems, doc_id: str, length: int = 120) -> str:
    """Title or beginning of a document."""
    document = systems.corpus.get(doc_id)
    text = "" if document is None else document.title or " ".join(document.text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


# -- the story of one pair ----------------------------------------------------------------------------


def why(
    systems: Systems,
    splits: Sequence[Split],
    query: str,
    documents: Sequence[str],
    settings: config.Config,
) -> list[dict[str, Any]]:
    """The story of a query and each document: probes, cause, and today's list around the document.

    `query` is the id of a train or dev query, or any text; without `documents` its relevant ones are
    meant.  Raises DataError for unknown ids.
    """
    known = next(
        ((one, split) for split in splits for one in split.queries if one.id == query), None
    )
    if known is None and (not documents or " " not in query.strip()):
        step = "give the id of a train or dev query, or a text of several words with a document id"
        raise DataError(f"no train or dev query called {query!r}", where="query", next_step=step)
    asked = known[0] if known else typed_query(query)
    judged = dict(known[1].judgments.get(asked.id, {})) if known else {}
    chosen = list(documents) or [d for d, g in judged.items() if g >= settings.data.min_grade]
    if documents and (
        unknown := [d for d in documents if d not in systems.corpus and d not in judged]
    ):
        raise DataError(
            f"no document called {unknown[0]!r}",
            where="document",
            next_step="check the id in the corpus file",
        )
    split = Split(f"why {asked.id}", (asked,), {asked.id: judged | dict.fromkeys(chosen, 1)})
    found, diagnoses = diagnosed(systems, split, {asked.id: chosen}, settings)
    run = systems.run(systems.base(systems.today), split, settings.diagnose.depth)
    hits = run.results.get(asked.id, ())
    told = []
    for doc_id in chosen:
        pair = (asked.id, doc_id)
        rank = run.rank(*pair)
        shown = {*range(1, _AROUND + 1), *(range(rank - 2, rank + 3) if rank else ())}
        rows = [
            {
                "rank": place,
                "id": d,
                "score": s,
                "title": label(systems, d),
                "relevant": split.judgments[asked.id].get(d, 0) > 0,
            }
            for place, (d, s) in enumerate(hits, start=1)
            if place in shown
        ]
        line = _line(pair, diagnoses[pair], found[pair], settings.diagnose.k)
        fails = rank is None or rank > settings.diagnose.k
        told.append(
            line
            | {
                "query_id": asked.id if known else "your query",
                "query": asked.text,
                "document": label(systems, doc_id),
                "rank": rank,
                "fails": fails,
                "around": rows,
            }
        )
    return told


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
