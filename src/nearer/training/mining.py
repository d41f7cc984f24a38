"""Hard negatives that are really negative.

Positive-aware selection (NV-Retriever, arXiv 2407.15831, "TopK-PercPos"): a candidate counts as a
negative only when the model scores it below `margin` × the score of the positive, so that
unlabelled relevant documents, which fill the top of the list, are left alone.  Documents that
somebody judged not relevant need no such guess: they come first, whatever the model scores them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Mine
from nearer.files import read_json, write_json, write_jsonl
from nearer.results import Block, Line, Result
from nearer.training.examples import read_examples
from nearer.training.material import TrainingMaterial, UsableDocuments
from nearer.types import Example, Query, Run

#: (query id, document ids) → similarity of each under today's model, float32 (n_documents,)
Similarity = Callable[[str, Sequence[str]], np.ndarray]
#: Source of a negative that somebody judged not relevant.
JUDGED_NEGATIVE = "judged 0"


@dataclass(frozen=True)
class Mined(Result):
    """Examples kept, and what was dropped, by reason."""

    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    #: of the held-out guard: training queries that collide with dev or test, by kind
    leakage: Mapping[str, int]

    def save(self, folder: Path) -> None:
        """`examples.jsonl` and `summary.json`."""
        write_jsonl(folder / "examples.jsonl", (example.as_dict() for example in self.examples))
        write_json(folder / "summary.json", self.summary())

    @classmethod
    def load(cls, folder: Path) -> Mined:
        """Read the examples and what was dropped.  Raises DataError for a damaged file."""
        summary = read_json(folder / "summary.json")
        examples = tuple(read_examples(folder / "examples.jsonl"))
        return cls(examples, summary.get("dropped", {}), summary.get("leakage", {}))

    def brief(self) -> dict[str, Any]:
        return self.summary()

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per example."""
        return (example.as_dict() for example in self.examples)

    def blocks(self) -> list[Block]:
        summary = self.summary()
        mean = summary["negatives"]["mean"]
        lines = [Line(f"{summary['examples']:,} examples, {mean:.2f} hard negatives each")]
        for reason, count in summary["dropped"].items():
            lines.append(Line(f"  · dropped {count:,}: {reason}", "dim"))
        return [*lines]

    def summary(self) -> dict[str, Any]:
        """What was kept, dropped by reason, and found to leak: `summary.json`."""
        counts = [len(example.negatives) for example in self.examples]
        sources: Counter[str] = Counter()
        for example in self.examples:
            sources.update(part.split("#")[0] for part in example.source)
        return {
            "examples": len(self.examples),
            "kept": len(self.examples),
            "queries": len({example.query_id or example.query for example in self.examples}),
            "documents": len({example.positive for example in self.examples}),
            "negatives": {
                "total": sum(counts),
                "mean": round(float(np.mean(counts)), 3) if counts else 0.0,
                "without": counts.count(0),
            },
            "sources": dict(sources),
            "dropped": dict(sorted(self.dropped.items())),
            "leakage": dict(sorted(self.leakage.items())),
        }


def mine(
    material: TrainingMaterial,
    candidates: Sequence[Run],
    similarity: Similarity | None,
    settings: Mine,
    rng: np.random.Generator,
) -> Mined:
    """One example for each judged pair of a training query, with hard negatives.

    Documents judged 0 for the query are its first negatives; `candidates` are ranked lists to take
    further ones from.  Without `similarity` negatives are drawn from them in the order of their
    ids.
    """
    miner = _Miner(material, candidates, similarity, settings, rng)
    with progress.task("mine examples", len(material.train.queries), "queries") as bar:
        for query in material.train.queries:
            bar.advance()
            miner.add(query)
    return Mined(tuple(miner.examples), miner.usable.dropped, miner.leakage)


@dataclass(frozen=True, slots=True)
class _Options:
    """The documents that negatives of one query are taken from."""

    judged: list[str]  # judged 0
    mined: dict[str, str]  # document id → where it was found
    similar: dict[str, float]  # to the query, its positives included


class _Miner:
    """Makes the examples of one query after the other."""

    def __init__(
        self,
        material: TrainingMaterial,
        candidates: Sequence[Run],
        similarity: Similarity | None,
        settings: Mine,
        rng: np.random.Generator,
    ) -> None:
        self.examples: list[Example] = []
        self.leakage: Counter[str] = Counter()
        self.usable = UsableDocuments(material)
        self._material = material
        self._candidates = candidates
        self._similarity = similarity
        self._settings = settings
        self._rng = rng

    def add(self, query: Query) -> None:
        """Make the examples of a query; one that is also held out, or empty, gives none."""
        collision = self._material.collides(query.text)
        if collision:
            self.leakage[collision] += 1
            self.usable.dropped["query also held out"] += 1
            return
        if not query.text.strip():
            self.usable.dropped["empty query"] += 1
            return
        positives = self.usable.positives(query)
        if not positives:
            return
        options = self._options(query.id, positives)
        self.examples += [self._example(query.id, doc_id, options) for doc_id in positives]

    def _options(self, query_id: str, positives: Sequence[str]) -> _Options:
        judged: list[str] = []
        mined: dict[str, str] = {}
        if self._settings.negatives:
            depth = self._settings.candidates
            judged = self.usable.judged_negatives(query_id)
            mined = self.usable.candidates(query_id, self._candidates, depth)
        for doc_id in judged:
            mined.pop(doc_id, None)
        doc_ids = [*positives, *judged, *mined]
        scores = np.zeros(len(doc_ids))
        if self._similarity and len(doc_ids) > len(positives):
            scores = self._similarity(query_id, doc_ids)
        similar = dict(zip(doc_ids, map(float, scores), strict=True))
        return _Options(judged, mined, similar)

    def _example(self, query_id: str, positive: str, options: _Options) -> Example:
        wanted = self._settings.negatives
        judged = self._hardest(options.judged, options.similar, wanted)
        below = self._below(positive, options)
        drawn = self._hardest(below, options.similar, wanted - len(judged))
        sources = [JUDGED_NEGATIVE] * len(judged)
        sources += [options.mined[doc_id] for doc_id in drawn]
        return Example(
            positive,
            query_id=query_id,
            negatives=(*judged, *drawn),
            source=("judged", *sources),
        )

    def _below(self, positive: str, options: _Options) -> list[str]:
        """The mined candidates that score clearly below the positive."""
        similarity = options.similar[positive]
        # margin × positive, also where that is below zero
        ceiling = similarity - (1.0 - self._settings.margin) * abs(similarity)
        below = [doc_id for doc_id in options.mined if options.similar[doc_id] < ceiling]
        too_close = len(options.mined) - len(below)
        if too_close:
            self.usable.dropped["candidate scores too close to the positive"] += too_close
        return below

    def _hardest(
        self, doc_ids: Sequence[str], similar: Mapping[str, float], count: int
    ) -> list[str]:
        """At most `count`, drawn from the `mine.pool` that are most similar to the query."""
        ordered = sorted(doc_ids, key=lambda doc_id: (-similar[doc_id], doc_id))
        hardest = ordered[: self._settings.pool]
        take = min(count, len(hardest))
        if take <= 0:
            return []
        rows = sorted(self._rng.choice(len(hardest), size=take, replace=False))
        return [hardest[row] for row in rows]
