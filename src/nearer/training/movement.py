"""How far training moved a model: the vectors of some training texts, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearer.embed.encoder import Encoder
from nearer.training.examples import TrainingSet

#: A model whose vectors are this near to its base's (1 - mean cosine) has not moved: rounding to
#: bf16 alone makes a difference of 2e-5.
_SAME_VECTORS = 1e-4
_SAMPLED_TEXTS = 64  # of each kind


@dataclass(frozen=True, slots=True)
class Movement:
    """How far training moved the vectors of the training texts: their mean cosine to the base's."""

    mean_cosine: float

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray) -> Movement:
        """Of vectors (n, dimension) of the same texts."""
        products = before.astype(np.float64) * after.astype(np.float64)
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosines = np.sum(products, axis=1) / np.maximum(norms, 1e-12)
        return cls(float(np.mean(cosines)))

    @property
    def moved(self) -> bool:
        """Whether the vectors differ by more than another number format would make them differ."""
        return 1.0 - self.mean_cosine > _SAME_VECTORS


def sampled_vectors(encoder: Encoder, rows: TrainingSet) -> np.ndarray:
    """float32 (n, dimension): some training queries and documents, each as its kind, evenly spread."""
    queries = encoder.encode(_spread(rows.queries), "query")
    documents = encoder.encode(_spread(rows.documents), "document")
    return np.concatenate([queries, documents])


def _spread(texts: Sequence[str]) -> list[str]:
    step = max(1, len(texts) // _SAMPLED_TEXTS)
    return list(texts[::step][:_SAMPLED_TEXTS])
