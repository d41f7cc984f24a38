"""The seam between nearer and anything that scores a document for a query by reading both.

A reranker of your own is a class with one method, made without arguments and named in nearer.yaml
as `rerank.model: "my_module:Longest"`::

    class Longest:
        def score(self, pairs):
            return [float(len(document)) for query, document in pairs]

It may have a `name` and should declare a `fingerprint` where its scores depend on more than the file
of its module (the weights it loads, say): scores are kept under it.  One that loads a model, as
`cross_encoder:FOLDER` does, has a classmethod `from_spec(spec)`.  The tests in
`tests/test_contract_rerankers.py` run over every reranker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

Pair = tuple[str, str]  # (query, document)


@runtime_checkable
class Reranker(Protocol):
    """Anything that scores pairs.  `fingerprint` is the identity of what scores, never a name."""

    name: str
    fingerprint: str

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 (n_pairs,), higher is better, in the order of `pairs`."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """Why there is no reranker, and the setting that would give one, as `--set` takes it."""

    why: str = "no reranker is at hand (rerank.model)"
    setting: str = "rerank.model=train"


@dataclass(frozen=True, slots=True)
class RerankerSpec:
    """What a reranker is made of: in `cross_encoder:models/mine` the argument is `models/mine`.

    Relative folders are looked for in `root`; texts are cut at `max_length` tokens.
    """

    text: str
    argument: str
    root: Path
    max_length: int | None = None
    device: str | None = None
