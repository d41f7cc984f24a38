"""What several measures do to vectors first."""

from __future__ import annotations

import numpy as np


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(n, dimension) vectors at unit length, of the same type: not every model gives them so.

    Zeros stay zeros.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return unit
