"""An adapter over an encoder that is only text in, vector out: applied, saved and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from nearer.embed.fingerprint import PROBES, Fingerprint
from nearer.embed.probing import fold
from nearer.errors import FingerprintError, ModelError
from nearer.files import atomic, read_json, value_hash, write_json
from nearer.training.methods.adapters import QueryAdapter
from nearer.training.methods.vectors import TextEncoder

KIND = "linear"
WEIGHTS, IDENTITY = "adapter.safetensors", "adapter.json"


class AdaptedEncoder:
    """An encoder whose query vectors pass through an adapter; documents' vectors stay its own.

    Where the encoder has a fingerprint, this one has another, which also names the adapter.
    """

    def __init__(self, encoder: TextEncoder, adapter: QueryAdapter) -> None:
        self.base = encoder
        self.adapter = adapter
        self.similarity = "cosine" if adapter.cosine else "dot"
        fingerprint = getattr(encoder, "fingerprint", None)
        if isinstance(fingerprint, Fingerprint):
            self.fingerprint = _adapted(fingerprint, encoder, adapter)

    def encode(self, texts: Sequence[str], kind: Literal["query", "document"]) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`."""
        vectors = self.base.encode(texts, kind)
        return self.adapter(vectors) if kind == "query" else vectors


def _adapted(base: Fingerprint, encoder: TextEncoder, adapter: QueryAdapter) -> Fingerprint:
    """The base's fingerprint with the adapter among its modules, and its queries in the behaviour."""
    changed: dict[str, Any] = {"modules": _joined(base.modules, adapter)}
    if base.former is not None:
        tokenizer, modules = base.former
        changed["former"] = (tokenizer, _joined(modules, adapter))
    if base.behaviour:
        queries = fold(adapter(encoder.encode(list(PROBES), "query"))).astype(np.float32)
        documents = base.behaviour[len(PROBES) :]
        changed["behaviour"] = (*map(tuple, queries.tolist()), *documents)
    return replace(base, **changed)


def _joined(modules: str, adapter: QueryAdapter) -> str:
    return value_hash([modules, adapter_hash(adapter)])[:32]


def adapter_hash(adapter: QueryAdapter) -> str:
    """32 hexadecimal digits over every weight."""
    weights = [adapter.weight.tobytes().hex(), adapter.bias.tobytes().hex()]
    return value_hash([adapter.cosine, *weights])[:32]


def save_adapter(adapter: QueryAdapter, encoder: TextEncoder, folder: Path) -> None:
    """Write the weights, and what they belong to: the fingerprint of the encoder, where it has one."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": adapter.weight, "bias": adapter.bias}
    with atomic(folder / WEIGHTS, "wb") as handle:
        handle.write(save(tensors))
    fingerprint = getattr(encoder, "fingerprint", None)
    known = isinstance(fingerprint, Fingerprint)
    identity = {
        "kind": KIND,
        "cosine": adapter.cosine,
        "hash": adapter_hash(adapter),
        "base": cast("Fingerprint", fingerprint).as_record() if known else None,
    }
    write_json(folder / IDENTITY, identity)


def load_adapter(folder: Path, encoder: TextEncoder) -> AdaptedEncoder:
    """The encoder with a saved adapter.

    Raises ModelError for a folder that holds none or a damaged one, and FingerprintError where it
    was learned over another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    step = "nearer train --force"
    try:
        identity = read_json(folder / IDENTITY)
        tensors = load_file(folder / WEIGHTS)
        adapter = _from(identity, tensors)
        intact = adapter_hash(adapter) == identity["hash"]
    except (OSError, KeyError, TypeError, ValueError, json.JSONDecodeError, SafetensorError):
        raise ModelError(
            "this folder holds no adapter that can be read", where=str(folder), next_step=step
        ) from None
    if not intact:
        raise ModelError("the adapter was changed", where=str(folder), next_step=step)
    _require_base(identity["base"], encoder, folder)
    return AdaptedEncoder(encoder, adapter)


def _from(identity: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> QueryAdapter:
    if identity["kind"] != KIND:
        raise ValueError("no such adapter")
    return QueryAdapter(tensors["weight"], tensors["bias"], bool(identity["cosine"]))


def _require_base(stored: Any, encoder: TextEncoder, folder: Path) -> None:
    """Raise FingerprintError unless the encoder is the one that the adapter was learned over."""
    fingerprint = getattr(encoder, "fingerprint", None)
    step = "nearer train --force fits one for this model"
    if stored is None and fingerprint is None:
        return
    if stored is None or not isinstance(fingerprint, Fingerprint):
        raise FingerprintError(
            "it is not known over which model this adapter was learned",
            where=str(folder),
            next_step=step,
        )
    saved = Fingerprint.from_dict(stored, where=str(folder / IDENTITY))
    fingerprint.require(saved, where=str(folder), next_step=step)
