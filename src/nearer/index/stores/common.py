"""What all stores share: identity checks, vectors brought to their space, filters, chunks made into documents."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nearer.errors import BusyError, StoreError
from nearer.index.stores.base import Rows, Space, read_identity
from nearer.retrieve.compress import Compression, cut, decode_rows, encode_rows
from nearer.retrieve.fingerprint import Vectors
from nearer.types import Hit, Metadata, rank_hits

#: Chunks as columns of equal length: the strings of COLUMNS, metadata as JSON, and `terms` (lists of strings).
Columns = dict[str, list[Any]]
COLUMNS = ("chunk_id", "doc_id", "text", "metadata", "hash")

#: Below this many chunks (all, or those that a filter leaves) the exact search is quick enough to need no index.
EXACT_BELOW = 20_000
#: As in retrieve/dense.py: equal texts tie wherever they stand.
DECIMALS = 6
_LONG_TERM = 200  # characters; longer values are compared by their hash (GIN indexes refuse long ones)


class Store(ABC):
    """A VectorStore without its engine: every entrance checks the identity first.

    A class of your own derives from this, or has the members of `VectorStore` itself.
    """

    kind: str

    # -- what an engine brings ------------------------------------------------------------------

    @abstractmethod
    def _where(self, generation: str) -> str:
        """Address of a table for messages, without secrets."""

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
    def _delete(self, space: Space, doc_ids: list[str]) -> int: ...

    @abstractmethod
    def _hashes(self, space: Space) -> dict[str, str]: ...

    @abstractmethod
    def _scan(self, space: Space, size: int) -> Iterator[tuple[Columns, np.ndarray]]:
        """All rows in batches, vectors in stored form."""

    @abstractmethod
    def _search(self, space: Space, queries: np.ndarray, k: int, wanted: list[list[str]], exact: bool) -> list[list[Hit]]: ...

    # -- what callers see -----------------------------------------------------------------------

    def create(self, space: Space) -> None:
        spec(space).width(space.fingerprint.dimension)
        if self._identity(space.generation) is None:
            self._make(space)
        self._check(space)

    def spaces(self) -> list[Space]:
        return [read_identity(self._identity(name) or "", self._where(name)) for name in sorted(self._generations())]

    def write(self, space: Space, rows: Rows) -> None:
        self._check(space)
        vectors = fit(space, rows.vectors, self._where(space.generation))
        lengths = {len(rows.doc_ids), len(rows.texts), len(rows.metadata), len(rows.hashes), len(vectors)}
        if lengths != {len(rows)} or len(set(rows.chunk_ids)) != len(rows):
            raise StoreError("a batch needs columns of one length and distinct chunk ids", where=self._where(space.generation))
        if not len(rows):
            return
        order = sorted(range(len(rows)), key=rows.doc_ids.__getitem__)
        given: tuple[Sequence[Any], ...] = (
            rows.chunk_ids,
            rows.doc_ids,
            rows.texts,
            [json.dumps(dict(metadata), ensure_ascii=False) for metadata in rows.metadata],
            rows.hashes,
            [terms(metadata) for metadata in rows.metadata],
        )
        columns = {name: [values[i] for i in order] for name, values in zip((*COLUMNS, "terms"), given, strict=True)}
        self._put(space, columns, encode_rows(vectors[order], spec(space), space.fingerprint.similarity))

    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        self._check(space)
        return self._delete(space, list(dict.fromkeys(doc_ids))) if doc_ids else 0

    def hashes(self, space: Space) -> dict[str, str]:
        self._check(space)
        return self._hashes(space)

    def scan(self, space: Space, size: int = 1024) -> Iterator[Rows]:
        self._check(space)
        return (_rows(space, columns, vectors) for columns, vectors in self._scan(space, size))

    def search(self, space: Space, queries: Vectors, k: int, *, filter: Metadata | None = None, exact: bool = False) -> list[list[Hit]]:
        self._check(space)
        asked = fit(space, queries, self._where(space.generation))
        wanted = clauses(filter)
        if k < 1 or not len(asked) or not all(wanted):
            return [[] for _ in asked]
        return self._search(space, asked, k, wanted, exact)

    def text_search(self, space: Space, query: str, k: int, *, filter: Metadata | None = None) -> list[Hit]:
        raise StoreError(
            f"the {self.kind} store has no full-text search", where=self._where(space.generation), next_step="use BM25: search.system=rrf"
        )

    def build_index(self, space: Space) -> dict[str, Any]:
        self._check(space)
        return {"kind": "exact"}

    def _check(self, space: Space) -> None:
        """Raise unless this store holds that very space."""
        where = self._where(space.generation)
        text = self._identity(space.generation)
        if text is None:
            raise StoreError(f"no generation {space.generation} in this store", where=where, next_step="nearer index list")
        space.require(read_identity(text, where), where)


def _rows(space: Space, columns: Columns, vectors: np.ndarray) -> Rows:
    metadata = [json.loads(text) for text in columns["metadata"]]
    decoded = Vectors(decode(space, vectors), space.fingerprint)
    return Rows(columns["chunk_id"], columns["doc_id"], columns["text"], metadata, columns["hash"], decoded)


def fit(space: Space, vectors: Vectors, where: str) -> np.ndarray:
    """float32 (n, space.dimension) for a table: checked, cut to its dimension, of length 1 for cosine similarity.

    Raises FingerprintError for vectors of another model or of none, StoreError for a wrong shape or
    values that are not finite.
    """
    space.fingerprint.require(
        getattr(vectors, "fingerprint", None), where, "encode with the model of this generation, or build one for yours"
    )
    array = np.asarray(vectors.array, np.float32)
    if array.ndim != 2 or array.shape[1] not in (space.dimension, space.fingerprint.dimension) or not np.isfinite(array).all():
        raise StoreError(f"vectors must be finite, (n, {space.dimension}); these are {array.shape}", where=where)
    if space.fingerprint.similarity == "cosine":
        norms = np.linalg.norm(array, axis=1, keepdims=True)
        # vectors of length 1 stay as they are, bit for bit
        array = np.where((np.abs(norms - 1) < 1e-3) | (norms == 0), array, array / np.maximum(norms, 1e-12))
    return cut(array, spec(space), space.fingerprint.similarity)


def spec(space: Space) -> Compression:
    """The stored form of a space's vectors."""
    return Compression(space.dtype, space.dimension)


def decode(space: Space, stored: np.ndarray) -> np.ndarray:
    """float32 (n, space.dimension) of stored rows."""
    return decode_rows(stored, spec(space))


# -- filters -------------------------------------------------------------------------------------


def terms(metadata: Metadata) -> list[str]:
    """Every field and value as one string, so that any engine filters by set membership, the same way everywhere."""
    return sorted({term for field, value in metadata.items() for term in _terms(field, value)})


def clauses(wanted: Metadata | None) -> list[list[str]]:
    """A filter as terms: one list a field, of which a chunk must have any; an empty list can never match."""
    return [_terms(field, value) for field, value in (wanted or {}).items()]


def _terms(field: str, value: Any) -> list[str]:
    found = []
    for one in value if isinstance(value, list | tuple | set) else (value,):
        if one is not None:
            term = json.dumps([field, _canonical(one)], ensure_ascii=False)
            found.append(term if len(term) <= _LONG_TERM else hashlib.sha256(term.encode("utf-8", "surrogatepass")).hexdigest())
    return found


def _canonical(value: Any) -> str:
    return str(value).casefold()


# -- results -------------------------------------------------------------------------------------


def collapse(doc_ids: Sequence[str], scores: Sequence[float], k: int) -> list[Hit]:
    """The `k` best documents by their best chunk, in canonical order."""
    best: dict[str, float] = {}
    for doc_id, score in zip(doc_ids, scores, strict=True):
        if score > best.get(doc_id, -np.inf):
            best[doc_id] = float(score)
    return rank_hits(best.items(), k)


def gather(nearest: Callable[[int], tuple[list[str], np.ndarray]], query: np.ndarray, k: int, exact: bool) -> list[Hit]:
    """Documents out of an engine that finds chunks: ask for more until `k` documents are certain.

    `nearest(n)` gives document ids and float32 vectors of the n best chunks.  Scores are computed
    here, so that they are the same in every store and lossy engines are rescored.
    """
    n = 4 * k
    while True:
        doc_ids, vectors = nearest(n)
        scores = np.round(vectors @ query, DECIMALS)
        hits = collapse(doc_ids, scores, k)
        # an exact search also looks at all that tie with the last document
        certain = len(hits) == k and (not exact or scores.min() < hits[-1][1] - 1e-5)
        if certain or len(doc_ids) < n:
            return hits
        n *= 4


@contextmanager
def locked(path: Path, patience: float = 5.0) -> Iterator[None]:
    """Hold a lock file against other writers.  Raises BusyError when another keeps it longer than `patience` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:
        stop = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= stop:
                    raise BusyError("another process is writing this generation", where=str(path.parent), next_step="wait for it") from None
                time.sleep(0.02)
        yield
