"""A vector store as a user would write one: `index.store: memory_store:MemoryStore`.

Tables lie in this process, by location and namespace, so that a store opened again sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from nearer import config
from nearer.live.stores.common import COLUMNS, Columns, guarded, opened
from nearer.live.stores.searching import Candidates, ScannedStore
from nearer.live.stores.space import Space, check_generation
from nearer.live.stores.terms import Clauses


@dataclass
class Table:
    """One generation: chunk id → its columns and its stored vector."""

    identity: str
    rows: dict[str, tuple[dict[str, Any], np.ndarray]] = field(default_factory=dict)


@dataclass
class Place:
    """What is kept at one location."""

    tables: dict[str, Table] = field(default_factory=dict)
    active: str | None = None


class MemoryStore(ScannedStore):
    """Keeps tables in the memory of this process."""

    kind = "memory"
    places: ClassVar[dict[str, Place]] = {}

    def __init__(self, address: str) -> None:
        self.address = address
        self.place = self.places.setdefault(address, Place())

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        return cls(f"{root / (settings.location or 'memory')}/{namespace}")

    def _identity(self, generation: str) -> str | None:
        table = self.place.tables.get(check_generation(generation))
        return None if table is None else table.identity

    def _generations(self) -> list[str]:
        return list(self.place.tables)

    def _make(self, space: Space) -> None:
        self.place.tables.setdefault(space.generation, Table(space.identity()))

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        self.delete(space, columns["doc_id"])
        rows = self.place.tables[space.generation].rows
        for number, chunk_id in enumerate(columns["chunk_id"]):
            values = {name: column[number] for name, column in columns.items()}
            rows[chunk_id] = values, vectors[number]

    @opened
    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        table = self.place.tables[space.generation]
        there = self.hashes(space).keys() & set(doc_ids)
        table.rows = {
            chunk_id: row for chunk_id, row in table.rows.items() if row[0]["doc_id"] not in there
        }
        return len(there)

    @opened
    def hashes(self, space: Space) -> dict[str, str]:
        rows = self.place.tables[space.generation].rows.values()
        return {values["doc_id"]: values["hash"] for values, _ in rows}

    @opened
    def count(self, space: Space) -> tuple[int, int]:
        return len(self.hashes(space)), len(self.place.tables[space.generation].rows)

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        wanted = set(doc_ids)
        rows = self.place.tables[space.generation].rows.values()
        kept = [row for row in rows if row[0]["doc_id"] in wanted]
        columns = {name: [values[name] for values, _ in kept] for name in COLUMNS}
        return columns, np.array([vector for _, vector in kept])

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Candidates]:
        doc_ids, vectors = [], []
        for values, vector in self.place.tables[space.generation].rows.values():
            if all(set(values["terms"]) & set(clause) for clause in wanted):
                doc_ids.append(values["doc_id"])
                vectors.append(vector)
        yield doc_ids, np.array(vectors)

    @guarded
    def drop(self, generation: str) -> None:
        self.place.tables.pop(check_generation(generation), None)

    @guarded
    def active(self) -> str | None:
        return self.place.active

    @guarded
    def activate(self, generation: str | None) -> None:
        self.place.active = generation and check_generation(generation)
