"""The seam between generations and whatever keeps their vectors.

A store holds one table a generation.  Tables carry the fingerprint of the model that filled them;
opening, writing and querying compare it, also at equal dimension, and refuse a table without one.
Every store passes the same contract suite (tests/test_stores.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from nearer.retrieve.fingerprint import Fingerprint, Vectors
from nearer.types import Hit, Metadata

Dtype = Literal["float32", "float16", "int8", "binary"]


@dataclass(frozen=True, slots=True)
class Space:
    """What the vectors of one generation are: who made them, and how they are kept.

    `dimension` may be smaller than the model's (vectors cut to their first components and brought
    back to length 1); `dtype` is how they are stored, searched with rescoring where it is lossy.
    """

    generation: str
    fingerprint: Fingerprint
    dimension: int
    dtype: Dtype = "float32"


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

    def write(self, space: Space, rows: Rows) -> None:
        """Put documents in, replacing all earlier chunks of the same documents: all or nothing, repeatable."""

    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        """Take documents out; returns how many were there."""

    def hashes(self, space: Space) -> dict[str, str]:
        """Document id → content hash of everything kept: what `verify` and `sync` compare with the corpus."""

    def scan(self, space: Space, size: int = 1024) -> Iterator[Rows]:
        """All chunks, in batches, vectors as float32."""

    def count(self, space: Space) -> tuple[int, int]:
        """Documents and chunks kept."""

    def build_index(self, space: Space) -> dict[str, Any]:
        """Make (or tune again) the approximate index; tells what was made, `{"kind": "exact"}` below the threshold."""

    def search(self, space: Space, queries: Vectors, k: int, *, filter: Metadata | None = None, exact: bool = False) -> list[list[Hit]]:
        """The `k` best documents of each query: chunk scores collapsed to documents by their maximum, in canonical order."""

    def text_search(self, space: Space, query: str, k: int, *, filter: Metadata | None = None) -> list[Hit]:
        """The `k` best documents by words, where the store has full-text search.  Raises StoreError where it has none."""

    def drop(self, generation: str) -> None:
        """Remove a generation; nothing happens when it is not there."""

    def active(self) -> str | None:
        """The generation that this store's own pointer names (a row, an alias), for readers that do not see the folder."""

    def activate(self, generation: str | None) -> None:
        """Move that pointer: atomic for readers."""
