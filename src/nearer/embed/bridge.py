"""Adapters that carry a new model's query vectors into the space of an old one, so that an index can wait.

A bridge is learned on texts that both models embed.  It keeps part of what re-embedding would give;
how much is measured (`recall_kept`), and `decide` judges it like any other candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from nearer.embed.base import Encoder, Kind, TextEncoder, of_length_one
from nearer.embed.fingerprint import Fingerprint, rounded
from nearer.errors import FingerprintError, ModelError
from nearer.files import atomic, value_hash

#: The only kind there is.  An affine correction and a hidden layer kept less in every measurement
#: (.52 and .49 against .62) and are gone; files of theirs are refused.
KIND = "procrustes"


@dataclass(frozen=True)
class Bridge:
    """x ↦ x·matrix + bias, then of length 1 where vectors are compared by cosine.

    `weights` are `matrix`, float32 (new dimension, old dimension), and `bias`, float32 (old dimension,).
    """

    kind: str
    weights: Mapping[str, np.ndarray]

    def __call__(self, vectors: np.ndarray, similarity: str = "cosine") -> np.ndarray:
        """float32 (n, old dimension) of float32 (n, new dimension)."""
        carried = np.asarray(vectors, np.float32) @ self.weights["matrix"] + self.weights["bias"]
        if similarity == "cosine":
            carried = of_length_one(carried)
        return np.asarray(carried, np.float32)

    @cached_property
    def hash(self) -> str:
        """32 hexadecimal digits over the weights."""
        hashes = {name: value_hash(array.tobytes().hex()) for name, array in self.weights.items()}
        return value_hash(hashes)[:32]

    def save(self, path: Path) -> None:
        from safetensors.numpy import save

        with atomic(path, "wb") as handle:
            handle.write(save(dict(self.weights), {"kind": self.kind}))

    @classmethod
    def load(cls, path: Path) -> Bridge:
        """Raises ModelError for a file that is no bridge, or one of a kind that is gone."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                names = file.keys()  # a safetensors file cannot be iterated itself
                weights = {name: file.get_tensor(name) for name in names}
                kind = (file.metadata() or {})["kind"]
        except (OSError, KeyError, SafetensorError):
            raise ModelError(
                "this file is no bridge", where=str(path), next_step="nearer index bridge makes one"
            ) from None
        if kind != KIND:
            raise ModelError(
                f"a bridge of the kind {kind} is no longer read: the rotation ({KIND}) keeps more",
                where=str(path),
                next_step="make it again: nearer index bridge --model PATH "
                "(where it is active, nearer index rollback goes first)",
            )
        return cls(kind, weights)


def fit(new: np.ndarray, old: np.ndarray) -> Bridge:
    """A bridge from rows of `new`, float32 (n, d), to those of `old`, (n, e), of the same texts.

    The rotation that brings them nearest (Schönemann 1966).
    """
    left, _, right = np.linalg.svd(new.T.astype(np.float64) @ old, full_matrices=False)
    rotation = np.ascontiguousarray(left @ right, np.float32)
    return Bridge(KIND, {"matrix": rotation, "bias": np.zeros(old.shape[1], np.float32)})


class BridgedEncoder(TextEncoder):
    """Queries of a new model, carried into the space of an old one; documents stay those of the old one."""

    def __init__(
        self, new: TextEncoder, bridge: Bridge, over: Fingerprint, old: Callable[[], Encoder]
    ) -> None:
        self.precision, self.outside = new.precision, new.outside
        self._new, self._bridge, self._old = new, bridge, old
        self.name = f"{new.name} through {bridge.kind}"
        self.similarity = over.similarity
        probes = np.array(new.fingerprint.probes, np.float32)
        if bridge.weights["matrix"].shape != (probes.shape[1], over.dimension):
            raise FingerprintError(
                "this bridge joins other models",
                where=new.name,
                next_step="nearer index bridge makes one for them",
            )
        former = new.fingerprint.former
        if former is not None:
            tokenizer, modules = former
            former = (tokenizer, _joined_modules(modules, bridge, over))
        self.fingerprint = replace(
            new.fingerprint,
            modules=_joined_modules(new.fingerprint.modules, bridge, over),
            former=former,
            dimension=over.dimension,
            similarity=over.similarity,
            probes=rounded(bridge(probes, over.similarity)),
        )

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """float32 (n, old dimension)."""
        if kind == "document":
            return self._old().encode(texts, kind)
        return self._bridge(self._new.encode(texts, kind), self.similarity)

    def without_cache(self) -> BridgedEncoder:
        twin = copy(self)
        twin._new = self._new.without_cache()
        return twin

    def token_counts(self, texts: Iterable[str], kind: Kind = "document") -> np.ndarray:
        return self._new.token_counts(texts, kind)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._new.token_spans(text)

    def seconds_for(self, texts: Sequence[str]) -> float:
        """Of the new model: what re-embedding with it would take."""
        return self._new.seconds_for(texts)

    def price_of(self, tokens: int) -> float | None:
        return self._new.price_of(tokens)

    def save(self, folder: Path) -> None:
        """The new model; the bridge is a file beside it."""
        self._new.save(folder)


def _joined_modules(modules: str, bridge: Bridge, over: Fingerprint) -> str:
    """Hash of the modules of a new model, the bridge behind them, and the space that it leads to."""
    return value_hash([modules, bridge.hash, replace(over, chunker=None).id])[:32]


def recall_kept(scores: np.ndarray, wanted: np.ndarray, k: int = 10) -> float:
    """Mean share of the `k` best columns of `wanted`, (n_queries, n_documents), that are among the `k` best of `scores`."""
    k = min(k, wanted.shape[1])
    kept = []
    for row, wanted_row in zip(_best(scores, k), _best(wanted, k), strict=True):
        kept.append(len(np.intersect1d(row, wanted_row)) / k)
    return float(np.mean(kept))


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """int64 (n_queries, k): the columns of the `k` largest scores of each row."""
    columns: np.ndarray = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return columns
