"""Adapters that carry a new model's query vectors into the space of an old one, so that an index can wait.

Learned on texts that both models embed.  A bridge keeps part of what re-embedding would give; how
much is measured (`recall_kept`), and `decide` judges it like any other candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nearer.embed.encoder import Encoder, SentenceEncoder
from nearer.embed.fingerprint import Fingerprint
from nearer.errors import FingerprintError, ModelError
from nearer.files import atomic, value_hash

KINDS = ("procrustes", "low_rank", "mlp")
_RANK = 64
_RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
_HIDDEN, _EPOCHS, _RATE, _BATCH = 512, 30, 1e-3, 256


@dataclass(frozen=True)
class Bridge:
    """x ↦ x·matrix + bias, and with a hidden layer x ↦ … + gelu(x·up + shift)·down; then of length 1 where asked."""

    kind: str
    weights: Mapping[str, np.ndarray]

    def __call__(self, vectors: np.ndarray, similarity: str = "cosine") -> np.ndarray:
        """float32 (n, old dimension) of float32 (n, new dimension)."""
        w, x = self.weights, np.asarray(vectors, np.float32)
        y = x @ w["matrix"] + w["bias"]
        if "up" in w:
            inside = x @ w["up"] + w["shift"]
            y = (
                y + (inside / (1.0 + np.exp(-1.702 * inside))) @ w["down"]
            )  # gelu by its sigmoid approximation
        if similarity == "cosine":
            y = y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)
        return np.asarray(y, np.float32)

    @cached_property
    def hash(self) -> str:
        return value_hash(
            {name: value_hash(array.tobytes().hex()) for name, array in self.weights.items()}
        )[:32]

    def save(self, path: Path) -> None:
        from safetensors.numpy import save

        with atomic(path, "wb") as handle:
            handle.write(save(dict(self.weights), {"kind": self.kind}))

    @classmethod
    def load(cls, path: Path) -> Bridge:
        """Raises ModelError for a file that is no bridge."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                names = file.keys()  # a safetensors file cannot be iterated itself
                tensors = {name: file.get_tensor(name) for name in names}
                return cls((file.metadata() or {})["kind"], tensors)
        except (OSError, KeyError, SafetensorError):
            raise ModelError(
                "this file is no bridge", where=str(path), next_step="nearer index bridge makes one"
            ) from None


def fit(kind: str, new: np.ndarray, old: np.ndarray, seed: int) -> Bridge:
    """A bridge from rows of `new`, float32 (n, d), to those of `old`, (n, e), of the same texts.

    procrustes: the rotation that brings them nearest (Schönemann 1966); low_rank: that and an affine
    map of rank 64 for what it leaves (reduced-rank ridge regression, Izenman 1975); mlp: that and a
    hidden layer.  How far the last two may go from the rotation is chosen on a tenth held out.
    """
    u, _, v = np.linalg.svd(new.T.astype(np.float64) @ old, full_matrices=False)
    rotation = {
        "matrix": np.ascontiguousarray(u @ v, np.float32),
        "bias": np.zeros(old.shape[1], np.float32),
    }
    if kind == "procrustes":
        return Bridge(kind, rotation)
    order = np.random.default_rng(seed).permutation(len(new))
    held, seen = order[: max(1, len(new) // 10)], order[max(1, len(new) // 10) :]
    if kind == "mlp":
        return Bridge(kind, rotation | _hidden(new, old, rotation["matrix"], held, seen, seed))
    tried = [
        Bridge(kind, _affine(new[seen], old[seen], rotation["matrix"], ridge)) for ridge in _RIDGES
    ]
    cosines = [float(np.mean(np.sum(bridge(new[held]) * old[held], axis=1))) for bridge in tried]
    best = int(np.argmax(cosines))
    return Bridge(kind, _affine(new, old, rotation["matrix"], _RIDGES[best]))


def _affine(
    new: np.ndarray, old: np.ndarray, rotation: np.ndarray, ridge: float
) -> dict[str, np.ndarray]:
    """The rotation with a correction of rank `_RANK`; `ridge` is in units of the mean variance."""
    rest = old - new @ rotation
    x, y = new - new.mean(axis=0), rest - rest.mean(axis=0)
    gram = (x.T @ x).astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram)
    matrix = np.linalg.solve(gram, x.T.astype(np.float64) @ y)
    _, _, v = np.linalg.svd(x @ matrix, full_matrices=False)
    matrix = matrix @ v[:_RANK].T @ v[:_RANK]
    bias = rest.mean(axis=0) - new.mean(axis=0) @ matrix
    return {
        "matrix": np.ascontiguousarray(rotation + matrix, np.float32),
        "bias": np.asarray(bias, np.float32),
    }


def _hidden(
    new: np.ndarray,
    old: np.ndarray,
    rotation: np.ndarray,
    held: np.ndarray,
    seen: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """The hidden layer: trained on the cosine with the old vectors, the best of its epochs on those held out."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    x, y, base = torch.from_numpy(new), torch.from_numpy(old), torch.from_numpy(new @ rotation)
    up = torch.nn.Parameter(
        torch.randn(new.shape[1], _HIDDEN, generator=generator) / new.shape[1] ** 0.5
    )
    shift, down = (
        torch.nn.Parameter(torch.zeros(_HIDDEN)),
        torch.nn.Parameter(torch.zeros(_HIDDEN, old.shape[1])),
    )
    optimizer = torch.optim.AdamW([up, shift, down], lr=_RATE, weight_decay=0.01)

    def loss(rows: Any) -> Any:
        inside = x[rows] @ up + shift
        found = base[rows] + (inside * torch.sigmoid(1.702 * inside)) @ down
        return (1 - torch.nn.functional.cosine_similarity(found, y[rows])).mean()

    outside, inside_rows, kept = (
        torch.from_numpy(held),
        torch.from_numpy(seen),
        [one.detach().clone() for one in (up, shift, down)],
    )
    with torch.no_grad():
        best = float(loss(outside))
    for _ in range(_EPOCHS):
        for rows in torch.split(
            inside_rows[torch.randperm(len(inside_rows), generator=generator)], _BATCH
        ):
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
        with torch.no_grad():
            if (now := float(loss(outside))) < best:
                best, kept = now, [one.detach().clone() for one in (up, shift, down)]
    return dict(zip(("up", "shift", "down"), (one.numpy() for one in kept), strict=True))


class BridgedEncoder(SentenceEncoder):
    """Queries of a new model, carried into the space of an old one; documents stay those of the old one."""

    def __init__(
        self, new: SentenceEncoder, bridge: Bridge, over: Fingerprint, old: Callable[[], Encoder]
    ) -> None:
        self.__dict__ |= new.__dict__
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
            former = (former[0], _joined_modules(former[1], bridge, over))
        self.fingerprint = replace(
            new.fingerprint,
            modules=_joined_modules(new.fingerprint.modules, bridge, over),
            former=former,
            dimension=over.dimension,
            similarity=over.similarity,
            probes=tuple(
                tuple(round(float(x), 6) for x in row) for row in bridge(probes, over.similarity)
            ),
        )

    def encode(self, texts: Sequence[str], kind: Any) -> np.ndarray:
        """float32 (n, old dimension)."""
        if kind == "document":
            return self._old().encode(texts, kind)
        return self._bridge(self._new.encode(texts, kind), self.similarity)

    def without_cache(self) -> BridgedEncoder:
        twin = copy(self)
        twin._new = self._new.without_cache()
        return twin


def _joined_modules(modules: str, bridge: Bridge, over: Fingerprint) -> str:
    """Hash of the modules of a new model, the bridge behind them, and the space that it leads to."""
    return value_hash([modules, bridge.hash, replace(over, chunker=None).id])[:32]


def recall_kept(found: np.ndarray, wanted: np.ndarray, k: int = 10) -> float:
    """Mean share of the `k` best columns of `wanted`, (n_queries, n_documents), that are among the `k` best of `found`."""
    k = min(k, wanted.shape[1])
    best = [np.argpartition(-scores, k - 1, axis=1)[:, :k] for scores in (found, wanted)]
    return float(
        np.mean([len(set(a.tolist()) & set(b.tolist())) / k for a, b in zip(*best, strict=True)])
    )
