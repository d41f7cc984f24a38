"""A reranker whose scores are checked, and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from nearer.embed.cache import RowCache
from nearer.errors import ModelError, NearerError
from nearer.files import value_hash
from nearer.search.rerank.base import Pair


class CachedReranker:
    """A reranker whose scores are checked, and with a `cache` kept on disk: no pair is scored twice.

    Raises ModelError for scores that cannot rank: the wrong number of them, NaN, infinity.
    """

    def __init__(
        self,
        inner: Any,
        cache: Path | None = None,
        *,
        name: str | None = None,
        fingerprint: str | None = None,
        source: str = "",
    ) -> None:
        self.name = name or inner.name
        self.fingerprint = fingerprint or inner.fingerprint
        self.former_fingerprint = getattr(inner, "former_fingerprint", self.fingerprint)
        self.source = source  # what `load_reranker` made it from
        self._inner = inner
        self._cache: RowCache | None = None
        if cache is not None:
            self._cache = RowCache(cache / "rerank" / value_hash(self.fingerprint)[:16], 1)

    def without_cache(self) -> CachedReranker:
        """The same reranker, always computing: to time queries."""
        twin = copy(self)
        twin._cache = None
        return twin

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 (n_pairs,), in the order of `pairs`; those computed are on disk when this returns."""
        if self._cache is None:
            return self._compute(pairs)

        def compute(missing: list[int]) -> np.ndarray:
            return self._compute([pairs[row] for row in missing])

        names = [f"{len(query)}\0{query}{document}" for query, document in pairs]
        return self._cache.rows(names, compute)[:, 0]

    def _compute(self, pairs: Sequence[Pair]) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):
                scores = np.asarray(self._inner.score(pairs)).astype(np.float32)
        except NearerError:
            raise
        except Exception as error:
            raise ModelError(
                f"it raised {type(error).__name__}: {error}",
                where=self.name,
                next_step="mend the reranker",
            ) from error
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise ModelError(
                f"{len(pairs)} pairs got scores of shape {scores.shape}, or not finite ones",
                where=self.name,
                next_step="return one finite number a pair",
            )
        return scores
