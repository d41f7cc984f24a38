"""Vectors on their way into a table and out of it: checked, brought to its space, and decoded."""

from __future__ import annotations

import numpy as np

from nearer.embed.compress import Compression, cut, decode_rows
from nearer.embed.fingerprint import Vectors
from nearer.errors import StoreError
from nearer.live.stores.space import Space

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
_UNIT = 1e-3  # vectors whose length is this near to 1 stay as they are, bit for bit


def fit(space: Space, vectors: Vectors, where: str) -> np.ndarray:
    """float32 (n, space.dimension) for a table: checked, cut to its dimension, of length 1 for cosine similarity.

    Raises FingerprintError for vectors of another model or of none, StoreError for a wrong shape or
    values that are not finite.
    """
    fingerprint = space.fingerprint
    advice = "encode with its model, or for yours: nearer index build"
    fingerprint.require(getattr(vectors, "fingerprint", None), where, advice)
    array = np.asarray(vectors.array, np.float32)
    widths = (space.dimension, fingerprint.dimension)
    if array.ndim != 2 or array.shape[1] not in widths or not np.isfinite(array).all():
        raise StoreError(
            f"vectors must be finite, (n, {space.dimension}); these are {array.shape}", where=where
        )
    if fingerprint.similarity == "cosine":
        array = _of_length_one(array)
    return cut(array, spec(space), fingerprint.similarity)


def _of_length_one(array: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    kept = (np.abs(norms - 1) < _UNIT) | (norms == 0)
    return np.where(kept, array, array / np.maximum(norms, 1e-12))


def require_storable(space: Space, vectors: np.ndarray, where: str) -> None:
    """Raise StoreError where a component is too large for the type that a table keeps."""
    if space.dtype != "float16":
        return
    largest = float(np.abs(vectors).max(initial=0.0))
    if largest > _LARGEST_FLOAT16:
        raise StoreError(
            f"a vector has a component of {largest:,.0f}, float16 ends at {_LARGEST_FLOAT16:,.0f}",
            where=where,
            next_step="set index.dtype to float32 or int8, then nearer index build",
        )


def spec(space: Space) -> Compression:
    """The stored form of a space's vectors."""
    return Compression(space.dtype, space.dimension)


def decode(space: Space, stored: np.ndarray) -> np.ndarray:
    """float32 (n, space.dimension) of stored rows."""
    if not len(stored):
        return np.zeros((0, space.dimension), np.float32)
    return decode_rows(stored, spec(space))
