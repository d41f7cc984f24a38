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
from nearer.index.stores.base import Rows, Space, check_generation, read_identity
from nearer.retrieve import filters
from nearer.retrieve.compress import Compression, cut, decode_rows, encode_rows
from nearer.retrieve.fingerprint import Vectors
from nearer.retrieve.ranking import Order
from nearer.types import Hit, Metadata, rank_hits

#: Chunks as columns of equal length: the strings of COLUMNS, metadata as JSON, and `terms` (lists of strings).
Columns = dict[str, list[Any]]
COLUMNS = ("chunk_id", "doc_id", "text", "metadata", "hash")
#: A filter: one list of terms a field, of which a chunk must have any.
Clauses = list[list[str]]
#: Document ids and vectors in stored form, row by row.
Found = tuple[list[str], np.ndarray]
#: Stored forms that engines cannot score themselves: they find candidates by their signs.
LOSSY = ("int8", "binary")

#: As in retrieve/dense.py: equal texts tie wherever they stand.
DECIMALS = 6
GOOD_RECALL = 0.99
_BLOCK = 64  # queries searched at once
_SAMPLE = 100  # queries that an index is tuned on
_EFFORTS = 8
_LONG_TERM = 200  # characters; longer values are compared by their hash (GIN indexes refuse long ones)


class Store(ABC):
    """A VectorStore without its engine: every entrance checks the identity first.

    A class of your own derives from this, or has the members of `VectorStore` itself.
    """

    kind: str
    errors: tuple[type[Exception], ...] = (OSError,)  # what the engine raises
    #: Below this many chunks (all, or those that a filter leaves) exact search is quick enough to need no index.
    exact_below = 20_000

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
    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        """The rows of some documents, in any order, vectors in stored form."""

    @abstractmethod
    def _count(self, space: Space) -> tuple[int, int]: ...

    @abstractmethod
    def _drop(self, generation: str) -> None: ...

    @abstractmethod
    def _active(self) -> str | None: ...

    @abstractmethod
    def _activate(self, generation: str | None) -> None: ...

    # Engines that find chunks bring these; a store that finds documents overrides `_search`.

    def _effort(self, space: Space) -> int | None:
        """How hard the approximate index searches, 0 and up, as tuned; None without such an index."""
        raise NotImplementedError

    def _eligible(self, space: Space, wanted: Clauses) -> int:
        """Chunks that a filter leaves."""
        raise NotImplementedError

    def _nearest(self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None) -> list[Found]:
        """The n best chunks of each query, best first; by an exact search where `effort` is None."""
        raise NotImplementedError

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Found]:
        """All that a filter leaves, in batches: what lossy vectors are searched through for an exact answer."""
        raise NotImplementedError

    # -- what callers see -----------------------------------------------------------------------

    def create(self, space: Space) -> None:
        spec(space).width(space.fingerprint.dimension)
        with self._guarded(space.generation):
            if self._identity(space.generation) is None:
                self._make(space)
        with self._opened(space):
            pass

    def spaces(self) -> list[Space]:
        with self._guarded("generations"):
            return [read_identity(self._identity(name) or "", self._where(name)) for name in sorted(self._generations())]

    def write(self, space: Space, rows: Rows) -> None:
        with self._opened(space):
            self._write(space, rows)

    def _write(self, space: Space, rows: Rows) -> None:
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
        with self._opened(space):
            return self._delete(space, list(dict.fromkeys(doc_ids))) if doc_ids else 0

    def hashes(self, space: Space) -> dict[str, str]:
        with self._opened(space):
            return self._hashes(space)

    def count(self, space: Space) -> tuple[int, int]:
        with self._opened(space):
            return self._count(space)

    def fetch(self, space: Space, doc_ids: Sequence[str]) -> Rows:
        with self._opened(space):
            columns, stored = self._fetch(space, list(doc_ids))
        metadata = [json.loads(text) for text in columns["metadata"]]
        vectors = Vectors(decode(space, stored), space.fingerprint)
        return Rows(columns["chunk_id"], columns["doc_id"], columns["text"], metadata, columns["hash"], vectors)

    def scan(self, space: Space, size: int = 1024) -> Iterator[Rows]:
        doc_ids = list(self.hashes(space))
        return (self.fetch(space, doc_ids[start : start + size]) for start in range(0, len(doc_ids), size))

    def drop(self, generation: str) -> None:
        with self._guarded(generation):
            self._drop(check_generation(generation))

    def active(self) -> str | None:
        with self._guarded("active"):
            return self._active()

    def activate(self, generation: str | None) -> None:
        with self._guarded("active"):
            self._activate(check_generation(generation) if generation is not None else None)

    def search(self, space: Space, queries: Vectors, k: int, *, filter: Metadata | None = None, exact: bool = False) -> list[list[Hit]]:
        with self._opened(space):
            asked = fit(space, queries, self._where(space.generation))
            wanted = clauses(filter)
            if k < 1 or not len(asked) or not all(wanted):
                return [[] for _ in asked]
            return [
                hits
                for start in range(0, len(asked), _BLOCK)
                for hits in self._search(space, asked[start : start + _BLOCK], k, wanted, exact)
            ]

    def _search(self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool) -> list[list[Hit]]:
        effort = None if exact else self._effort(space)
        if effort is not None and wanted and self._eligible(space, wanted) <= self.exact_below:
            effort = None  # an approximate index loses what a narrow filter leaves
        if effort is None and space.dtype in LOSSY:
            found: list[list[Hit]] = [[] for _ in queries]
            for doc_ids, stored in self._stored(space, wanted):
                better = best_documents(queries, doc_ids, decode(space, stored), k)
                found = [_merged(old, new, k) for old, new in zip(found, better, strict=True)]
            return found
        return self._gather(space, queries, k, wanted, effort)

    def _gather(self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, effort: int | None) -> list[list[Hit]]:
        """Documents out of an engine that finds chunks: ask for more until `k` documents are certain.

        Scores are computed here, so that they are the same in every store, and lossy vectors are rescored.
        """
        found: list[list[Hit]] = [[] for _ in queries]
        pending = list(range(len(queries)))
        n = k * 4 << (effort or 0 if space.dtype in LOSSY else 0)
        slack = 1e-5 if space.dtype == "float32" else 4e-3  # what an engine's own score may be off by
        while pending:
            results = self._nearest(space, queries[pending], n, wanted, effort)
            again = []
            for i, (doc_ids, stored) in zip(pending, results, strict=True):
                scores = np.round(decode(space, stored) @ queries[i], DECIMALS)
                found[i] = hits = collapse(doc_ids, scores, k)
                # an exact search also looks at all that tie with the last document
                certain = len(hits) == k and (effort is not None or scores[-1] < hits[-1][1] - slack * max(1.0, abs(hits[-1][1])))
                if not certain and len(doc_ids) >= n:
                    again.append(i)
            pending, n = again, n * 4
        return found

    def _tune(self, space: Space, sample: Vectors | None, remember: Callable[[int], None]) -> dict[str, Any]:
        """Raise the effort until recall@10 against exact search on a sample reaches GOOD_RECALL.

        Without queries, noise as long as the vectors is added to the store's own documents: as far
        (cosine .7) as queries often stand, where documents themselves would be too easy.
        """
        if sample is None:
            doc_ids = sorted(self._hashes(space))
            rng = np.random.default_rng(7)
            rows = self.fetch(space, [doc_ids[i] for i in rng.choice(len(doc_ids), min(_SAMPLE, len(doc_ids)), replace=False)])
            noise = rng.normal(size=rows.vectors.array.shape) * np.linalg.norm(rows.vectors.array, axis=1, keepdims=True)
            sample = Vectors(rows.vectors.array + noise / space.dimension**0.5, space.fingerprint)
        queries = fit(space, sample, self._where(space.generation))[:_SAMPLE]
        truth = self._search(space, queries, 10, [], exact=True)
        for effort in range(_EFFORTS):
            found = self._gather(space, queries, 10, [], effort)
            recall = sum(len(dict(a).keys() & dict(b).keys()) for a, b in zip(found, truth, strict=True)) / sum(map(len, truth))
            if recall >= GOOD_RECALL:
                break
        remember(effort)
        return {"effort": effort, "recall@10": round(recall, 4), "queries": len(queries)}

    def text_search(self, space: Space, query: str, k: int, *, filter: Metadata | None = None) -> list[Hit]:
        raise StoreError(
            f"the {self.kind} store has no full-text search", where=self._where(space.generation), next_step="use BM25: search.system=rrf"
        )

    def build_index(self, space: Space, sample: Vectors | None = None) -> dict[str, Any]:
        with self._opened(space):
            return self._build_index(space, sample)

    def _build_index(self, space: Space, sample: Vectors | None) -> dict[str, Any]:
        return {"kind": "exact"}

    @contextmanager
    def _opened(self, space: Space) -> Iterator[None]:
        """Inside: the table is there and holds that very space."""
        with self._guarded(space.generation):
            where = self._where(space.generation)
            text = self._identity(space.generation)
            if text is None:
                raise StoreError(f"no generation {space.generation} in this store", where=where, next_step="nearer index list")
            space.require(read_identity(text, where), where)
            yield

    @contextmanager
    def _guarded(self, generation: str) -> Iterator[None]:
        """What the engine raises becomes a StoreError."""
        try:
            yield
        except self.errors as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise StoreError(
                f"the {self.kind} store refused: {reason}", where=self._where(generation), next_step="mend that, then run it again"
            ) from error


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
    return decode_rows(stored, spec(space)) if len(stored) else np.zeros((0, space.dimension), np.float32)


# -- filters -------------------------------------------------------------------------------------


def terms(metadata: Metadata) -> list[str]:
    """Every field with each key of its value: by these any engine filters through set membership, as `filters.matches` does."""
    return sorted({_term(field, key) for field, value in metadata.items() for key in filters._held(value)})


def clauses(filter: Metadata | None) -> Clauses:
    """A filter as terms: one list a field, of which a chunk must have any; an empty list can never match."""
    return [sorted({_term(field, key) for key in filters._wanted(value)}) for field, value in (filter or {}).items()]


def _term(field: str, key: str) -> str:
    term = json.dumps([field, key], ensure_ascii=False)
    return term if len(term) <= _LONG_TERM else hashlib.sha256(term.encode("utf-8", "surrogatepass")).hexdigest()


# -- results -------------------------------------------------------------------------------------


def collapse(doc_ids: Sequence[str], scores: np.ndarray, k: int) -> list[Hit]:
    """The `k` best documents by their best chunk, in canonical order."""
    best: dict[str, float] = {}
    for i in np.argsort(-scores, kind="stable"):
        if len(best) >= k and scores[i] < min(best.values()):
            break
        best.setdefault(doc_ids[i], float(scores[i]))
    return rank_hits(best.items(), k)


def _merged(old: list[Hit], new: list[Hit], k: int) -> list[Hit]:
    best = dict(old)
    for doc_id, score in new:
        best[doc_id] = max(score, best.get(doc_id, score))
    return rank_hits(best.items(), k)


def best_documents(queries: np.ndarray, doc_ids: Sequence[str], vectors: np.ndarray, k: int) -> list[list[Hit]]:
    """Exact search through one batch of chunks, in any order."""
    if not len(doc_ids):
        return [[] for _ in queries]
    number: dict[str, int] = {}
    owners = np.array([number.setdefault(doc_id, len(number)) for doc_id in doc_ids])
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    scores = np.maximum.reduceat(np.round(queries @ vectors[order].T, DECIMALS), starts, axis=1)
    documents = Order(list(number))
    return [documents.top(row, k) for row in scores]


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
