"""What all stores share: identity checks, vectors brought to their space, filters, chunks made into documents."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from nearer.embed.compress import Compression, cut, decode_rows, encode_rows
from nearer.embed.fingerprint import Vectors
from nearer.errors import BusyError, FingerprintError, StoreError
from nearer.live.stores import storable
from nearer.live.stores.base import Rows, Space, read_identity
from nearer.search import filters
from nearer.types import Hit, Metadata, rank_hits

F = TypeVar("F", bound=Callable[..., Any])

#: Chunks as columns of equal length: the strings of COLUMNS, metadata as JSON, and `terms` (lists of strings).
Columns = dict[str, list[Any]]
COLUMNS = ("chunk_id", "doc_id", "text", "metadata", "hash")
#: A filter: one list of terms a field, of which a chunk must have any.
Clauses = list[list[str]]
#: Document ids and vectors in stored form, row by row.
Found = tuple[list[str], np.ndarray]
#: Stored forms that engines cannot score themselves: they find candidates by their signs.
LOSSY = ("int8", "binary")
#: As in search/dense.py: equal texts tie wherever they stand.
DECIMALS = 6
GOOD_RECALL = 0.99
_BLOCK = 64  # queries searched at once
_SAMPLE = 100  # queries that an index is tuned on
_LONG_TERM = (
    200  # characters; longer values are compared by their hash (GIN indexes refuse long ones)
)


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
    """A VectorStore without its engine, which brings the abstract methods and those of the seam that are missing here."""

    kind: str
    address: str  # for messages, without secrets
    errors: tuple[type[Exception], ...] = (OSError,)  # what the engine raises
    dtypes: tuple[str, ...] = ("float32", "float16", "int8", "binary")  # what it keeps
    scanned: tuple[str, ...] = (
        LOSSY  # what an exact search reads through `_stored`, for want of an engine that can
    )
    #: Below this many chunks (all, or those that a filter leaves) exact search is quick enough to need no index.
    exact_below = 20_000
    efforts = 10  # how often the effort is doubled while an index is tuned

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
    def hashes(self, space: Space) -> dict[str, str]: ...

    def _effort(self, space: Space) -> int | None:
        """How hard the approximate index searches, 0 and up, as tuned; None without such an index."""
        return None

    def _eligible(self, space: Space, wanted: Clauses) -> int:
        """Chunks that a filter leaves."""
        raise NotImplementedError

    def _nearest(
        self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None
    ) -> list[Found]:
        """The n best chunks of each query, best first; by an exact search where `effort` is None."""
        raise NotImplementedError

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Found]:
        """All that a filter leaves, in batches."""
        raise NotImplementedError

    # -- what callers see -----------------------------------------------------------------------

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
        return [
            read_identity(self._identity(name) or "", f"{self.address} {name}")
            for name in sorted(self._generations())
        ]

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
        vectors = fit(space, rows.vectors, self.address)
        lengths = {
            len(rows.doc_ids),
            len(rows.texts),
            len(rows.metadata),
            len(rows.hashes),
            len(vectors),
        }
        if lengths != {len(rows)} or len(set(rows.chunk_ids)) != len(rows):
            raise StoreError(
                "a batch needs columns of one length and distinct chunk ids", where=self.address
            )
        if not len(rows):
            return
        order = sorted(range(len(rows)), key=rows.doc_ids.__getitem__)
        storable.require_ids(rows.doc_ids, self.address)
        texts = [storable.pack(text) for text in rows.texts]
        metadata = [storable.pack_metadata(one) for one in rows.metadata]
        given: tuple[Sequence[Any], ...] = (
            rows.chunk_ids,
            rows.doc_ids,
            texts,
            metadata,
            rows.hashes,
            [terms(one) for one in rows.metadata],
        )
        columns: Columns = {
            name: [values[i] for i in order]
            for name, values in zip((*COLUMNS, "terms"), given, strict=True)
        }
        self._put(
            space, columns, encode_rows(vectors[order], spec(space), space.fingerprint.similarity)
        )

    @opened
    def fetch(self, space: Space, doc_ids: Sequence[str]) -> Rows:
        columns, stored = self._fetch(space, list(doc_ids))
        texts = [storable.unpack(text) for text in columns["text"]]
        metadata = [storable.unpack_metadata(text) for text in columns["metadata"]]
        vectors = Vectors(decode(space, stored), space.fingerprint)
        return Rows(
            columns["chunk_id"],
            columns["doc_id"],
            texts,
            metadata,
            columns["hash"],
            vectors,
        )

    def scan(self, space: Space, size: int = 1024) -> Iterator[Rows]:
        doc_ids = list(self.hashes(space))
        return (
            self.fetch(space, doc_ids[start : start + size])
            for start in range(0, len(doc_ids), size)
        )

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
        asked = fit(space, queries, self.address)
        wanted = clauses(filter)
        if k < 1 or not all(wanted):
            return [[] for _ in asked]
        blocks = (asked[start : start + _BLOCK] for start in range(0, len(asked), _BLOCK))
        return [hits for block in blocks for hits in self._search(space, block, k, wanted, exact)]

    def _search(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool
    ) -> list[list[Hit]]:
        effort = None if exact else self._effort(space)
        if effort is not None and wanted and self._eligible(space, wanted) <= self.exact_below:
            effort = None  # an approximate index loses what a narrow filter leaves
        if effort is not None or space.dtype not in self.scanned:
            return self._gather(space, queries, k, wanted, effort)
        found: list[list[Hit]] = [[] for _ in queries]
        for doc_ids, stored in self._stored(space, wanted):
            scores = np.round(queries @ decode(space, stored).T, DECIMALS)
            for i, (best, row) in enumerate(zip(found, scores, strict=True)):
                found[i] = collapse(
                    [*(doc_id for doc_id, _ in best), *doc_ids],
                    np.append([score for _, score in best], row),
                    k,
                )
        return found

    def _gather(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, effort: int | None
    ) -> list[list[Hit]]:
        """Documents out of an engine that finds chunks: ask for more until `k` documents are certain.

        Scores are computed here, so that they are the same in every store, and lossy vectors are rescored.
        """
        found: list[list[Hit]] = [[] for _ in queries]
        pending = list(range(len(queries)))
        n = k * 4 << (effort or 0 if space.dtype in LOSSY else 0)
        slack = (
            1e-5 if space.dtype == "float32" else 4e-3
        )  # what an engine's own score may be off by
        while pending:
            results = self._nearest(space, queries[pending], n, wanted, effort)
            again = []
            for i, (doc_ids, stored) in zip(pending, results, strict=True):
                scores = np.round(decode(space, stored) @ queries[i], DECIMALS)
                found[i] = hits = collapse(doc_ids, scores, k)
                # an exact search also looks at all that tie with the last document
                certain = len(hits) == k and (
                    effort is not None
                    or scores[-1] < hits[-1][1] - slack * max(1.0, abs(hits[-1][1]))
                )
                if not certain and len(doc_ids) >= n:
                    again.append(i)
            pending, n = again, n * 4
        return found

    def _tune(
        self, space: Space, sample: Vectors | None, remember: Callable[[int], None]
    ) -> dict[str, Any]:
        """Raise the effort until recall@10 against exact search on a sample reaches GOOD_RECALL.

        Without queries, noise as long as the vectors is added to the store's own documents: as far
        (cosine .7) as queries often stand, where documents themselves would be too easy.
        """
        if sample is None:
            doc_ids = sorted(self.hashes(space))
            rng = np.random.default_rng(7)
            array = self.fetch(
                space,
                [
                    doc_ids[i]
                    for i in rng.choice(len(doc_ids), min(_SAMPLE, len(doc_ids)), replace=False)
                ],
            ).vectors.array
            noise = (
                rng.normal(size=array.shape)
                * np.linalg.norm(array, axis=1, keepdims=True)
                / space.dimension**0.5
            )
            sample = Vectors(array + noise, space.fingerprint)
        queries = fit(space, sample, self.address)[:_SAMPLE]
        truth = self._search(space, queries, 10, [], exact=True)
        for effort in range(self.efforts):
            found = self._gather(space, queries, 10, [], effort)
            recall = sum(
                len(dict(a).keys() & dict(b).keys()) for a, b in zip(found, truth, strict=True)
            ) / sum(map(len, truth))
            if recall >= GOOD_RECALL:
                break
        remember(effort)
        return {"effort": effort, "recall@10": round(recall, 4), "queries": len(queries)}

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


def fit(space: Space, vectors: Vectors, where: str) -> np.ndarray:
    """float32 (n, space.dimension) for a table: checked, cut to its dimension, of length 1 for cosine similarity.

    Raises FingerprintError for vectors of another model or of none, StoreError for a wrong shape or
    values that are not finite.
    """
    space.fingerprint.require(
        getattr(vectors, "fingerprint", None),
        where,
        "encode with its model, or for yours: nearer index build",
    )
    array = np.asarray(vectors.array, np.float32)
    if (
        array.ndim != 2
        or array.shape[1] not in (space.dimension, space.fingerprint.dimension)
        or not np.isfinite(array).all()
    ):
        raise StoreError(
            f"vectors must be finite, (n, {space.dimension}); these are {array.shape}", where=where
        )
    if space.fingerprint.similarity == "cosine":
        norms = np.linalg.norm(array, axis=1, keepdims=True)
        # vectors of length 1 stay as they are, bit for bit
        array = np.where(
            (np.abs(norms - 1) < 1e-3) | (norms == 0), array, array / np.maximum(norms, 1e-12)
        )
    return cut(array, spec(space), space.fingerprint.similarity)


def spec(space: Space) -> Compression:
    """The stored form of a space's vectors."""
    return Compression(space.dtype, space.dimension)


def decode(space: Space, stored: np.ndarray) -> np.ndarray:
    """float32 (n, space.dimension) of stored rows."""
    return (
        decode_rows(stored, spec(space))
        if len(stored)
        else np.zeros((0, space.dimension), np.float32)
    )


def terms(metadata: Metadata) -> list[str]:
    """Every field with each key of its value: by these any engine filters through set membership, as `filters.matches` does."""
    return sorted(
        {_term(field, key) for field, value in metadata.items() for key in filters.held_keys(value)}
    )


def clauses(filter: Metadata | None) -> Clauses:
    """A filter as terms: one list a field, of which a chunk must have any; an empty list can never match."""
    return [
        sorted({_term(field, key) for key in filters.wanted_keys(value)})
        for field, value in (filter or {}).items()
    ]


def _term(field: str, key: str) -> str:
    term = storable.pack(json.dumps([field, key], ensure_ascii=False))
    return (
        term
        if len(term) <= _LONG_TERM
        else hashlib.sha256(term.encode("utf-8", "surrogatepass")).hexdigest()
    )


def collapse(doc_ids: Sequence[str], scores: np.ndarray, k: int) -> list[Hit]:
    """The `k` best documents by their best chunk, in canonical order."""
    best: dict[str, float] = {}
    for i in np.argsort(-scores, kind="stable"):
        if len(best) >= k and scores[i] < min(best.values()):
            break
        best.setdefault(doc_ids[i], float(scores[i]))
    return rank_hits(best.items(), k)


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
                    raise BusyError(
                        "another process is writing this generation",
                        where=str(path.parent),
                        next_step="wait for it",
                    ) from None
                time.sleep(0.02)
        yield
