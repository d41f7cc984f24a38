"""LanceDB: embedded, on a local disk or in object storage; the default.

A table a generation, its identity in the table's schema.  Every write is one commit of Lance, so
readers see the table before it or after it.  float32 and float16 vectors are indexed by themselves
(IVF with 8-bit scalar quantisation); int8 and binary ones by their signs (Hamming distance), then
rescored.  Filters run before the vector search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearer import config
from nearer.embed.fingerprint import Vectors
from nearer.errors import StoreError
from nearer.files import locked
from nearer.live.stores.common import (
    COLUMNS,
    Columns,
    guarded,
    is_folder_inside,
    location_of,
    opened,
)
from nearer.live.stores.lance_memory import Source, give_back, library
from nearer.live.stores.lance_rows import (
    among,
    array_of,
    condition_of,
    schema_of,
    searched_column,
    table_of,
)
from nearer.live.stores.searching import (
    LOSSY,
    Candidates,
    IndexedStore,
    collapse,
    scan_search,
)
from nearer.live.stores.space import Rows, Space, check_generation
from nearer.live.stores.terms import Clauses, clauses
from nearer.types import Hit, Metadata

_PREFIX = "gen_"
_POINTER = "nearer_active"
_TIDY = 64  # commits after which small fragments are merged and added to the indices
_TRAINED = 16_384  # vectors that partitions are trained on, all in memory
_LEAST_SAMPLE = 40  # of them per partition, at least
_WRITING_CACHE = 32 * 2**20  # bytes of index and of metadata that a writer keeps in memory
_KEPT = timedelta(hours=1)  # how long versions stay for readers that began on them


class LanceStore(IndexedStore):
    """Tables below a folder or an object-storage URI (`s3://bucket/path`, `gs://…`, `az://…`).

    On a local disk one writer at a time; in object storage the writers must agree among themselves.
    """

    kind = "lancedb"
    errors = (OSError, RuntimeError, ValueError)  # what lancedb raises for everything

    def __init__(self, location: str | Path) -> None:
        self.address = str(location)

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        location = location_of(settings)
        if "://" not in location:
            return cls(root / location / namespace)
        return cls(f"{location.rstrip('/')}/{namespace}".rstrip("/"))

    @classmethod
    def is_private(cls, settings: config.Index, root: Path) -> bool:
        return is_folder_inside(settings, root)

    @cached_property
    def _db(self) -> Any:
        lancedb = library()
        # interval 0: every read looks for what other processes have written
        return lancedb.connect(self.address, read_consistency_interval=timedelta(0))

    @cached_property
    def _writing(self) -> Any:
        """A connection that caches little: a writer reads hardly anything twice."""
        lancedb = library()
        session = lancedb.Session(_WRITING_CACHE, _WRITING_CACHE)
        now = timedelta(0)
        return lancedb.connect(self.address, read_consistency_interval=now, session=session)

    def _tables(self) -> list[str]:
        return list(self._db.list_tables().tables)

    def _generations(self) -> list[str]:
        return [name.removeprefix(_PREFIX) for name in self._tables() if name.startswith(_PREFIX)]

    def _table(self, generation: str) -> Any:
        return self._db.open_table(_PREFIX + generation)

    def _identity(self, generation: str) -> str | None:
        if _PREFIX + check_generation(generation) not in self._tables():
            return None
        return str((self._table(generation).schema.metadata or {}).get(b"nearer", b"").decode())

    def _make(self, space: Space) -> None:
        table = self._db.create_table(
            _PREFIX + space.generation, schema=schema_of(space), exist_ok=True
        )
        _index_columns(table)

    def _lock(self, generation: str) -> AbstractContextManager[None]:
        return (
            nullcontext()
            if "://" in self.address
            else locked(Path(self.address) / f".{generation}.lock")
        )

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        batch = table_of(space, columns, vectors)
        same = among(set(columns["doc_id"]))
        with self._lock(space.generation):
            table = self._writing.open_table(_PREFIX + space.generation)
            if table.count_rows(same):
                merge = (
                    table.merge_insert("chunk_id")
                    .when_matched_update_all()
                    .when_not_matched_insert_all()
                )
                merge.when_not_matched_by_source_delete(same).execute(batch)
            else:  # nothing to replace: no join
                table.add(batch)
            if table.version % _TIDY == 0:
                with suppress(*self.errors):  # the write is done; tidying can wait
                    table.optimize(cleanup_older_than=_KEPT)

    @opened
    def load(self, space: Space, batches: Iterator[Rows]) -> None:
        """One commit of all rows, and then the indices on columns.

        Many commits leave many fragments, and merging those takes memory in proportion to the table.
        A write that was killed leaves files which belong to no version: the table is made anew.
        """
        with self._lock(space.generation):
            name = _PREFIX + space.generation
            if self._writing.open_table(name).count_rows():
                raise StoreError(
                    "this table is not empty", where=f"{self.address} {space.generation}"
                )
            self._writing.drop_table(name)
            table = self._writing.create_table(name, schema=schema_of(space))
            source = Source(self._arrow(space, batches))
            try:
                table.add(source.reader(schema_of(space)), write_parallelism=1)
            except self.errors:
                source.raise_cause()
                raise
            give_back()
            _index_columns(table)
            give_back()

    def _arrow(self, space: Space, batches: Iterator[Rows]) -> Iterator[Any]:
        """Arrow batches, one part of a generation in memory at a time."""
        for rows in batches:
            if len(rows):
                yield from table_of(space, *self.stored_form(space, rows)).to_batches()

    @opened
    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        same = among(doc_ids)
        with self._lock(space.generation):
            table = self._table(space.generation)
            found = table.search().where(same).select(["doc_id"]).to_arrow()["doc_id"].unique()
            if len(found):
                table.delete(same)
            return len(found)

    @opened
    def hashes(self, space: Space) -> dict[str, str]:
        found = self._table(space.generation).search().select(["doc_id", "hash"]).to_arrow()
        return dict(zip(found["doc_id"].to_pylist(), found["hash"].to_pylist(), strict=True))

    @opened
    def count(self, space: Space) -> tuple[int, int]:
        column = self._doc_ids(space)
        return len(column.unique()), len(column)

    def _doc_ids(self, space: Space) -> Any:
        """The document id of every row, as Arrow has it: as Python's texts they would take five times the memory."""
        return self._table(space.generation).search().select(["doc_id"]).to_arrow()["doc_id"]

    def _some_documents(self, space: Space, rng: np.random.Generator, most: int) -> list[str]:
        import pyarrow.compute as pc

        doc_ids = self._doc_ids(space).unique()
        doc_ids = doc_ids.take(pc.sort_indices(doc_ids))
        rows = rng.choice(len(doc_ids), min(most, len(doc_ids)), replace=False)
        return list(doc_ids.take(rows).to_pylist())

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        found = (
            self._table(space.generation)
            .search()
            .where(among(doc_ids))
            .select([*COLUMNS, "vector"])
            .to_arrow()
        )
        return {name: found[name].to_pylist() for name in COLUMNS}, array_of(found["vector"])

    @opened
    def build_index(self, space: Space, sample: Vectors | None = None) -> dict[str, Any]:
        from lancedb.index import IvfFlat, IvfSq

        with self._lock(space.generation):
            table = self._writing.open_table(_PREFIX + space.generation)
            _index_columns(table)
            table.optimize(cleanup_older_than=_KEPT)
            rows = table.count_rows()
            if rows < self.exact_below:
                return {"kind": "exact"}
            partitions = round(rows**0.5)
            sample_rate = min(256, max(_LEAST_SAMPLE, _TRAINED // partitions))
            if space.dtype in LOSSY:
                config = IvfFlat(
                    distance_type="hamming", num_partitions=partitions, sample_rate=sample_rate
                )
            else:
                config = IvfSq(
                    distance_type=space.fingerprint.similarity,
                    num_partitions=partitions,
                    sample_rate=sample_rate,
                )
            table.create_index(searched_column(space), config=config, replace=True)
            give_back()

        def remember(effort: int) -> None:
            table.update_field_metadata({"path": "vector", "metadata": {"effort": str(effort)}})

        return {
            "kind": type(config).__name__,
            "partitions": partitions,
            **self._tune(space, sample, remember),
        }

    def _search(
        self, space: Space, queries: np.ndarray, k: int, wanted: Clauses, exact: bool
    ) -> list[list[Hit]]:
        effort = None if exact else self._usable_effort(space, wanted)
        if effort is None and space.dtype in LOSSY:  # no engine scores these forms exactly
            return scan_search(space, self._stored(space, wanted), queries, k)
        return self._gather(space, queries, k, wanted, effort)

    def _effort(self, space: Space) -> int | None:
        effort = (self._table(space.generation).schema.field("vector").metadata or {}).get(
            b"effort"
        )
        return None if effort is None else int(effort)

    def _eligible(self, space: Space, wanted: Clauses) -> int:
        return int(self._table(space.generation).count_rows(condition_of(wanted)))

    def _nearest(
        self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None
    ) -> list[Candidates]:
        lossy = space.dtype in LOSSY
        asked = np.packbits(queries > 0, axis=1) if lossy else queries
        search = self._table(space.generation).search(
            asked, vector_column_name=searched_column(space)
        )
        search = search.distance_type("hamming" if lossy else space.fingerprint.similarity).limit(n)
        if wanted:
            search = search.where(condition_of(wanted), prefilter=True)
        if effort is None:
            search = search.bypass_vector_index()
        else:  # a filter may leave little in the nearest partitions: then all are read (maximum 0), which loses nothing
            search = search.minimum_nprobes(8 << effort).maximum_nprobes(
                0 if wanted else 8 << effort
            )
        found = search.select(["doc_id", "vector", "_distance"]).to_arrow()
        if len(queries) == 1:
            return [(found["doc_id"].to_pylist(), array_of(found["vector"]))]
        doc_ids, vectors, owners = (
            found["doc_id"].to_numpy(),
            array_of(found["vector"]),
            found["query_index"].to_numpy(),
        )
        near = np.argsort(found["_distance"].to_numpy(), kind="stable")
        rows = [near[owners[near] == i] for i in range(len(queries))]
        return [(list(doc_ids[mine]), vectors[mine]) for mine in rows]

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Candidates]:
        search = self._table(space.generation).search().select(["doc_id", "vector"])
        for batch in (search.where(condition_of(wanted)) if wanted else search).to_batches(8192):
            yield batch["doc_id"].to_pylist(), array_of(batch["vector"])

    @opened
    def text_search(
        self, space: Space, query: str, k: int, *, filter: Metadata | None = None
    ) -> list[Hit]:
        """BM25 of Lance over the texts."""
        from lancedb.query import MatchQuery

        wanted = clauses(filter)
        n = 4 * k
        while k > 0 and all(wanted):
            search = (
                self._table(space.generation)
                .search(MatchQuery(query, "text"), query_type="fts")
                .limit(n)
            )
            search = search.where(condition_of(wanted), prefilter=True) if wanted else search
            found = search.select(["doc_id", "_score"]).to_arrow()
            hits = collapse(found["doc_id"].to_pylist(), found["_score"].to_numpy(), k)
            if len(hits) == k or len(found) < n:
                return hits
            n *= 4
        return []

    @guarded
    def drop(self, generation: str) -> None:
        if _PREFIX + check_generation(generation) in self._tables():
            self._db.drop_table(_PREFIX + generation, ignore_missing=True)

    @guarded
    def active(self) -> str | None:
        return (
            self._db.open_table(_POINTER).to_arrow()["generation"].to_pylist()[0] or None
            if _POINTER in self._tables()
            else None
        )

    @guarded
    def activate(self, generation: str | None) -> None:
        self._db.create_table(
            _POINTER,
            [{"generation": check_generation(generation) if generation else ""}],
            mode="overwrite",
        )


def _index_columns(table: Any) -> None:
    """Indices on document ids, filter terms and words; what is there already stays."""
    from lancedb.index import FTS, BTree, LabelList

    there = {column for index in table.list_indices() for column in index.columns}
    # no stemming, no stop words: right for every language, codes included; words by Unicode's rules,
    # with a dictionary for scripts without blanks
    wanted = {
        "doc_id": BTree(),
        "terms": LabelList(),
        "text": FTS(
            with_position=False, base_tokenizer="icu/split", stem=False, remove_stop_words=False
        ),
    }
    for column in wanted.keys() - there:
        table.create_index(column, config=wanted[column])
