"""The seam between generations and whatever keeps their vectors.

A store holds one table a generation.  Tables carry the fingerprint of the model that filled them;
opening, writing and querying compare it, also at equal dimension, and refuse a table without one.
Every store passes the same contract suite (tests/test_stores.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from nearer.embed.compress import Dtype
from nearer.embed.fingerprint import Fingerprint, Vectors
from nearer.errors import FingerprintError, StoreError
from nearer.types import Hit, Metadata

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


@runtime_checkable
class VectorStore(Protocol):
    """Keeps the chunks of generations.

    Raises FingerprintError for vectors of another model, for tables and queries without an
    identity; StoreError for everything that the store itself refuses.
    """

    kind: str

    def create(self, space: Space) -> None:
        """An empty table for a new generation; nothing happens when the same one is there already."""

    def spaces(self) -> list[Space]:
        """The generations that are kept here, each read back with its identity."""

    def owners(self) -> dict[str, str]:
        """Generation → the project whose table it is, for every table that says so."""

    def write(self, space: Space, rows: Rows) -> None:
        """Put documents in, replacing all earlier chunks of the same documents: all or nothing, repeatable."""

    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        """Take documents out; returns how many were there."""

    def hashes(self, space: Space) -> dict[str, str]:
        """Document id → content hash of everything kept: what `verify` and `sync` compare with the corpus."""

    def fetch(self, space: Space, doc_ids: Sequence[str]) -> Rows:
        """The chunks of some documents, vectors as float32; documents that are not there are left out."""

    def scan(self, space: Space, size: int = 1024) -> Iterator[Rows]:
        """All chunks, in batches of `size` whole documents."""

    def count(self, space: Space) -> tuple[int, int]:
        """Documents and chunks kept."""

    def build_index(self, space: Space, sample: Vectors | None = None) -> dict[str, Any]:
        """Make (or tune again) the approximate index; tells what was made, `{"kind": "exact"}` below the threshold.

        Tuned on the queries of `sample`, or on the store's own documents.
        """

    def search(
        self,
        space: Space,
        queries: Vectors,
        k: int,
        *,
        filter: Metadata | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The `k` best documents of each query: chunk scores collapsed to documents by their maximum, in canonical order."""

    def text_search(
        self, space: Space, query: str, k: int, *, filter: Metadata | None = None
    ) -> list[Hit]:
        """The `k` best documents by words, where the store has full-text search.  Raises StoreError where it has none."""

    def drop(self, generation: str) -> None:
        """Remove a generation; nothing happens when it is not there."""

    def active(self) -> str | None:
        """The generation that this store's own pointer names (a row, an alias), for readers that do not see the folder."""

    def activate(self, generation: str | None) -> None:
        """Move that pointer: atomic for readers."""
