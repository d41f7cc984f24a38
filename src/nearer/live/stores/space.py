"""What a table holds: the space of its vectors, with the identity that it carries, and its rows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nearer.embed.compress import Dtype
from nearer.embed.fingerprint import Fingerprint, Vectors
from nearer.errors import FingerprintError, StoreError
from nearer.types import Metadata

_GENERATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_REBUILD = "build a generation for this model: nearer index build"


@dataclass(frozen=True, slots=True)
class Space:
    """What the vectors of one generation are: who made them, and how they are kept.

    `dimension` may be smaller than the model's (vectors cut to their first components and brought
    back to length 1); `dtype` is how they are stored, searched with rescoring where it is lossy.
    `owner` is the project whose table it is; two projects may share a store, never a table.
    """

    generation: str
    fingerprint: Fingerprint
    dimension: int
    dtype: Dtype = "float32"
    owner: str = ""

    def __post_init__(self) -> None:
        check_generation(self.generation)

    def identity(self) -> str:
        """The JSON that a table carries."""
        return json.dumps(
            {
                "generation": self.generation,
                "dimension": self.dimension,
                "dtype": self.dtype,
                "owner": self.owner,
                "fingerprint": self.fingerprint.as_dict(),
            }
        )

    def require(self, kept: Space | None, where: str) -> None:
        """Raise FingerprintError unless a table, whose identity is `kept`, holds this very space."""
        if kept is self:
            return
        if kept is not None and kept.owner != self.owner:
            raise StoreError(
                f"this table belongs to {_project(kept.owner)}, not to {_project(self.owner)}",
                where=where,
                next_step="set index.namespace or index.location to a place of this project's own, "
                "then nearer index build",
            )
        self.fingerprint.require(kept.fingerprint if kept else None, where, _REBUILD)
        differences = [
            f"{name} {getattr(kept, name)} against {getattr(self, name)}"
            for name in ("generation", "dimension", "dtype")
            if getattr(kept, name) != getattr(self, name)
        ]
        if differences:
            raise FingerprintError(
                f"the table holds other vectors: {'; '.join(differences)}",
                where=where,
                next_step=_REBUILD,
            )


@lru_cache(maxsize=64)
def read_identity(text: str | None, where: str) -> Space:
    """The space that a table's identity describes.  Raises FingerprintError when it is absent or damaged."""
    if not text:
        raise FingerprintError(
            "this table does not say which model filled it", where=where, next_step=_REBUILD
        )
    try:
        values = json.loads(text)
        fingerprint = Fingerprint.from_dict(values["fingerprint"], where)
        return Space(
            values["generation"],
            fingerprint,
            int(values["dimension"]),
            values["dtype"],
            str(values.get("owner", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise FingerprintError(
            "the identity of this table is damaged", where=where, next_step=_REBUILD
        ) from None


def _project(owner: str) -> str:
    """An owner in a message."""
    return f"project {owner}" if owner else "a project of an older version, which left no name"


def check_generation(generation: str) -> str:
    """The id of a generation, safe as a file name and an SQL identifier.  Raises StoreError."""
    if not _GENERATION.fullmatch(generation):
        raise StoreError(
            f"{generation[:80]!r} cannot name a generation",
            next_step="use up to 48 letters, digits and . _ -, a letter or digit first",
        )
    return generation


@dataclass(frozen=True, slots=True)
class Rows:
    """Chunks in parallel columns; all chunks of a document are in one batch."""

    chunk_ids: Sequence[str]  # unique in a generation: document id, `#`, number of the chunk
    doc_ids: Sequence[str]
    texts: Sequence[str]
    metadata: Sequence[Metadata]
    hashes: Sequence[str]  # of the document's content and metadata: equal means nothing to do
    vectors: Vectors  # (n_chunks, dimension)

    def __len__(self) -> int:
        return len(self.chunk_ids)
