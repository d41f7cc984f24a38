"""A vector store: one SQLite file, searched exactly.

`ScannedStore` brings identity checks, filters, number formats and the search; what is left is
keeping rows.  Every method here is one transaction, so that a kill leaves all of it or nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearer import config
from nearer.live.stores.common import COLUMNS, Columns, guarded, is_folder_inside, opened
from nearer.live.stores.searching import Candidates, ScannedStore
from nearer.live.stores.space import Space, check_generation
from nearer.live.stores.terms import Clauses

_TABLES = """
CREATE TABLE IF NOT EXISTS generations (name TEXT PRIMARY KEY, identity TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (
    generation TEXT, chunk_id TEXT, doc_id TEXT, text TEXT, metadata TEXT, hash TEXT,
    terms TEXT, vector BLOB, dtype TEXT, PRIMARY KEY (generation, chunk_id));
CREATE INDEX IF NOT EXISTS documents ON chunks (generation, doc_id);
CREATE TABLE IF NOT EXISTS pointer (one INTEGER PRIMARY KEY CHECK (one = 1), generation TEXT);
"""
_BATCH = 4096  # chunks read at a time


class SqliteStore(ScannedStore):
    """Tables of all generations in one file below `index.location`."""

    kind = "sqlite"
    errors = (OSError, sqlite3.Error)

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        return cls(root / (settings.location or "vectors") / namespace / "store.sqlite")

    @classmethod
    def is_private(cls, settings: config.Index, root: Path) -> bool:
        return is_folder_inside(settings, root)

    def _connect(self) -> closing[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=60)
        connection.executescript(_TABLES)
        return closing(connection)

    def _ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connect() as connection:
            return connection.execute(sql, values).fetchall()

    def _identity(self, generation: str) -> str | None:
        sql = "SELECT identity FROM generations WHERE name = ?"
        rows = self._ask(sql, check_generation(generation))
        return rows[0][0] if rows else None

    def _generations(self) -> list[str]:
        return [name for (name,) in self._ask("SELECT name FROM generations")]

    def _make(self, space: Space) -> None:
        with self._connect() as connection, connection:
            sql = "INSERT OR IGNORE INTO generations VALUES (?, ?)"
            connection.execute(sql, (space.generation, space.identity()))

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        documents = [(space.generation, doc_id) for doc_id in set(columns["doc_id"])]
        rows = []
        for number, vector in enumerate(vectors):
            values = [columns[name][number] for name in COLUMNS]
            terms = json.dumps(columns["terms"][number])
            rows.append((space.generation, *values, terms, vector.tobytes(), vector.dtype.str))
        with self._connect() as connection, connection:
            sql = "DELETE FROM chunks WHERE generation = ? AND doc_id = ?"
            connection.executemany(sql, documents)
            connection.executemany("INSERT INTO chunks VALUES (?,?,?,?,?,?,?,?,?)", rows)

    @opened
    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        there = self.hashes(space).keys() & set(doc_ids)
        with self._connect() as connection, connection:
            sql = "DELETE FROM chunks WHERE generation = ? AND doc_id = ?"
            connection.executemany(sql, [(space.generation, doc_id) for doc_id in there])
        return len(there)

    @opened
    def hashes(self, space: Space) -> dict[str, str]:
        sql = "SELECT DISTINCT doc_id, hash FROM chunks WHERE generation = ?"
        return dict(self._ask(sql, space.generation))

    @opened
    def count(self, space: Space) -> tuple[int, int]:
        sql = "SELECT count(DISTINCT doc_id), count(*) FROM chunks WHERE generation = ?"
        documents, chunks = self._ask(sql, space.generation)[0]
        return documents, chunks

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        names = ", ".join(COLUMNS)
        sql = f"SELECT {names}, vector, dtype FROM chunks WHERE generation = ? AND doc_id = ?"  # noqa: S608 - our own names
        rows = []
        with self._connect() as connection:
            for doc_id in doc_ids:
                rows += connection.execute(sql, (space.generation, doc_id)).fetchall()
        columns = {name: [row[number] for row in rows] for number, name in enumerate(COLUMNS)}
        return columns, np.array([np.frombuffer(row[-2], row[-1]) for row in rows])

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Candidates]:
        sql = "SELECT doc_id, terms, vector, dtype FROM chunks WHERE generation = ?"
        with self._connect() as connection:
            cursor = connection.execute(sql, (space.generation,))
            while batch := cursor.fetchmany(_BATCH):
                doc_ids, vectors = [], []
                for doc_id, terms, vector, dtype in batch:
                    held = set(json.loads(terms)) if wanted else set()
                    if all(held & set(clause) for clause in wanted):
                        doc_ids.append(doc_id)
                        vectors.append(np.frombuffer(vector, dtype))
                yield doc_ids, np.array(vectors)

    @guarded
    def drop(self, generation: str) -> None:
        name = check_generation(generation)
        with self._connect() as connection, connection:
            connection.execute("DELETE FROM chunks WHERE generation = ?", (name,))
            connection.execute("DELETE FROM generations WHERE name = ?", (name,))

    @guarded
    def active(self) -> str | None:
        rows = self._ask("SELECT generation FROM pointer")
        return rows[0][0] if rows else None

    @guarded
    def activate(self, generation: str | None) -> None:
        name = None if generation is None else check_generation(generation)
        with self._connect() as connection, connection:
            connection.execute("INSERT OR REPLACE INTO pointer VALUES (1, ?)", (name,))
