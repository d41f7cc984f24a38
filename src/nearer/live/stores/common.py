"""What all stores share: identity checks, vectors brought to their space, texts packed, one lock per writer."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from nearer import config
from nearer.embed.compress import encode_rows
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError, StoreError
from nearer.live.stores import storable
from nearer.live.stores.space import Rows, Space, read_identity
from nearer.live.stores.terms import Clauses, clauses, terms
from nearer.live.stores.vectors import decode, fit, require_storable, spec
from nearer.types import Hit, Metadata

F = TypeVar("F", bound=Callable[..., Any])

#: Chunks as columns of equal length: the strings of COLUMNS, metadata as JSON, and `terms` (lists of strings).
Columns = dict[str, list[Any]]
COLUMNS = ("chunk_id", "doc_id", "text", "metadata", "hash")
_DEFAULT_FOLDER = "vectors"  # beside runs, where `index.location` is null
_BLOCK = 64  # queries searched at once


def opened(method: F) -> F:
    """For methods on a table: it is there and holds that very space, and what the engine raises becomes a StoreError."""

    @wraps(method)
    def checked(self: Store, space: Space, *args: Any, **kwargs: Any) -> Any:
        with self._guarded():
            self._require(space)
            return method(self, space, *args, **kwargs)

    return cast(F, checked)


def guarded(method: F) -> F:
    """For methods on the store: what the engine raises becomes a StoreError."""

    @wraps(method)
    def checked(self: Store, *args: Any, **kwargs: Any) -> Any:
        with self._guarded():
            return method(self, *args, **kwargs)

    return cast(F, checked)


class Store(ABC):
    """A VectorStore without its engine, which brings the abstract methods and those of the seam that are missing here.

    `searching` has two ways to bring `_search`.
    """

    kind: str
    address: str  # for messages, without secrets
    errors: tuple[type[Exception], ...] = (OSError,)  # what the engine raises
    dtypes: tuple[str, ...] = ("float32", "float16", "int8", "binary")  # what it keeps
    top_namespace = ""

    # -- what an engine brings ------------------------------------------------------------------

    @abstractmethod
    def _identity(self, generation: str) -> str | None:
        """The identity that a table carries: None without a table, empty without an identity."""

    @abstractmethod
    def _generations(self) -> list[str]:
        """The tables that are there."""

    @abstractmethod
    def _make(self, space: Space) -> None:
        """An empty table with its identity, both at once; another's table of that name is left as it is."""

    @abstractmethod
    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        """Replace documents in one step.  Rows of a document are adjacent; vectors in stored form."""

    @abstractmethod
    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        """The rows of some documents, in any order, vectors in stored form."""

    @abstractmethod
    def _search(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool
    ) -> list[list[Hit]]:
        """The `k` best documents of each of some queries, among the chunks that have a term of every clause."""

    @abstractmethod
    def hashes(self, space: Space) -> dict[str, str]:
        """As in the seam."""

    # -- what callers see -----------------------------------------------------------------------

    @classmethod
    def is_private(cls, settings: config.Index, root: Path) -> bool:
        return False  # the careful answer: others may keep tables at the location

    @guarded
    def create(self, space: Space) -> None:
        spec(space).width(space.fingerprint.dimension)
        if space.dtype not in self.dtypes:
            raise StoreError(
                f"this store keeps {' or '.join(self.dtypes)}, not {space.dtype}",
                where=self.address,
                next_step="set index.dtype",
            )
        if self._identity(space.generation) is None:
            self._make(space)
        self._require(space)

    @guarded
    def spaces(self) -> list[Space]:
        spaces = []
        for name in sorted(self._generations()):
            spaces.append(read_identity(self._identity(name) or "", f"{self.address} {name}"))
        return spaces

    @guarded
    def owners(self) -> dict[str, str]:
        owners = {}
        for name in self._generations():
            with suppress(FingerprintError):  # nobody's table, or a damaged one
                identity = self._identity(name) or ""
                owners[name] = read_identity(identity, f"{self.address} {name}").owner
        return owners

    @opened
    def write(self, space: Space, rows: Rows) -> None:
        columns, stored = self.stored_form(space, rows)
        if len(rows):
            self._put(space, columns, stored)

    def stored_form(self, space: Space, rows: Rows) -> tuple[Columns, np.ndarray]:
        """Rows as the engine keeps them: columns, rows of a document adjacent, and vectors in stored form.

        Raises FingerprintError for vectors of another model, StoreError for what no store can hold.
        """
        vectors = fit(space, rows.vectors, self.address)
        parallel = (rows.doc_ids, rows.texts, rows.metadata, rows.hashes, vectors)
        lengths = {len(column) for column in parallel}
        if lengths != {len(rows)} or len(set(rows.chunk_ids)) != len(rows):
            raise StoreError(
                "a batch needs columns of one length and distinct chunk ids", where=self.address
            )
        storable.require_ids(rows.doc_ids, self.address)
        require_storable(space, vectors, self.address)
        order = sorted(range(len(rows)), key=rows.doc_ids.__getitem__)
        columns = {}
        for name, values in _packed(rows).items():
            columns[name] = [values[row] for row in order]
        stored = encode_rows(vectors[order], spec(space), space.fingerprint.similarity)
        return columns, stored

    @opened
    def fetch(self, space: Space, doc_ids: Sequence[str]) -> Rows:
        columns, stored = self._fetch(space, list(doc_ids))
        return Rows(
            columns["chunk_id"],
            columns["doc_id"],
            [storable.unpack(text) for text in columns["text"]],
            [storable.unpack_metadata(text) for text in columns["metadata"]],
            columns["hash"],
            Vectors(decode(space, stored), space.fingerprint),
        )

    def scan(self, space: Space, size: int = 1024) -> Iterator[Rows]:
        doc_ids = list(self.hashes(space))
        starts = range(0, len(doc_ids), size)
        return (self.fetch(space, doc_ids[start : start + size]) for start in starts)

    @opened
    def search(
        self,
        space: Space,
        queries: Vectors,
        k: int,
        *,
        filter: Metadata | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        vectors = fit(space, queries, self.address)
        wanted = clauses(filter)
        if k < 1 or not all(wanted):
            return [[] for _ in vectors]
        hits = []
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            hits.extend(self._search(space, block, k, wanted, exact))
        return hits

    @opened
    def build_index(self, space: Space, sample: Vectors | None = None) -> dict[str, Any]:
        return {"kind": "exact"}

    def text_search(
        self, space: Space, query: str, k: int, *, filter: Metadata | None = None
    ) -> list[Hit]:
        raise StoreError(
            f"the {self.kind} store has no full-text search",
            where=self.address,
            next_step="use BM25: search.system=rrf",
        )

    def _require(self, space: Space) -> None:
        """Raise unless this store holds that very space."""
        where = f"{self.address} {space.generation}"
        text = self._identity(space.generation)
        if text is None:
            raise StoreError(
                f"no generation {space.generation} in this store",
                where=where,
                next_step="nearer index list",
            )
        space.require(read_identity(text, where), where)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except self.errors as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            what = f"the {self.kind} store refused: {reason}"
            raise StoreError(
                what, where=self.address, next_step="mend that, then run it again"
            ) from error


def _packed(rows: Rows) -> dict[str, Sequence[Any]]:
    """Rows as columns in the form that every engine can hold."""
    return {
        "chunk_id": rows.chunk_ids,
        "doc_id": rows.doc_ids,
        "text": [storable.pack(text) for text in rows.texts],
        "metadata": [storable.pack_metadata(metadata) for metadata in rows.metadata],
        "hash": rows.hashes,
        "terms": [terms(metadata) for metadata in rows.metadata],
    }


# -- where a store lies ---------------------------------------------------------------------------


def location_of(settings: config.Index) -> str:
    """The location as it is written; null is a folder beside runs."""
    return settings.location or _DEFAULT_FOLDER


def is_folder_inside(settings: config.Index, root: Path) -> bool:
    """Is the location a folder inside the project, so that nobody else keeps tables there?"""
    location = location_of(settings)
    if "://" in location or location.startswith("env:"):
        return False
    return (root / location).resolve().is_relative_to(root.resolve())


def address_of(settings: config.Index, default: str = "") -> str:
    """The location, or what the variable of `env:NAME` holds, so that no secret lies in a file.

    Raises StoreError where there is none.
    """
    location = settings.location or default
    if location.startswith("env:"):
        location = os.environ.get(location.removeprefix("env:"), "")
    if not location:
        raise StoreError(
            f"the {settings.store} store has no address",
            where=f"index.location: {settings.location}",
            next_step="set it to the address, or to env:NAME and export NAME",
        )
    return location
