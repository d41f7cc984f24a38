"""PostgreSQL with pgvector: a schema per project, a table per generation, a row that names the active one.

    nearer.generations   generation, identity (jsonb), effort of its index, created_at
    nearer.active        one row a cut-over: the newest is the pointer, the others its history
    nearer."gen_ID"      chunk_id, doc_id, text, metadata (jsonb), hash, terms (text[]), vector

float32 is kept as `vector(n)`, float16 as `halfvec(n)`; both are indexed as halfvec, and scores are
computed on the rows themselves.  Values are bound, names quoted, each change is one transaction.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearer import config
from nearer.embed.fingerprint import Vectors
from nearer.errors import BusyError, StoreError
from nearer.live.stores.common import COLUMNS, Columns, address_of, guarded, opened
from nearer.live.stores.searching import Candidates, IndexedStore
from nearer.live.stores.space import Space, check_generation
from nearer.live.stores.terms import Clauses

_MEMORY = "512MB"  # while an index is built
_PATIENCE = "5s"  # how long a writer waits for another
_KINDS = {"float32": "vector", "float16": "halfvec"}


class PostgresStore(IndexedStore):
    """Tables in `schema` of the database that a DSN names.  Each thread has a connection of its own."""

    kind = "postgres"
    dtypes = tuple(_KINDS)
    efforts = 6  # then ef_search is at its maximum of 1,000
    top_namespace = "nearer"  # the schema without a namespace

    def __init__(self, dsn: str, schema: str = "nearer") -> None:
        try:
            import psycopg
        except ImportError:
            raise StoreError(
                "PostgreSQL needs psycopg", next_step="pip install 'nearer[postgres]'"
            ) from None
        try:
            parsed = psycopg.conninfo.conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:  # its message would show the DSN
            raise StoreError(
                "the DSN cannot be read",
                where="index.location",
                next_step="postgresql://user@host/database",
            ) from None
        self.errors = (psycopg.Error,)
        self._dsn, self._secret, self._schema = dsn, str(parsed.get("password") or ""), schema
        self.address = self._masked(
            f"postgresql://{parsed.get('host', '')}/{parsed.get('dbname', '')} {schema}"
        )
        self._local = threading.local()

    @classmethod
    def open(cls, settings: config.Index, root: Path, namespace: str) -> Self:
        return cls(address_of(settings), namespace or cls.top_namespace)

    def _masked(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        from psycopg.errors import LockNotAvailable

        try:
            with super()._guarded():
                yield
        except StoreError as error:
            if isinstance(error.__cause__, LockNotAvailable):
                raise BusyError(
                    "another process is writing this generation",
                    where=error.where,
                    next_step="wait for it",
                ) from None
            raise StoreError(
                self._masked(error.what), where=error.where, next_step=error.next_step
            ) from None

    def _run(self, query: str, values: Any = (), generation: str = "", **parts: Any) -> Any:
        """Run SQL with values bound, and names, numbers and pieces of our own SQL in braces; gives the cursor."""
        import psycopg
        from psycopg import sql

        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg.connect(
                self._dsn, autocommit=True, application_name="nearer", prepare_threshold=None
            )
            self._local.connection = connection
        names = {
            "schema": sql.Identifier(self._schema),
            "table": sql.Identifier(self._schema, f"gen_{generation}"),
        }
        names |= {
            name: sql.Identifier(f"gen_{generation}_{name}")
            for name in ("documents", "terms", "near")
        }
        pieces = {
            name: sql.Literal(part) if isinstance(part, int) else sql.SQL(part)
            for name, part in parts.items()
        }
        return connection.execute(sql.SQL(query).format(**names, **pieces), values)

    @contextmanager
    def _transaction(self, generation: str = "") -> Iterator[None]:
        """All or nothing; on a generation one writer at a time, while readers go on."""
        self._run("SELECT")  # there is a connection
        with self._local.connection.transaction():
            self._run("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
            if generation:
                self._run("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE", (), generation)
            yield

    # -- tables ----------------------------------------------------------------------------------

    def _there(self, table: str) -> bool:
        found = self._run(
            "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = %s", (self._schema, table)
        )
        return found.fetchone() is not None

    def _identity(self, generation: str) -> str | None:
        if not self._there(f"gen_{check_generation(generation)}"):
            return None
        row = self._run(
            "SELECT identity::text FROM {schema}.generations WHERE generation = %s", (generation,)
        ).fetchone()
        return row[0] if row else ""

    def _generations(self) -> list[str]:
        found = self._run(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s AND starts_with(tablename, 'gen_')",
            (self._schema,),
        )
        return [name.removeprefix("gen_") for (name,) in found]

    def _prepare(self) -> None:
        """The schema and its two tables, where they are missing (a DBA may have made them)."""
        if self._there("active"):
            return
        with self._transaction():
            self._run("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"nearer {self._schema}",))
            if (
                self._run("SELECT FROM pg_namespace WHERE nspname = %s", (self._schema,)).fetchone()
                is None
            ):
                self._run("CREATE SCHEMA {schema}")
            self._run("CREATE EXTENSION IF NOT EXISTS vector")
            self._run("""
                CREATE TABLE IF NOT EXISTS {schema}.generations (
                    generation text PRIMARY KEY, identity jsonb NOT NULL, effort integer, created_at timestamptz NOT NULL DEFAULT now())""")
            self._run("""
                CREATE TABLE IF NOT EXISTS {schema}.active (
                    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, generation text,
                    moved_at timestamptz NOT NULL DEFAULT now(), moved_by text NOT NULL DEFAULT current_user)""")

    def _make(self, space: Space) -> None:
        from psycopg.errors import DuplicateTable

        self._prepare()
        columns = """chunk_id text PRIMARY KEY, doc_id text NOT NULL, text text NOT NULL, metadata jsonb NOT NULL,
            hash text NOT NULL, terms text[] NOT NULL, vector {kind}({n}) NOT NULL"""
        try:
            with self._transaction():
                self._run(
                    f"CREATE TABLE {{table}} ({columns})",
                    (),
                    space.generation,
                    kind=_KINDS[space.dtype],
                    n=space.dimension,
                )
                self._run("CREATE INDEX {documents} ON {table} (doc_id)", (), space.generation)
                self._run(
                    """INSERT INTO {schema}.generations (generation, identity) VALUES (%s, %s)
                    ON CONFLICT (generation) DO UPDATE SET identity = excluded.identity, effort = NULL, created_at = now()""",
                    (space.generation, space.identity()),
                )
        except DuplicateTable:  # made by another process meanwhile: the caller compares identities
            return

    @guarded
    def drop(self, generation: str) -> None:
        if self._there(f"gen_{check_generation(generation)}"):
            with self._transaction():
                self._run("DROP TABLE {table}", (), generation)
                self._run("DELETE FROM {schema}.generations WHERE generation = %s", (generation,))

    # -- rows ------------------------------------------------------------------------------------

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        metadata = [b"\x01" + text.encode() for text in columns["metadata"]]  # jsonb, format 1
        # as pgvector receives vectors in binary: dimension, 0, big-endian components
        head = np.array([space.dimension, 0], ">u2").tobytes()
        sent = [head + row.tobytes() for row in vectors.astype(vectors.dtype.newbyteorder(">"))]
        with self._transaction(space.generation):
            cursor = self._run(
                "CREATE TEMPORARY TABLE incoming (LIKE {table}) ON COMMIT DROP",
                (),
                space.generation,
            )
            with cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "text", "text", "bytea", "text", "text[]", "bytea"])
                for row in zip(
                    columns["chunk_id"],
                    columns["doc_id"],
                    columns["text"],
                    metadata,
                    columns["hash"],
                    columns["terms"],
                    sent,
                    strict=True,
                ):
                    copy.write_row(row)
            self._run(
                "DELETE FROM {table} WHERE doc_id IN (SELECT doc_id FROM incoming)",
                (),
                space.generation,
            )
            self._run("INSERT INTO {table} SELECT * FROM incoming", (), space.generation)

    @opened
    def delete(self, space: Space, doc_ids: Sequence[str]) -> int:
        with self._transaction(space.generation):
            gone = self._run(
                "DELETE FROM {table} WHERE doc_id = ANY(%s) RETURNING doc_id",
                (list(doc_ids),),
                space.generation,
            )
            return len({doc_id for (doc_id,) in gone})

    @opened
    def hashes(self, space: Space) -> dict[str, str]:
        return dict(self._run("SELECT DISTINCT doc_id, hash FROM {table}", (), space.generation))

    @opened
    def count(self, space: Space) -> tuple[int, int]:
        found: tuple[int, int] = self._run(
            "SELECT count(DISTINCT doc_id), count(*) FROM {table}", (), space.generation
        ).fetchone()
        return found

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        query = "SELECT chunk_id, doc_id, text, metadata::text, hash, {kind}_send(vector) FROM {table} WHERE doc_id = ANY(%s)"
        found = self._run(query, (doc_ids,), space.generation, kind=_KINDS[space.dtype]).fetchall()
        return {name: [row[i] for row in found] for i, name in enumerate(COLUMNS)}, _read(
            space, found
        )

    # -- search ----------------------------------------------------------------------------------

    @opened
    def build_index(self, space: Space, sample: Vectors | None = None) -> dict[str, Any]:
        with self._transaction(space.generation):
            self._run("SELECT set_config('maintenance_work_mem', %s, true)", (_MEMORY,))
            self._run(
                "CREATE INDEX IF NOT EXISTS {terms} ON {table} USING gin (terms)",
                (),
                space.generation,
            )
            if large := self.count(space)[1] >= self.exact_below:
                index = "CREATE INDEX IF NOT EXISTS {near} ON {table} USING hnsw ((vector::halfvec({n})) halfvec_ip_ops)"
                self._run(index, (), space.generation, n=space.dimension)
            self._run("ANALYZE {table}", (), space.generation)
        if not large:
            return {"kind": "exact"}

        def remember(effort: int) -> None:
            self._run(
                "UPDATE {schema}.generations SET effort = %s WHERE generation = %s",
                (effort, space.generation),
            )

        return {"kind": "HNSW", **self._tune(space, sample, remember)}

    def _effort(self, space: Space) -> int | None:
        row = self._run(
            "SELECT effort FROM {schema}.generations WHERE generation = %s", (space.generation,)
        ).fetchone()
        return row[0] if row else None

    def _eligible(self, space: Space, wanted: Clauses) -> int:
        limited = "SELECT count(*) FROM (SELECT FROM {table} {filter} LIMIT %s) AS kept"
        return int(
            self._run(
                limited, (*wanted, self.exact_below + 1), space.generation, filter=_filter(wanted)
            ).fetchone()[0]
        )

    def _nearest(
        self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None
    ) -> list[Candidates]:
        exact = "SELECT doc_id, {kind}_send(vector) FROM {table} {filter} ORDER BY (vector <#> %s::{kind}) + 0 LIMIT %s"  # no index has + 0
        near = "SELECT doc_id, {kind}_send(vector) FROM {table} {filter} ORDER BY vector::halfvec({n}) <#> %s::halfvec({n}) LIMIT %s"
        parts = {"kind": _KINDS[space.dtype], "n": space.dimension, "filter": _filter(wanted)}
        found = []
        with self._transaction():
            if effort is not None:
                tuned = "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)"
                self._run(tuned, (str(min(1000, max(n, 40 << effort))),))
            for vector in queries:
                values = (*wanted, json.dumps(vector.tolist()), n)
                rows = self._run(
                    exact if effort is None else near, values, space.generation, **parts
                ).fetchall()
                found.append(([row[0] for row in rows], _read(space, rows)))
        return found

    # -- the pointer -----------------------------------------------------------------------------

    @guarded
    def active(self) -> str | None:
        row = (
            self._run("SELECT generation FROM {schema}.active ORDER BY id DESC LIMIT 1").fetchone()
            if self._there("active")
            else None
        )
        return row[0] if row else None

    @guarded
    def activate(self, generation: str | None) -> None:
        self._prepare()
        self._run(
            "INSERT INTO {schema}.active (generation) VALUES (%s)",
            (generation and check_generation(generation),),
        )


def grants(reader: str, writer: str, schema: str = "nearer") -> str:
    """SQL that a DBA runs once: the schema, a role that builds and cuts over, and one that only searches."""
    from psycopg import sql

    names = {
        "schema": sql.Identifier(schema),
        "reader": sql.Identifier(reader),
        "writer": sql.Identifier(writer),
    }
    text = """CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {writer};
GRANT USAGE ON SCHEMA {schema} TO {reader};
GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {writer} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {reader};
"""
    return str(sql.SQL(text).format(**names).as_string(None))


def _filter(wanted: Clauses) -> str:
    return "WHERE " + " AND ".join(["terms && %s"] * len(wanted)) if wanted else ""


def _read(space: Space, rows: Sequence[Any]) -> np.ndarray:
    """The last column of rows, vectors as pgvector sends them in binary, as (n, dimension)."""
    kind = np.dtype(space.dtype)
    raw = np.frombuffer(b"".join(row[-1] for row in rows), np.uint8).reshape(
        len(rows), 4 + kind.itemsize * space.dimension
    )
    return np.ascontiguousarray(raw[:, 4:]).view(kind.newbyteorder(">")).astype(kind)
