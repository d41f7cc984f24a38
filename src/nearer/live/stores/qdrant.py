"""Qdrant through its client: a collection a generation, identity in the collection's metadata, an alias as pointer.

Tested in the client's local mode, which searches exactly and has no index; a server keeps the same
collections and searches them through its own HNSW.  Points are upserted before stale ones go, each
request holding whole documents: a kill in between leaves old chunks beside new ones, which the next
`sync` sees by their hashes and repeats.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearer import config
from nearer.embed.fingerprint import Vectors
from nearer.errors import StoreError
from nearer.live.stores.common import (
    COLUMNS,
    Columns,
    address_of,
    guarded,
    is_folder_inside,
    location_of,
    opened,
)
from nearer.live.stores.searching import Candidates, IndexedStore
from nearer.live.stores.space import Space, check_generation
from nearer.live.stores.terms import Clauses

_PREFIX = "gen_"
_POINTER = "nearer_active"
_REQUEST = 256  # points a request, more only where one document has more
_PAGE = 4096


class QdrantStore(IndexedStore):
    """Collections of a server (`http://host:6333`, its key in QDRANT_API_KEY), or of the client's local mode (a folder)."""

    kind = "qdrant"
    dtypes = ("float32", "float16")  # a server may quantise by itself

    def __init__(self, location: str, client: Any = None, namespace: str = "") -> None:
        try:
            from qdrant_client.http.exceptions import ApiException
        except ImportError:
            raise StoreError(
                "Qdrant needs its client", next_step="pip install 'nearer[qdrant]'"
            ) from None
        self.errors = (
            ApiException,
            OSError,
            RuntimeError,
            ValueError,
        )  # local mode raises the latter
        self.address, self._given = location, client
        apart = f"{namespace}_" if namespace else ""
        self._prefix, self._pointer = f"{apart}{_PREFIX}", f"{apart}{_POINTER}"
        self._local = "://" not in location

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        address = address_of(settings, default=location_of(settings))
        if "://" not in address:
            address = str(root / address)
        return cls(address, namespace=namespace)

    @classmethod
    def is_private(cls, settings: config.Index, root: Path) -> bool:
        return is_folder_inside(settings, root)

    @cached_property
    def _client(self) -> Any:
        from qdrant_client import QdrantClient

        if self._given is not None or self._local:
            return self._given or QdrantClient(path=self.address)
        return QdrantClient(url=self.address, api_key=os.environ.get("QDRANT_API_KEY"))

    def _identity(self, generation: str) -> str | None:
        if check_generation(generation) not in self._generations():
            return None
        metadata = self._client.get_collection(self._prefix + generation).config.metadata or {}
        return str(metadata.get("nearer", ""))

    def _generations(self) -> list[str]:
        names = [found.name for found in self._client.get_collections().collections]
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]

    def _make(self, space: Space) -> None:
        from qdrant_client import models

        name = self._prefix + space.generation
        vectors = models.VectorParams(
            size=space.dimension,
            distance=models.Distance.DOT,
            datatype=models.Datatype(space.dtype),
        )
        self._client.create_collection(
            name, vectors_config=vectors, metadata={"nearer": space.identity()}
        )
        with warnings.catch_warnings():  # local mode says that it has no indices
            warnings.simplefilter("ignore")
            for field in ("doc_id", "terms"):
                self._client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        from qdrant_client import models

        doc_ids = columns["doc_id"]
        starts = [0]
        for i in range(1, len(doc_ids)):
            if i - starts[-1] >= _REQUEST and doc_ids[i] != doc_ids[i - 1]:
                starts.append(i)
        for start, stop in zip(starts, [*starts[1:], len(doc_ids)], strict=True):
            points = [
                models.PointStruct(
                    id=_point(columns["chunk_id"][i]),
                    vector=vectors[i].astype(np.float32).tolist(),
                    payload={name: values[i] for name, values in columns.items()},
                )
                for i in range(start, stop)
            ]
            stale = _any("doc_id", sorted(set(doc_ids[start:stop])))
            stale.must_not = [models.HasIdCondition(has_id=[point.id for point in points])]
            operations = [
                models.UpsertOperation(upsert=models.PointsList(points=points)),
                models.DeleteOperation(delete=models.FilterSelector(filter=stale)),
            ]
            self._client.batch_update_points(self._prefix + space.generation, operations, wait=True)

    @opened
    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        found = {
            record.payload["doc_id"]
            for record in self._scroll(space, _any("doc_id", list(doc_ids)), ["doc_id"])
        }
        if found:
            self._client.delete(
                self._prefix + space.generation,
                points_selector=_any("doc_id", sorted(found)),
                wait=True,
            )
        return len(found)

    def _scroll(
        self, space: Space, wanted: Any, fields: list[str], vectors: bool = False
    ) -> Iterator[Any]:
        offset = None
        while True:
            records, offset = self._client.scroll(
                self._prefix + space.generation,
                wanted,
                limit=_PAGE,
                offset=offset,
                with_payload=fields,
                with_vectors=vectors,
            )
            yield from records
            if offset is None:
                return

    @opened
    def hashes(self, space: Space) -> dict[str, str]:
        found: dict[str, str] = {}
        for record in self._scroll(space, None, ["doc_id", "hash"]):
            doc_id, content = record.payload["doc_id"], record.payload["hash"]
            found[doc_id] = (
                content if found.get(doc_id, content) == content else ""
            )  # old beside new: written again
        return found

    @opened
    def count(self, space: Space) -> tuple[int, int]:
        doc_ids = [record.payload["doc_id"] for record in self._scroll(space, None, ["doc_id"])]
        return len(set(doc_ids)), len(doc_ids)

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        records = (
            list(self._scroll(space, _any("doc_id", doc_ids), [*COLUMNS], vectors=True))
            if doc_ids
            else []
        )
        return {name: [record.payload[name] for record in records] for name in COLUMNS}, _array(
            space, records
        )

    @opened
    def build_index(self, space: Space, sample: Vectors | None = None) -> dict[str, Any]:
        return {
            "kind": "exact" if self._effort(space) is None else "HNSW"
        }  # a server builds it by itself

    def _effort(self, space: Space) -> int | None:
        small = (
            self._local
            or self._client.count(self._prefix + space.generation, exact=False).count
            < self.exact_below
        )
        return None if small else 0

    def _eligible(self, space: Space, wanted: Clauses) -> int:
        return int(
            self._client.count(
                self._prefix + space.generation, count_filter=_filter(wanted), exact=True
            ).count
        )

    def _nearest(
        self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None
    ) -> list[Candidates]:
        from qdrant_client import models

        how = (
            None if self._local else models.SearchParams(exact=effort is None, hnsw_ef=max(n, 128))
        )
        found = []
        for query in queries:
            points = self._client.query_points(
                self._prefix + space.generation,
                query=query.tolist(),
                query_filter=_filter(wanted),
                limit=n,
                search_params=how,
                with_payload=["doc_id"],
                with_vectors=True,
            ).points
            found.append(([point.payload["doc_id"] for point in points], _array(space, points)))
        return found

    @guarded
    def drop(self, generation: str) -> None:
        if check_generation(generation) in self._generations():
            self._client.delete_collection(self._prefix + generation)

    @guarded
    def active(self) -> str | None:
        aliases = {
            found.alias_name: found.collection_name for found in self._client.get_aliases().aliases
        }
        return (
            str(aliases[self._pointer]).removeprefix(self._prefix)
            if self._pointer in aliases
            else None
        )

    @guarded
    def activate(self, generation: str | None) -> None:
        from qdrant_client import models

        changes: list[Any] = []
        if self.active() is not None:
            changes.append(
                models.DeleteAliasOperation(
                    delete_alias=models.DeleteAlias(alias_name=self._pointer)
                )
            )
        if generation is not None:
            new = models.CreateAlias(
                collection_name=self._prefix + check_generation(generation),
                alias_name=self._pointer,
            )
            changes.append(models.CreateAliasOperation(create_alias=new))
        if changes:
            self._client.update_collection_aliases(changes)  # one step for readers


def _point(chunk_id: str) -> str:
    """Qdrant takes numbers or UUIDs as ids."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, chunk_id))


def _any(field: str, values: list[str]) -> Any:
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key=field, match=models.MatchAny(any=values))])


def _filter(wanted: Clauses) -> Any:
    from qdrant_client import models

    return (
        models.Filter(
            must=[condition for clause in wanted for condition in _any("terms", clause).must]
        )
        if wanted
        else None
    )


def _array(space: Space, records: list[Any]) -> np.ndarray:
    return (
        np.array([record.vector for record in records], np.float32)
        .reshape(len(records), space.dimension)
        .astype(space.dtype)
    )
