"""Simulated projects whose truth is known: real vectors searched, changed models, and the verdict.

Used by tests/test_error_rates.py (a few projects) and bench/error_rates.py (200 of each kind).

A project searches documents by vectors.  Its systems differ from today's in the vectors of the
*documents*, so that queries about one document gain and lose together, as after real training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer.embed.base import TextEncoder
from nearer.measure.metrics import Scores
from nearer.measure.significance import Comparison, compare
from nearer.measure.verdict import Candidate, Evidence, best_on_dev, judge
from nearer.types import Run

PRIMARY = "nDCG@10"
_RESAMPLES = 1000
_CUT = 10

Rows = np.ndarray  # (n,) int64 positions of queries


@dataclass(frozen=True, slots=True)
class World:
    """Vectors of unit length; `groups` names the document that each query shares with others."""

    documents: np.ndarray  # (n_documents, dim) float32
    queries: np.ndarray  # (n_queries, dim) float32
    relevant: tuple[tuple[int, ...], ...]  # per query
    groups: np.ndarray  # (n_queries,) int64

    def draw(self, n_queries: int, rng: np.random.Generator, others: Rows | None = None) -> Rows:
        """About so many queries, by whole groups, none of them a group of `others`."""
        groups = np.unique(self.groups)
        if others is not None:
            groups = np.setdiff1d(groups, self.groups[others])
        rng.shuffle(groups)
        sizes = np.array([(self.groups == group).sum() for group in groups])
        enough = int(np.searchsorted(sizes.cumsum(), n_queries)) + 1
        return np.flatnonzero(np.isin(self.groups, groups[:enough]))


def synthetic_world(rng: np.random.Generator, n_documents: int = 400, dim: int = 24) -> World:
    """Documents at random; few have many queries and most have one or two."""
    documents = unit(rng.normal(size=(n_documents, dim)))
    counts = np.minimum(rng.zipf(2.0, n_documents), 8)
    groups = np.repeat(np.arange(n_documents), counts)
    noise = rng.normal(size=(len(groups), dim)) * 0.22
    queries = unit(documents[groups] + noise)
    return World(documents, queries, tuple((int(group),) for group in groups), groups)


def real_world(folder: Path, encoder: TextEncoder) -> World:
    """A BEIR folder, its texts embedded; queries of all splits, each with its relevant documents."""
    documents = _lines(folder / "corpus.jsonl")
    texts = {line["_id"]: line["text"] for line in _lines(folder / "queries.jsonl")}
    position = {line["_id"]: number for number, line in enumerate(documents)}
    relevant: dict[str, list[int]] = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        for row in path.read_text(encoding="utf-8").splitlines()[1:]:
            query_id, doc_id, grade = row.split("\t")
            if int(grade) > 0 and doc_id in position:
                relevant.setdefault(query_id, []).append(position[doc_id])
    asked = Counter(row for rows in relevant.values() for row in rows)
    groups = [max(rows, key=lambda row: (asked[row], row)) for rows in relevant.values()]
    contents = [f"{line.get('title', '')} {line['text']}".strip() for line in documents]
    return World(
        documents=unit(encoder.encode(contents, "document")),
        queries=unit(encoder.encode([texts[query_id] for query_id in relevant], "query")),
        relevant=tuple(map(tuple, relevant.values())),
        groups=np.array(groups, np.int64),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)


def blurred(documents: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Vectors of documents as another training run might have them: moved at random."""
    scale = strength / documents.shape[1] ** 0.5
    return unit(documents + scale * rng.normal(size=documents.shape))


@dataclass(frozen=True, slots=True)
class System:
    """What answers: vectors of documents, and what is done to those of queries."""

    name: str
    role: str
    documents: np.ndarray
    adapter: np.ndarray | None = None

    def values(self, world: World, rows: Rows) -> np.ndarray:
        """nDCG@10 of the queries, (n,) float64."""
        queries = world.queries[rows]
        if self.adapter is not None:
            queries = unit(queries @ self.adapter)
        scores = queries @ self.documents.T
        return np.concatenate(
            [
                _ndcg(part, [world.relevant[row] for row in part_rows.tolist()])
                for part, part_rows in zip(
                    np.array_split(scores, _parts(scores)),
                    np.array_split(rows, _parts(scores)),
                    strict=True,
                )
            ]
        )


def _parts(scores: np.ndarray) -> int:
    """Into how many parts a matrix of scores is cut, so that little memory is used."""
    return 1 + scores.size // 500_000


def _ndcg(scores: np.ndarray, relevant: Sequence[Sequence[int]]) -> np.ndarray:
    """nDCG@10 of (n, n_documents) scores, (n,) float64."""
    most = max(len(rows) for rows in relevant)
    padded = np.array([[*rows, *[rows[0]] * (most - len(rows))] for rows in relevant])
    real = np.array([[number < len(rows) for number in range(most)] for rows in relevant])
    found = np.take_along_axis(scores, padded, axis=1)
    ranks = (scores[:, None, :] > found[:, :, None]).sum(axis=2) + 1
    gains = np.where(real & (ranks <= _CUT), 1.0 / np.log2(ranks + 1.0), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, _CUT + 2)))
    best = ideal[np.minimum(real.sum(axis=1), _CUT) - 1]
    return gains.sum(axis=1) / best


def no_difference(world: World, rng: np.random.Generator) -> list[System]:
    """Systems that are equally good: each moves the documents in its own random way."""
    systems = [System("dense", "today", blurred(world.documents, 1.0, rng))]
    for number in range(2):
        systems.append(System(f"fix {number}", "baseline", blurred(world.documents, 1.0, rng)))
        systems.append(System(f"tuned {number}", "candidate", blurred(world.documents, 1.0, rng)))
    return systems


def shuffled_labels(world: World, rng: np.random.Generator) -> list[System]:
    """Adapters fitted to training queries whose relevant documents were exchanged at random.

    Which documents are asked for most survives the exchange, so some of them really help a little:
    `Ended.truth` says which.
    """
    today = System("dense", "today", blurred(world.documents, 1.0, rng))
    rows = rng.choice(len(world.queries), min(300, len(world.queries)), replace=False)
    queries = world.queries[rows].astype(np.float64)
    first = np.array([world.relevant[row][0] for row in rows])
    targets = today.documents[rng.permutation(first)].astype(np.float64)
    systems = [today]
    dim = queries.shape[1]
    for number, penalty in enumerate((1.0, 10.0, 100.0)):
        gram = queries.T @ queries + penalty * np.eye(dim)
        wanted = queries.T @ targets + penalty * np.eye(dim)
        adapter = np.linalg.solve(gram, wanted)
        systems.append(System(f"tuned {number}", "candidate", today.documents, adapter))
    return systems


def real_gain(world: World, rng: np.random.Generator, strength: float = 0.8) -> list[System]:
    """A fine-tuned system whose documents lie a little nearer to where they belong."""
    return [
        System("dense", "today", blurred(world.documents, 1.0, rng)),
        System("tuned", "candidate", blurred(world.documents, strength, rng)),
    ]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one project ended; `gain` is that of the chosen fine-tuned system over today's."""

    verdict: str
    gain: Comparison
    change: np.ndarray  # per test query
    labels: np.ndarray | None
    truth: float  # mean gain over all queries of the world

    def covers(self, truth: float) -> bool:
        """Whether the interval of the gain holds the true one."""
        return self.gain.low <= truth <= self.gain.high


@dataclass(frozen=True, slots=True)
class Sizes:
    """Queries of dev and of test, and whether clusters are noticed."""

    dev: int = 100
    test: int = 300
    clusters: bool = True


def decide(
    world: World, systems: Sequence[System], sizes: Sizes, rng: np.random.Generator
) -> Ended:
    """Choose on dev, judge on test: the product's own rule, with guardrails that all pass."""
    test = world.draw(sizes.test, rng)
    dev = world.draw(sizes.dev, rng, test)
    labels = world.groups[test] if sizes.clusters else None
    candidates = []
    for system in systems:
        scores = Scores(tuple(map(str, test)), {PRIMARY: system.values(world, test)})
        on_dev = float(system.values(world, dev).mean())
        run = Run(system.name, {})
        candidates.append(Candidate(system.name, system.role, "dense", run, scores, on_dev))
    today = candidates[0]
    tuned, simple = best_on_dev(candidates, "candidate"), best_on_dev(candidates, "baseline")
    assert tuned is not None
    comparisons: dict[tuple[str, str], Comparison] = {}
    for before, after in ((today, tuned), (today, simple), (simple, tuned)):
        if before is not None and after is not None:
            comparisons[before.name, after.name] = compare(
                before.scores.column(PRIMARY),
                after.scores.column(PRIMARY),
                rng,
                _RESAMPLES,
                clusters=labels,
            )
    evidence = Evidence(
        today=today,
        tuned=tuned,
        simple=simple,
        comparisons=comparisons,
        guardrails=[{"name": "all", "status": "pass"}],
        primary=PRIMARY,
        min_gain=0.01,
        alpha=0.05,
        clusters=labels,
    )
    change = tuned.scores.column(PRIMARY) - today.scores.column(PRIMARY)
    by_name = {system.name: system for system in systems}
    everything = np.arange(len(world.queries))
    before, after = (
        by_name[name].values(world, everything).mean() for name in (today.name, tuned.name)
    )
    gain = comparisons[today.name, tuned.name]
    return Ended(judge(evidence).verdict, gain, change, labels, float(after - before))


#: Ways in which nothing is gained.
NULLS = {"no difference": no_difference, "labels shuffled": shuffled_labels}


def many(world: World, kind: str, sizes: Sizes, projects: int, seed: Sequence[int]) -> list[Ended]:
    """Projects of one kind, each with a generator of its own."""
    make = {**NULLS, "real gain": real_gain}[kind]
    ended = []
    for number in range(projects):
        rng = np.random.default_rng([*seed, number, *kind.encode()])
        ended.append(decide(world, make(world, rng), sizes, rng))
    return ended


def shares(ended: Sequence[Ended]) -> Mapping[str, float]:
    """Verdicts, and how often the interval holds 0, as shares."""
    n = len(ended)
    counted = dict.fromkeys(("ship", "use_simpler_fix", "do_not_ship", "inconclusive"), 0)
    for project in ended:
        counted[project.verdict] += 1
    figures = {name: count / n for name, count in counted.items()}
    false = [row for row in ended if row.verdict == "ship" and row.truth < 0.0]
    figures["false ship"] = len(false) / n
    figures["helps"] = sum(project.truth > 0.0 for project in ended) / n
    figures["covers 0"] = sum(project.covers(0.0) for project in ended) / n
    figures["worse"] = sum(project.gain.outcome == "worse" for project in ended) / n
    figures["better"] = sum(project.gain.outcome == "better" for project in ended) / n
    return figures
