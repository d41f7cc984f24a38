"""The seam between generations and whatever keeps their vectors.

A store holds one table per generation.  Tables carry the fingerprint of the model that filled them;
opening, writing and querying compare it, also at equal dimension, and refuse a table without one.

Ours stand in the table of `nearer.plugins`; `index.store: my_module:MyStore` names yours.  The short
way to one is `common.Store`, which brings all of this but the engine: with `searching.ScannedStore`
a store is some sixty lines.  Every store passes tests/test_contract_stores.py, whose
MemoryStore is an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from nearer import config
from nearer.embed.fingerprint import Vectors
from nearer.live.stores.space import Rows, Space
from nearer.types import Hit, Metadata

__all__ = ["BulkStore", "Rows", "Space", "VectorStore"]


@runtime_checkable
class VectorStore(Protocol):
    """Keeps the chunks of generations.

    Raises FingerprintError for vectors of another model, for tables and queries without an
    identity; StoreError for everything that the store itself refuses.
    """

    kind: str
    #: What the top of a location is called, where a namespace of that name is the same place.
    top_namespace: str

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        """The store at `settings.location`; `namespace` keeps projects apart there, empty is the top.

        Folders are relative to `root`.  Raises StoreError when the location cannot be understood.
        """

    @classmethod
    def is_private(cls, settings: config.Index, root: Path) -> bool:
        """Is the location a place where nobody but the project at `root` keeps tables?"""

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
        """Make (or tune again) the approximate index; says what was made, `{"kind": "exact"}` below the threshold.

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


@runtime_checkable
class BulkStore(VectorStore, Protocol):
    """A store that fills an empty table best in one step.

    A store without `load` gets each part of a generation when it is embedded; one with it gets all
    parts after the last one, wherever its table is empty.
    """

    def load(self, space: Space, batches: Iterator[Rows]) -> None:
        """Fill an empty table; each document is in one batch.

        All of them or none: a call that dies leaves a table that is empty, and the next call is not
        hindered by what is left.  Reads one batch at a time.  Raises StoreError for a table with
        rows, and what `batches` raises.
        """
