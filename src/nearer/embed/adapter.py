"""An adapter of query vectors over any encoder, wherever its weights are.

Documents' vectors stay what they are: an index of the encoder alone needs no new vectors.  The
folder of an adapted encoder holds what its encoder saves, the adapter's weights, and what they belong
to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer.embed.base import Kind, TextEncoder, of_length_one
from nearer.embed.fingerprint import PROBES, Fingerprint
from nearer.embed.probing import fold
from nearer.errors import ModelError, NearerError
from nearer.files import atomic, read_json, value_hash, write_json

#: The only kind there is.
KIND = "linear"
WEIGHTS, IDENTITY = "adapter.safetensors", "adapter.json"


@dataclass(frozen=True)
class QueryAdapter:
    """x ↦ x·weightᵀ + bias, then of length 1 where vectors are compared by cosine.

    `weight` is float32 (dimension, dimension), `bias` (dimension,).
    """

    weight: np.ndarray
    bias: np.ndarray
    cosine: bool = True

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """float32 (n, dimension) of the same."""
        result = np.asarray(vectors, np.float32) @ self.weight.T + self.bias
        if self.cosine:
            result = of_length_one(result)
        return np.asarray(result, np.float32)

    def at(self, strength: float) -> QueryAdapter:
        """So much of the way from the identity to this adapter."""
        identity = np.eye(len(self.weight), dtype=np.float32)
        weight = identity + np.float32(strength) * (self.weight - identity)
        return replace(self, weight=weight, bias=np.float32(strength) * self.bias)

    @property
    def nbytes(self) -> int:
        return int(self.weight.nbytes + self.bias.nbytes)


class AdaptedEncoder(TextEncoder):
    """An encoder whose query vectors pass through an adapter; all else is the encoder's own."""

    def __init__(self, encoder: TextEncoder, adapter: QueryAdapter) -> None:
        self.base, self.adapter = encoder, adapter
        self.name = encoder.name
        self.similarity = encoder.similarity
        self.precision = encoder.precision
        self.outside = encoder.outside
        self.fingerprint = _adapted(encoder, adapter)

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`."""
        vectors = self.base.encode(texts, kind)
        return self.adapter(vectors) if kind == "query" else vectors

    def without_cache(self) -> AdaptedEncoder:
        """The same, its encoder always computing."""
        twin = copy(self)
        twin.base = self.base.without_cache()
        return twin

    def token_counts(self, texts: Iterable[str], kind: Kind = "document") -> np.ndarray:
        return self.base.token_counts(texts, kind)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return self.base.token_spans(text)

    def seconds_for(self, texts: Sequence[str]) -> float:
        return self.base.seconds_for(texts)

    def price_of(self, tokens: int) -> float | None:
        return self.base.price_of(tokens)

    def save(self, folder: Path) -> None:
        self.base.save(folder)
        save_adapter(self.adapter, self.base.fingerprint, folder)


def _adapted(encoder: TextEncoder, adapter: QueryAdapter) -> Fingerprint:
    """The encoder's fingerprint with the adapter among its modules, and its queries in the behaviour."""
    base = encoder.fingerprint
    changed: dict[str, Any] = {"modules": _joined(base.modules, adapter)}
    if base.former is not None:
        tokenizer, modules = base.former
        changed["former"] = (tokenizer, _joined(modules, adapter))
    queries = fold(adapter(encoder.encode(list(PROBES), "query"))).astype(np.float32)
    changed["behaviour"] = (*map(tuple, queries.tolist()), *base.behaviour[len(PROBES) :])
    return replace(base, **changed)


def _joined(modules: str, adapter: QueryAdapter) -> str:
    """Hash of the modules of a model and the adapter behind them."""
    return value_hash([modules, adapter_hash(adapter)])[:32]


def adapter_hash(adapter: QueryAdapter) -> str:
    """32 hexadecimal digits over every weight."""
    weights = [adapter.weight.tobytes().hex(), adapter.bias.tobytes().hex()]
    return value_hash([adapter.cosine, *weights])[:32]


def save_adapter(adapter: QueryAdapter, base: Fingerprint, folder: Path) -> None:
    """Write the weights, and the fingerprint of the encoder that they were learned over."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / WEIGHTS, "wb") as handle:
        handle.write(save({"weight": adapter.weight, "bias": adapter.bias}))
    identity = {
        "kind": KIND,
        "cosine": adapter.cosine,
        "hash": adapter_hash(adapter),
        "base": base.as_record(),
    }
    write_json(folder / IDENTITY, identity)


def with_saved_adapter(encoder: TextEncoder, folder: Path) -> TextEncoder:
    """The encoder with the adapter of a folder; the encoder itself where the folder holds none.

    Raises ModelError for a damaged or changed adapter, and FingerprintError where it was learned over
    another encoder.
    """
    if not (folder / IDENTITY).is_file():
        return encoder
    step = "nearer train --force"
    try:
        identity = read_json(folder / IDENTITY)
        adapter = _read(identity, folder / WEIGHTS)
        intact = adapter_hash(adapter) == identity["hash"]
        base = identity["base"]
    except (OSError, KeyError, TypeError, ValueError, NearerError):
        raise ModelError(
            "the adapter in this folder cannot be read", where=str(folder), next_step=step
        ) from None
    if not intact:
        raise ModelError("the adapter was changed", where=str(folder), next_step=step)
    saved = Fingerprint.from_dict(base, where=str(folder / IDENTITY))
    encoder.fingerprint.require(saved, where=str(folder), next_step=step)
    return AdaptedEncoder(encoder, adapter)


def _read(identity: Mapping[str, Any], weights: Path) -> QueryAdapter:
    """Raises OSError, KeyError or ValueError for what is no adapter."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if identity["kind"] != KIND:
        raise ValueError("no such kind of adapter")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    weight, bias = tensors["weight"], tensors["bias"]
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError("weights of another shape")
    return QueryAdapter(weight, bias, bool(identity["cosine"]))
