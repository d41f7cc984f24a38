"""Dev evaluations while a model trains: cheap looks at a sample of dev, and all of dev at the end.

A look encodes documents, so that what it costs is what its documents cost.  The sample is made as
large as `train.look_share` of the training time allows, which is estimated from the lengths of the
texts and not from a clock: the same data gives the same sample on every machine and after a kill.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from nearer.config import Train
from nearer.data.corpus import Corpus
from nearer.embed.base import Encoder, TextEncoder
from nearer.measure.metrics import Scores, drop_self, score
from nearer.search.dense import Contents, Dense
from nearer.search.systems import Systems
from nearer.training import processes
from nearer.training.examples import TrainingSet
from nearer.types import Run, Split

#: Fewest dev queries of a look, as far as there are so many: fewer tell checkpoints apart badly.
FEWEST_QUERIES = 64
#: Documents of a look per query of it, at least: its judged ones and the hardest distractors.
_DOCUMENTS_PER_QUERY = 3
#: A training step costs about so many times the encoding of its texts: forward, and twice backward.
_STEP_COST = 3.0
#: Characters per token, about, to tell what of a long text is read.
_CHARACTERS = 4.5
_TOKENS = 256  # read of a text where the settings do not tell
#: A sample of nearly all documents saves nothing worth giving up the rest for.
_WORTH_SAMPLING = 0.8
_HARD = 10  # results of each first-stage system that join the documents of an evaluation


@dataclass(frozen=True, slots=True)
class Judge:
    """The dev score of a model under the primary measure, over a pool of documents."""

    pool: Corpus
    dev: Split
    measure: str
    item_to_item: bool = False

    @property
    def depth(self) -> int:
        """How many results are asked for, so that the measure sees enough of them."""
        depth = int(self.measure.split("@")[1]) if "@" in self.measure else 100
        return depth + int(self.item_to_item)

    def __call__(self, encoder: TextEncoder) -> float:
        """The mean on dev of a model as it is at that moment."""
        values = self.values(encoder)
        return float(values.mean()) if len(values) else 0.0

    def values(self, encoder: TextEncoder) -> np.ndarray:
        """The measure per dev query that has a relevant document, float64 (n_queries,)."""
        return self.scores(encoder.without_cache()).column(self.measure)

    def scores(self, encoder: Encoder, documents: np.ndarray | None = None) -> Scores:
        """Scores per query; `documents` are the vectors of the pool, where they are known."""
        run = Dense(encoder, self.pool, vectors=documents).search(self.dev.queries, self.depth)
        if self.item_to_item:
            run = drop_self(run)
        return score(run, self.dev, [self.measure])

    @property
    def texts(self) -> list[str]:
        """The documents of the pool."""
        return list(Contents(self.pool))

    def seen(self, positives: Collection[str]) -> np.ndarray:
        """bool (n_queries,): whether a relevant document of each scored query has training queries.

        `positives` are the texts of the documents that have.
        """
        nothing = Run("nothing", {})
        scored = score(nothing, self.dev, [self.measure]).query_ids
        return np.array([self._is_seen(query_id, positives) for query_id in scored], bool)

    def _is_seen(self, query_id: str, positives: Collection[str]) -> bool:
        judged: Mapping[str, int] = self.dev.judgments.get(query_id, {})
        for doc_id, grade in judged.items():
            document: Any = self.pool.get(doc_id) if grade > 0 else None
            if document is not None and document.content in positives:
                return True
        return False


@dataclass(frozen=True, slots=True)
class DevJudge:
    """Judges a model on all of dev; `sample`, where there is one, is what looks are made at."""

    whole: Judge
    sample: Judge | None = None

    def __call__(self, encoder: TextEncoder) -> float:
        """The score on all of dev."""
        return self.whole(encoder)

    @property
    def looked_at(self) -> Judge:
        return self.sample or self.whole

    def facts(self) -> dict[str, Any]:
        """What `train/summary.json` says about it, under `dev`."""
        looked_at = self.looked_at
        return {
            "documents": len(self.whole.pool),
            "queries": len(self.whole.dev.queries),
            "look": {
                "queries": len(looked_at.dev.queries),
                "documents": len(looked_at.pool),
                "sampled": self.sample is not None,
            },
        }


def dev_judge(
    systems: Systems, dev: Split, rows: TrainingSet, rng: np.random.Generator
) -> DevJudge:
    """The judge of a training on `rows`, over the documents of `systems`, those of the baseline.

    All of dev is judged over `train.dev_documents` documents, looks over as many as they may cost.
    """
    whole = whole_judge(systems, dev, rng)
    pool = whole.pool
    share = affordable_share(whole, rows, systems.config.train)
    fewer = sampled_queries(dev, share, rng)
    size = _sample_size(pool, fewer, share)
    if size > _WORTH_SAMPLING * len(pool):
        return DevJudge(whole)
    documents = dev_pool(pool, fewer, _first_stage(systems, dev), size, rng)
    return DevJudge(whole, replace(whole, pool=documents, dev=fewer))


def whole_judge(systems: Systems, dev: Split, rng: np.random.Generator) -> Judge:
    """Judges on all of dev, over at most `train.dev_documents` documents."""
    settings, corpus = systems.config, systems.corpus
    pool = corpus
    if len(corpus) > settings.train.dev_documents:
        pool = dev_pool(corpus, dev, _first_stage(systems, dev), settings.train.dev_documents, rng)
    return Judge(pool, dev, settings.evaluate.primary, systems.item_to_item)


def _first_stage(systems: Systems, dev: Split) -> list[Run]:
    """What BM25 and the baseline's vectors find: the distractors that are hard.

    The first process judges; the others need nothing of it.
    """
    if not processes.first():
        return []
    return [systems.search(name, dev) for name in ("bm25", "dense")]


def affordable_share(judge: Judge, rows: TrainingSet, settings: Train) -> float:
    """Share of a whole evaluation that a look may cost, 1 where all of dev is cheap enough."""
    limit = int((settings.max_seq_length or _TOKENS) * _CHARACTERS)
    whole = _cost((document.content for document in judge.pool), limit)
    whole += _cost((query.text for query in judge.dev.queries), limit)
    epoch = _STEP_COST * _epoch_cost(rows, settings.queries_per_document, limit)
    per_look = settings.look_share * epoch / settings.evaluations
    return min(1.0, per_look / max(1.0, whole))


def _cost(texts: Iterable[str], limit: int) -> float:
    """Characters that are read of the texts."""
    return float(sum(min(len(text), limit) for text in texts))


def _epoch_cost(rows: TrainingSet, queries_per_document: int, limit: int) -> float:
    """Characters that are encoded in an epoch: a document once for the queries that share it."""
    documents = rows.documents
    queries_of: Counter[int] = Counter()
    cost = 0.0
    for query, positive, negatives in rows.rows:
        queries_of[positive] += 1
        cost += min(len(rows.queries[query]), limit)
        cost += _cost((documents[negative] for negative in negatives), limit)
    for document, count in queries_of.items():
        cost += math.ceil(count / queries_per_document) * min(len(documents[document]), limit)
    return cost


def sampled_queries(dev: Split, share: float, rng: np.random.Generator) -> Split:
    """A share of the dev queries, drawn at random, in their order; at least FEWEST_QUERIES."""
    wanted = max(FEWEST_QUERIES, round(share * len(dev.queries)))
    if wanted >= len(dev.queries):
        return dev
    positions = sorted(rng.permutation(len(dev.queries))[:wanted])
    queries = tuple(dev.queries[position] for position in positions)
    judgments = {query.id: dev.judgments.get(query.id, {}) for query in queries}
    return Split(dev.name, queries, judgments)


def _sample_size(pool: Corpus, dev: Split, share: float) -> int:
    """How many documents a look is made over; `dev` holds the sampled queries."""
    judged: set[str] = set()
    for judgments in dev.judgments.values():
        judged.update(doc_id for doc_id in judgments if doc_id in pool)
    fewest = len(judged) + _DOCUMENTS_PER_QUERY * len(dev.queries)
    return min(len(pool), max(round(share * len(pool)), fewest))


def dev_pool(
    corpus: Corpus, dev: Split, runs: Sequence[Run], size: int, rng: np.random.Generator
) -> Corpus:
    """The documents that checkpoints are judged on: judged, hard and random ones, `size` in all.

    Judged documents are always in; hard ones join by rank, so that the best distractors come first.
    """
    if len(corpus) <= size:
        return corpus
    chosen: dict[str, None] = {}
    for judged in dev.judgments.values():
        chosen.update(dict.fromkeys(doc_id for doc_id in judged if doc_id in corpus))
    random = (corpus.ids[position] for position in rng.permutation(len(corpus)))
    for doc_id in chain(_by_rank(runs, dev), random):
        if len(chosen) >= size:
            break
        if doc_id in corpus:
            chosen.setdefault(doc_id)
    positions = sorted(corpus.position(doc_id) for doc_id in chosen)
    return Corpus.from_documents(corpus[position] for position in positions)


def _by_rank(runs: Sequence[Run], dev: Split) -> Iterator[str]:
    """The first results of all runs and queries, then the second ones, and so on."""
    for rank in range(_HARD):
        for run in runs:
            for query in dev.queries:
                hits = run.results.get(query.id, ())
                if rank < len(hits):
                    yield hits[rank][0]
