"""Candidates that take seconds: they always run beside what is trained, over the base's vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from nearer import progress
from nearer.config import Train
from nearer.data.corpus import Corpus
from nearer.embed.adapter import AdaptedEncoder
from nearer.embed.base import Encoder, TextEncoder
from nearer.embed.encoder import SentenceEncoder
from nearer.training.examples import TrainingSet
from nearer.training.looks import Judge
from nearer.training.methods.adapters import fit_adapter
from nearer.training.methods.contest import MOVED, NONE, Entry
from nearer.training.methods.nudge import nudge
from nearer.training.methods.towers import with_query_adapter
from nearer.training.methods.vectors import VectorTask

LINEAR, NUDGE = "linear", "nudge"

#: Documents of the corpus that training texts are ranked among, beside those of the examples.
_OTHERS = 2000


@dataclass(frozen=True)
class Learned:
    """What is learned from: the examples, and the corpus that they are ranked among.

    `positives` are the ids of documents that are relevant for some training query, or near-duplicates
    of one: outside of the examples none of them may be taken for a negative.
    """

    rows: TrainingSet
    corpus: Corpus
    positives: Collection[str] = frozenset()

    def others(self, seed: int) -> list[str]:
        """Texts of random documents that are nobody's positives."""
        order = np.random.default_rng(seed).permutation(len(self.corpus))
        positions = []
        for position in order.tolist():
            if self.corpus.ids[position] not in self.positives:
                positions.append(position)
            if len(positions) == _OTHERS:
                break
        return list(self.corpus.contents(positions))


@dataclass(frozen=True)
class Reference:
    """A cheap candidate; `make` gives the model to save, None where it is none."""

    entry: Entry
    make: Callable[[], TextEncoder] | None = None
    epochs: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Workbench:
    """The base model's vectors of everything that references need, each computed once."""

    encoder: TextEncoder
    task: VectorTask
    dev: Judge | None
    pool: np.ndarray  # float32 (n_pool, dimension)
    rows: dict[str, int]  # text of a document of the task → its row
    scale: float
    seed: int

    @classmethod
    def of(
        cls, encoder: TextEncoder, learned: Learned, dev: Judge | None, settings: Train
    ) -> Workbench:
        """Encode what is missing; the encoder's cache has most of it where `evaluate` has run."""
        examples = learned.rows
        documents = dict.fromkeys(examples.documents)
        documents.update(dict.fromkeys(learned.others(settings.seed)))
        wider = TrainingSet(examples.queries, tuple(documents), examples.rows, examples.blocked)
        task = VectorTask.of(encoder, wider)
        pool = encoder.encode([] if dev is None else dev.texts, "document")
        rows = {text: row for row, text in enumerate(documents)}
        return cls(encoder, task, dev, pool, rows, settings.scale, settings.seed)

    @property
    def base_scores(self) -> np.ndarray:
        """float64 (n_queries,): dev scores of the base model."""
        return self._scores(self.encoder, self.pool)

    def _scores(self, encoder: Encoder, pool: np.ndarray) -> np.ndarray:
        """float64 (n_queries,) on dev; empty without dev."""
        if self.dev is None:
            return np.zeros(0)
        return self.dev.scores(encoder, pool).column(self.dev.measure)

    def linear(self) -> Reference:
        """A linear adapter of query vectors."""
        with progress.task("fit a linear adapter of queries", 1, "adapters"):
            fitted = fit_adapter(self.task, self.scale, self.seed)
        adapted = AdaptedEncoder(self.encoder, fitted.adapter)
        scores = self._scores(adapted, self.pool)
        entry = Entry(
            LINEAR,
            fitted.seconds,
            NONE,
            fitted.adapter.nbytes,
            scores,
            reference=True,
            more={"epochs": fitted.epochs, "strength": fitted.strength},
        )

        def make() -> TextEncoder:
            if isinstance(self.encoder, SentenceEncoder):
                return with_query_adapter(self.encoder, fitted.adapter)
            return adapted

        return Reference(entry, make, fitted.epochs, len(self.task.pairs))

    def nudge(self) -> Reference:
        """Documents' vectors moved towards their training queries."""
        started = time.monotonic()
        with progress.task("move documents towards their queries", 1, "updates"):
            nudged = nudge(self.task, np.random.default_rng(self.seed))
        seconds = time.monotonic() - started
        pool = self.pool.copy()
        for row, text in enumerate([] if self.dev is None else self.dev.texts):
            if text in self.rows:
                pool[row] = nudged.documents[self.rows[text]]
        scores = self._scores(self.encoder, pool)
        size = nudged.moved * self.task.dimension * 4
        more = {"bound": nudged.bound, "documents_moved": nudged.moved}
        return Reference(
            Entry(NUDGE, seconds, MOVED, size, scores, reference=True, model=False, more=more)
        )
