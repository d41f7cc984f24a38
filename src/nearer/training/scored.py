"""Judges a model on held-out scored pairs: how well its similarities follow the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.data.scored import ScoredPair
from nearer.embed.base import TextEncoder
from nearer.embed.pairs import similarities
from nearer.measure.correlation import (
    CorrelationChange,
    compare_correlations,
    products,
    spearman,
)

MEASURE = "Spearman"
#: Pairs that a model is judged on while it trains, at most: drawn at random where there are more.
MOST_PAIRS = 2000


@dataclass(frozen=True, slots=True)
class ScoredJudge:
    """The dev score of a model over scored pairs: Spearman's rank correlation with their scores."""

    pairs: tuple[ScoredPair, ...]
    among: int = 0  # pairs of dev that they were drawn from

    @classmethod
    def of(cls, pairs: Sequence[ScoredPair], rng: np.random.Generator) -> ScoredJudge:
        """Over all pairs, or over a random sample of as many as are affordable."""
        if len(pairs) <= MOST_PAIRS:
            return cls(tuple(pairs), len(pairs))
        chosen = np.sort(rng.permutation(len(pairs))[:MOST_PAIRS])
        return cls(tuple(pairs[position] for position in chosen.tolist()), len(pairs))

    @property
    def measure(self) -> str:
        return MEASURE

    @property
    def scores(self) -> np.ndarray:
        """float64 (n_pairs,)."""
        return np.array([pair.score for pair in self.pairs], np.float64)

    def __call__(self, encoder: TextEncoder) -> float:
        """The correlation of a model as it is at that moment."""
        return spearman(self.similarities(encoder), self.scores)

    def values(self, encoder: TextEncoder) -> np.ndarray:
        """float64 (n_pairs,): what each pair adds; their mean is the correlation."""
        return products(self.similarities(encoder), self.scores)

    def similarities(self, encoder: TextEncoder) -> np.ndarray:
        """float64 (n_pairs,), as the model compares texts; each text is encoded once."""
        plain = encoder.without_cache()
        return similarities(plain, self.pairs)

    def compared(
        self, base: TextEncoder, tuned: TextEncoder, rng: np.random.Generator
    ) -> CorrelationChange:
        """The tuned model against its base, on the same pairs."""
        before, after = self.similarities(base), self.similarities(tuned)
        return compare_correlations(self.scores, before, after, rng)

    def facts(self) -> dict[str, Any]:
        """What `train/summary.json` says about it, under `dev`."""
        return {"pairs": len(self.pairs), "among": self.among}
