"""What made a vector: the declared identity of a model *and* its behaviour.

Two models can share a name, a folder and a dimension and still live in different spaces.  A
fingerprint therefore hashes what the vectors depend on (`declared.py`: every weight, tokenizer,
configuration, prompts, maximum length, chunker), hashes the token ids of long texts, and keeps the
vectors of a few fixed probe texts (`probing.py`), so that the same files run by a different engine
are told apart as well.

`Fingerprint.differences` is the only comparison of two spaces in the product.

Fingerprints have versions.  Version 1 left out the configuration of the transformer, the truncation
of static models and whatever happens to long texts.  A stored fingerprint of version 1 stays usable:
a newer one carries the two hashes that version 1 would have computed (`former`) and is compared by
the rule of version 1, with a warning that names the command for a generation of the present version.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nearer import progress
from nearer.embed.declared import declared, max_length
from nearer.embed.probing import FOLDED, behaviour_texts, fold, token_hash
from nearer.errors import FingerprintError
from nearer.files import value_hash

VERSION = 2

#: Fixed for ever: changing them would make every stored fingerprint unreadable.
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "error 0x80070005: access denied while opening C:\\Windows\\System32",
    "Größe, café, 東京, мир — naïve façade",
    "How do I return an item that arrived damaged, and who pays for shipping?",
)

#: Smallest cosine of a probe vector with itself on another machine or engine.  Measured fp32
#: runs differ by under 1e-6; bf16 is held to the same bound as the fidelity check.
#: Models that are computed elsewhere do not tell their number format, and endpoints spread requests
#: over machines that differ; another model is far below this bound.
UNKNOWN_PRECISION = "unknown"
MIN_COSINE = {"fp32": 0.99999, "bf16": 0.9995, UNKNOWN_PRECISION: 0.999}

#: What the id covers.  A later version only adds fields.
_DECLARED_1 = (
    "weights",
    "tokenizer",
    "modules",
    "query_prompt",
    "document_prompt",
    "max_seq_length",
    "similarity",
    "dimension",
    "precision",
    "chunker",
)
_DECLARED = {1: _DECLARED_1, 2: (*_DECLARED_1, "version", "configuration", "tokens")}

Kind = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identity of the space that vectors live in; `id` names it, `probes` and `behaviour` prove it.

    `configuration` hashes the transformers' settings, `tokens` the token ids of long texts.
    `behaviour` holds, folded to 64 numbers each, the vectors of the probes as queries and of long
    texts as documents, the longest of `probed_tokens` tokens.  `former` holds the tokenizer and
    modules hashes by the rule of version 1.
    """

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
    version: int = 1
    configuration: str = ""
    tokens: str = ""
    behaviour: tuple[tuple[float, ...], ...] = ()
    probed_tokens: int = 0
    former: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        """16 hexadecimal digits over everything declared (not over the probe vectors)."""
        names = _DECLARED[self.version]
        return value_hash({name: getattr(self, name) for name in names})[:16]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything declared and the vectors that prove it.

        Equal digests are the same space; different ones may be as well, on another machine.  Use it
        to name a record, and `same_space` to compare.
        """
        return value_hash([self.id, self.probes, self.behaviour])[:16]

    def same_space(self, other: Fingerprint, ignoring: Collection[str] = ()) -> bool:
        """Whether vectors of both may be compared."""
        return not self.differences(other, ignoring)

    def differences(self, other: Fingerprint, ignoring: Collection[str] = ()) -> list[str]:
        """What tells two fingerprints apart, in words; empty when vectors may be compared.

        `ignoring` names declared fields that may differ: `chunker` for queries, `precision` for a
        model that was judged in another number format.
        """
        if self == other:
            return []
        mine, theirs = _of_one_version(self, other)
        told_apart: list[str] = []
        for name in _DECLARED[mine.version]:
            left, right = getattr(mine, name), getattr(theirs, name)
            if left != right and name not in ignoring:
                words = name.replace("_", " ")
                told_apart.append(f"{words} {_short(left)} against {_short(right)}")
        if told_apart:
            return told_apart
        least = min(MIN_COSINE[mine.precision], MIN_COSINE[theirs.precision])
        for name in ("probes", "behaviour"):
            cosine = worst_cosine(getattr(mine, name), getattr(theirs, name))
            if cosine < least:
                return [f"the same declared model gives other vectors (probe cosine {cosine:.5f})"]
        if self.version != other.version:
            _warn_of_version_1(self if self.version == 1 else other)
        return []

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

    def by_version_1(self) -> Fingerprint | None:
        """The same space as version 1 described it; None when this fingerprint does not know."""
        if self.version == 1:
            return self
        if self.former is None:
            return None
        tokenizer, modules = self.former
        known = {name: getattr(self, name) for name in (*_DECLARED_1, "probes")}
        return Fingerprint(**known | {"tokenizer": tokenizer, "modules": modules})

    def as_dict(self) -> dict[str, Any]:
        """JSON values; the behaviour as base64 of little-endian float32."""
        names = [*_DECLARED_1, "probes"]
        if self.version > 1:
            names = list(self.__dataclass_fields__)
        values = {"id": self.id, **{name: getattr(self, name) for name in names}}
        if self.version > 1:
            values["behaviour"] = _packed(self.behaviour)
        return values

    def as_record(self) -> dict[str, Any]:
        """The same as JSON of a few short lines, for records that people read: probes are packed too."""
        return self.as_dict() | {"probes": _packed(self.probes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Fingerprint:
        """Read a stored fingerprint, of any version up to ours.

        Raises FingerprintError when it is damaged, was edited, or is of a later version.
        """
        mend = "delete this folder and embed again"
        try:
            version = values.get("version", 1)
            if isinstance(version, int) and version > VERSION:
                raise FingerprintError(
                    f"a later version of nearer wrote this fingerprint (version {version}, this one knows {VERSION})",
                    where=where,
                    next_step="install that version here too: pip install --upgrade nearer",
                )
            fingerprint = cls(**_fields(values, version))
            identity = fingerprint.id
        except (AttributeError, KeyError, TypeError, ValueError):
            raise FingerprintError(
                "the fingerprint is damaged", where=where, next_step=mend
            ) from None
        if values.get("id") != identity:
            raise FingerprintError("the fingerprint was edited", where=where, next_step=mend)
        return fingerprint


def _fields(values: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Constructor arguments of a stored fingerprint.  Raises KeyError, TypeError or ValueError."""
    fields = {name: values[name] for name in _DECLARED_1}
    fields["probes"] = _unpacked(values["probes"], rows=len(PROBES))
    if fields["precision"] not in MIN_COSINE:
        raise ValueError("no such precision")
    if version > 1:
        fields |= {name: values[name] for name in ("version", "configuration", "tokens")}
        fields["behaviour"] = _unpacked(values["behaviour"], width=FOLDED)
        fields["probed_tokens"] = int(values["probed_tokens"])
        tokenizer, modules = values["former"]
        fields["former"] = (str(tokenizer), str(modules))
    return fields


def _packed(rows: Sequence[Sequence[float]]) -> str:
    return base64.b64encode(np.asarray(rows, "<f4").tobytes()).decode()


def _unpacked(values: Any, rows: int = -1, width: int = -1) -> tuple[tuple[float, ...], ...]:
    """Rows of numbers, from lists or from base64 of them, where their count or their width is known."""
    if not isinstance(values, str):
        return tuple(tuple(float(value) for value in row) for row in values)
    array = np.frombuffer(base64.b64decode(values, validate=True), "<f4")
    return tuple(map(tuple, array.reshape(rows, width).tolist()))


def _of_one_version(left: Fingerprint, right: Fingerprint) -> tuple[Fingerprint, Fingerprint]:
    """Both by the older rule where that is known."""
    if left.version == right.version:
        return left, right
    older_left, older_right = left.by_version_1(), right.by_version_1()
    if older_left is None or older_right is None:
        raise FingerprintError(
            f"fingerprints of versions {left.version} and {right.version} cannot be compared",
            next_step="build a generation for this model: nearer index build",
        )
    return older_left, older_right


_warned: set[str] = set()


def _warn_of_version_1(stored: Fingerprint) -> None:
    """Say once per process that a fingerprint of version 1 proves less."""
    if stored.id in _warned:
        return
    _warned.add(stored.id)
    progress.warn(
        f"the fingerprint {stored.id} was written by an earlier nearer (version 1): it says nothing about "
        "the transformer's configuration nor about long texts; it is compared as it was then\n"
        "  → nearer index build makes a generation with a fingerprint of version 2"
    )


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
    encode: Callable[[Sequence[str], Kind], np.ndarray],
    chunker: str | None = None,
) -> Fingerprint:
    """Fingerprint of a SentenceTransformer as it stands in memory.

    `encode` gives float32 (n_texts, dimension), always computed, with the prompt of the kind.
    """
    probes = encode(PROBES, "document")
    texts, probed_tokens = behaviour_texts(model)
    behaviour = np.concatenate([fold(encode(PROBES, "query")), fold(encode(texts, "document"))])
    prompts: dict[Kind, str] = {"query": query_prompt, "document": document_prompt}
    return Fingerprint(
        **declared(model),
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        max_seq_length=max_length(model),
        similarity=str(model.similarity_fn_name),
        dimension=int(probes.shape[1]),
        precision=precision,
        chunker=chunker,
        probes=rounded(probes),
        version=VERSION,
        tokens=token_hash(model, prompts),
        behaviour=tuple(map(tuple, behaviour.astype(np.float32).tolist())),
        probed_tokens=probed_tokens,
    )


def rounded(probes: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """The vectors of probes (n_probes, dimension) as a fingerprint keeps them, to six decimals."""
    rows = [[round(float(value), 6) for value in probe] for probe in probes]
    return tuple(map(tuple, rows))


def worst_cosine(
    a: np.ndarray | Sequence[Sequence[float]], b: np.ndarray | Sequence[Sequence[float]]
) -> float:
    """The smallest cosine of rows (n, dimension) at the same place; -1 for other shapes, 1 for no rows."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        return -1.0
    if not left.size:  # version 1 has no behaviour
        return 1.0
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = np.sum(left * right, axis=1) / np.maximum(norms, 1e-12)
    # Equal rows are the same also where they are all zeros: such a model is refused elsewhere.
    cosines[np.all(left == right, axis=1)] = 1.0
    return float(np.min(cosines))


def _short(value: Any) -> str:
    text = str(value) if value not in (None, "") else "none"
    return text if len(text) <= 24 else f"{text[:10]}…"
