"""How candidates are judged on dev: one score per query, for seen and unseen documents apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.embed.encoder import Encoder, SentenceEncoder
from nearer.measure.metrics import Scores, drop_self, score
from nearer.search.dense import Contents, Dense
from nearer.types import Run, Split


@dataclass(frozen=True)
class DevTask:
    """The dev queries over a pool of documents, under the primary measure.

    It judges checkpoints too, and remembers the scores per query of what it has judged.
    """

    pool: Corpus
    dev: Split
    measure: str
    item_to_item: bool = False
    _judged: dict[float, np.ndarray] = field(default_factory=dict, repr=False)

    def __call__(self, encoder: SentenceEncoder) -> float:
        """The mean on dev of a model as it is at that moment."""
        scores = self.scores(encoder.without_cache())
        mean = scores.mean(self.measure)
        self._judged[mean] = scores.column(self.measure)
        return mean

    def scores(self, encoder: Encoder, documents: np.ndarray | None = None) -> Scores:
        """Scores per query; `documents` are the vectors of the pool, where they are known."""
        depth = int(self.measure.split("@")[1]) if "@" in self.measure else 100
        depth += int(self.item_to_item)
        run = Dense(encoder, self.pool, vectors=documents).search(self.dev.queries, depth)
        if self.item_to_item:
            run = drop_self(run)
        return score(run, self.dev, [self.measure])

    def column(self, encoder: SentenceEncoder, mean: float | None = None) -> np.ndarray:
        """float64 (n_queries,): scores per query.

        Those of a model that was judged before come from memory, by the `mean` that it had then.
        """
        if mean is not None and mean in self._judged:
            return self._judged[mean]
        return self.scores(encoder.without_cache()).column(self.measure)

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
