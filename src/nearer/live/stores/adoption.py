"""Vectors that exist already become a generation, once their declared model has been checked on samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nearer.embed.encoder import Encoder
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError
from nearer.live.stores.base import VectorStore
from nearer.live.stores.space import Rows, Space
from nearer.live.stores.vectors import fit


def adopt(
    store: VectorStore,
    space: Space,
    rows: Iterable[Rows],
    encoder: Encoder,
    sample: int = 8,
    tolerance: float = 0.999,
) -> int:
    """Vectors that exist already become a generation under the identity that its owner declares; returns how many chunks.

    Declared is not proved: of every batch, `sample` texts are encoded again before the batch is
    written.  Raises FingerprintError where a vector's cosine with its text's is below `tolerance`;
    then the generation holds the batches before that one, and the call can be repeated.
    """
    count = 0
    for batch in rows:
        _require_reproduced(space, batch, encoder, sample, tolerance)
        store.create(space)
        store.write(space, batch)
        count += len(batch)
    return count


def _require_reproduced(
    space: Space, batch: Rows, encoder: Encoder, sample: int, tolerance: float
) -> None:
    """Raise FingerprintError unless the encoder makes the vectors of some evenly spaced chunks again."""
    where = f"adopt {space.generation}"
    positions = np.linspace(0, len(batch) - 1, min(sample, len(batch)))
    picked = np.unique(positions.astype(int))
    texts = [batch.texts[row] for row in picked]
    again = Vectors(encoder.encode(texts, "document"), encoder.fingerprint)
    given = Vectors(batch.vectors.array[picked], batch.vectors.fingerprint)
    cosines = _cosines(fit(space, given, where), fit(space, again, where))
    if len(picked) and cosines.min() < tolerance:
        chunk = batch.chunk_ids[picked[cosines.argmin()]]
        raise FingerprintError(
            f"the vector of {chunk!r} is not what this model gives for its text (cosine {cosines.min():.3f})",
            where=where,
            next_step="declare the model, prompt and maximum length that made these vectors, or embed again: nearer index build",
        )


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row by row, (n,) float64."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.sum(a * b, axis=1) / np.maximum(lengths, 1e-12))
