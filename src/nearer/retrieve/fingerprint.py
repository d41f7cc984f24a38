"""What made a vector: the declared identity of a model *and* its behaviour.

Two models can share a name, a folder and a dimension and still live in different spaces.  A
fingerprint therefore hashes what the vectors depend on (every weight, tokenizer, module settings,
prompts, maximum length, chunker) and keeps the vectors of a few fixed probe texts, so that the
same files run by a different engine are told apart as well.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.errors import FingerprintError
from nearer.files import value_hash

#: Fixed for ever: changing them would make every stored fingerprint unreadable.
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "error 0x80070005: access denied while opening C:\\Windows\\System32",
    "Größe, café, 東京, мир — naïve façade",
    "How do I return an item that arrived damaged, and who pays for shipping?",
)

#: Smallest cosine of a probe vector with itself on another machine or engine.  Measured fp32
#: runs differ by under 1e-6; bf16 is held to the same bound as the fidelity check.
MIN_COSINE = {"fp32": 0.99999, "bf16": 0.9995}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identity of the space that vectors live in; `id` names it, `probes` prove it."""

    weights: str
    tokenizer: str
    modules: str
    query_prompt: str
    document_prompt: str
    max_seq_length: int | None
    similarity: str
    dimension: int
    precision: str
    chunker: str | None
    probes: tuple[tuple[float, ...], ...]

    @property
    def id(self) -> str:
        """16 hexadecimal digits over everything declared (not over the probe vectors)."""
        return value_hash(
            {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "probes"}
        )[:16]

    def differences(self, other: Fingerprint) -> list[str]:
        """What tells two fingerprints apart, in words; empty when vectors may be compared."""
        found: list[str] = []
        if self == other:
            return found
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name != "probes" and mine != theirs:
                found.append(f"{name.replace('_', ' ')} {_short(mine)} against {_short(theirs)}")
        if not found:
            cosine = _worst_cosine(self.probes, other.probes)
            if cosine < MIN_COSINE[self.precision]:
                found.append(
                    f"the same declared model gives other vectors (probe cosine {cosine:.5f})"
                )
        return found

    def require(self, other: Fingerprint | None, where: str, next_step: str) -> None:
        """Raise FingerprintError unless `other` is the same space; an absent one is refused too."""
        if other is None:
            raise FingerprintError(
                "these vectors do not say which model made them", where=where, next_step=next_step
            )
        differences = self.differences(other)
        if differences:
            raise FingerprintError(
                f"vectors of model {other.id} cannot be used with model {self.id}: {'; '.join(differences)}",
                where=where,
                next_step=next_step,
            )

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, **{name: getattr(self, name) for name in self.__dataclass_fields__}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Fingerprint:
        """Read a stored fingerprint.  Raises FingerprintError when it is damaged or was edited."""
        try:
            fields = {name: values[name] for name in cls.__dataclass_fields__}
            fields["probes"] = tuple(tuple(float(x) for x in probe) for probe in values["probes"])
            fingerprint = cls(**fields)
        except (KeyError, TypeError, ValueError):
            raise FingerprintError(
                "the fingerprint is damaged",
                where=where,
                next_step="delete this folder and embed again",
            ) from None
        if values.get("id") != fingerprint.id:
            raise FingerprintError(
                "the fingerprint was edited",
                where=where,
                next_step="delete this folder and embed again",
            )
        return fingerprint


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors together with what made them: the only form in which they enter or query a store.

    `array` is float32 (n, dimension).  `SentenceEncoder.vectors` makes them.
    """

    array: np.ndarray
    fingerprint: Fingerprint

    def __len__(self) -> int:
        return len(self.array)


def fingerprint_model(
    model: Any,
    *,
    query_prompt: str,
    document_prompt: str,
    precision: str,
    probes: np.ndarray,
    chunker: str | None = None,
) -> Fingerprint:
    """Fingerprint of a SentenceTransformer as it stands in memory.

    `probes` is the float32 array (len(PROBES), dimension) that the caller encoded as documents.
    """
    return Fingerprint(
        **declared(model),
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        max_seq_length=max_length(model),
        similarity=str(model.similarity_fn_name),
        dimension=int(probes.shape[1]),
        precision=precision,
        chunker=chunker,
        probes=tuple(tuple(round(float(x), 6) for x in probe) for probe in probes),
    )


def declared(model: Any) -> dict[str, str]:
    """Hashes of a model's `weights`, `tokenizer` and `modules`, as it stands in memory."""
    return {
        "weights": _weights_hash(model),
        "tokenizer": _tokenizer_hash(model),
        "modules": _modules_hash(model),
    }


def max_length(model: Any) -> int | None:
    """Tokens after which the model cuts a text; None when it never does (static models say infinity)."""
    length = model.max_seq_length
    return int(length) if length is not None and math.isfinite(length) else None


def _weights_hash(model: Any) -> str:
    """Hash of every tensor by name, type, shape and bytes: independent of file format and folder."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()[:32]


def _tokenizer_hash(model: Any) -> str:
    """Hash of the tokenizer, without the padding and truncation that its last call left in it."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        state = json.loads(backend.to_str())
        state.pop("padding", None)
        state.pop("truncation", None)
        return value_hash(state)[:32]
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    return value_hash({"class": type(tokenizer).__name__, "vocabulary": vocabulary})[:32]


def _modules_hash(model: Any) -> str:
    """Hash of the module chain: classes and their settings (pooling mode, normalisation, …)."""
    chain = []
    for module in model:
        settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        # The maximum length is declared on its own; files written before v6 call classes otherwise.
        settings = {
            k: v
            for k, v in settings.items()
            if k not in ("max_seq_length", "do_lower_case") and v is not None
        }
        chain.append({"class": type(module).__name__, "settings": settings})
    return value_hash(chain)[:32]


def _worst_cosine(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        return -1.0
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.min(np.sum(left * right, axis=1) / np.maximum(norms, 1e-12)))


def _short(value: Any) -> str:
    text = str(value) if value not in (None, "") else "none"
    return text if len(text) <= 24 else f"{text[:10]}…"
