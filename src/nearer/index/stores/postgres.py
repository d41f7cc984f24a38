"""PostgreSQL with pgvector: a schema of its own, a table a generation, a row that names the active one.

    nearer.generations   generation, identity (jsonb), effort of its index, created_at
    nearer.active        one row a cut-over: the newest is the pointer, the others its history
    nearer."gen_ID"      chunk_id, doc_id, text, metadata (jsonb), hash, terms (text[]), vector

float32 is kept as `vector(n)`, float16 as `halfvec(n)`, int8 and binary in stored form (`bytea`)
beside their signs (`bit(n)`).  Values are bound, names quoted, each change is one transaction.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nearer.errors import BusyError, StoreError
from nearer.index.stores.base import Space, check_generation
from nearer.index.stores.common import COLUMNS, LOSSY, Clauses, Columns, Found, Store, clauses, collapse
from nearer.retrieve.fingerprint import Vectors
from nearer.types import Hit, Metadata

_MEMORY = "512MB"  # while an index is built
_PATIENCE = "5s"  # how long a writer waits for another
_LONGEST = 200_000  # characters of a text that full-text search sees: a tsvector holds 1 MB
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # in JSON; PostgreSQL keeps no NUL characters


class PostgresStore(Store):
    """Tables in `schema` of the database that a DSN names.  Each thread has a connection of its own."""

    kind = "postgres"

    def __init__(self, dsn: str, schema: str = "nearer") -> None:
        try:
            import psycopg
        except ImportError:
            raise StoreError("PostgreSQL needs psycopg", next_step="pip install 'nearer[postgres]'") from None
        self.errors = (psycopg.Error,)
        try:
            parsed = psycopg.conninfo.conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:  # its message would show the DSN
            raise StoreError("the DSN cannot be read", where="index.location", next_step="postgresql://user@host/database") from None
        self._dsn, self._secret = dsn, str(parsed.get("password") or "")
        self._address = self._masked(f"postgresql://{parsed.get('host', '')}/{parsed.get('dbname', '')}")
        self._schema = schema
        self._local = threading.local()

    def _where(self, generation: str) -> str:
        return f"{self._address} {self._schema}.gen_{generation}"

    @contextmanager
    def _guarded(self, generation: str) -> Iterator[None]:
        from psycopg.errors import LockNotAvailable

        try:
            with super()._guarded(generation):
                yield
        except StoreError as error:
            if isinstance(error.__cause__, LockNotAvailable):
                raise BusyError("another process is writing this generation", where=error.where, next_step="wait for it") from None
            raise StoreError(self._masked(error.what), where=error.where, next_step=error.next_step) from None

    def _masked(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    def _run(self, query: str, values: Any = (), *, generation: str = "", **parts: Any) -> Any:
        """Run SQL with values bound, and names, numbers and pieces of our own SQL in braces; gives the cursor."""
        return self._connection().execute(self._sql(query, generation, **parts), values)

    def _sql(self, query: str, generation: str = "", **parts: Any) -> Any:
        from psycopg import sql

        names = {"schema": sql.Identifier(self._schema), "table": sql.Identifier(self._schema, f"gen_{generation}")}
        names |= {name: sql.Identifier(f"gen_{generation}_{name}") for name in ("documents", "terms", "words", "near")}
        pieces = {
            name: sql.Literal(part) if isinstance(part, int) else sql.SQL(part).format(**names, n=parts.get("n"))
            for name, part in parts.items()
        }
        return sql.SQL(query).format(**names, **pieces)

    def _name(self, *parts: str) -> str:
        """A name in the schema, quoted."""
        from psycopg import sql

        return str(sql.Identifier(self._schema, *parts).as_string(None))

    def _connection(self) -> Any:
        import psycopg

        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg.connect(self._dsn, autocommit=True, application_name="nearer", prepare_threshold=None)
            self._local.connection = connection
        return connection

    # -- tables ----------------------------------------------------------------------------------

    def _identity(self, generation: str) -> str | None:
        from psycopg.errors import UndefinedTable

        name = self._name(f"gen_{check_generation(generation)}")
        query = "SELECT to_regclass(%s) IS NULL, (SELECT identity::text FROM {schema}.generations WHERE generation = %s)"
        try:
            absent, identity = self._run(query, (name, generation)).fetchone()
        except UndefinedTable:
            return None
        return None if absent else identity or ""

    def _generations(self) -> list[str]:
        found = self._run("SELECT tablename FROM pg_tables WHERE schemaname = %s AND starts_with(tablename, 'gen_')", (self._schema,))
        return [name.removeprefix("gen_") for (name,) in found]

    def _prepare(self) -> None:
        """The schema and its two tables, where they are missing (a DBA may have made them)."""
        if self._run("SELECT to_regclass(%s)", (self._name("active"),)).fetchone()[0] is not None:
            return
        with self._connection().transaction():
            self._run("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"nearer {self._schema}",))
            if self._run("SELECT to_regnamespace(%s)", (self._name(),)).fetchone()[0] is None:
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
        kind = {"float32": "vector({n})", "float16": "halfvec({n})"}.get(space.dtype, "bytea NOT NULL, signs bit({n})")
        try:
            with self._connection().transaction():
                self._run(
                    """CREATE TABLE {table} (
                        chunk_id text PRIMARY KEY, doc_id text NOT NULL, text text NOT NULL, metadata jsonb NOT NULL,
                        hash text NOT NULL, terms text[] NOT NULL, vector {kind} NOT NULL)""",
                    generation=space.generation,
                    kind=kind,
                    n=space.dimension,
                )
                self._run("CREATE INDEX {documents} ON {table} (doc_id)", generation=space.generation)
                self._run(
                    """INSERT INTO {schema}.generations (generation, identity) VALUES (%s, %s)
                    ON CONFLICT (generation) DO UPDATE SET identity = excluded.identity, effort = NULL, created_at = now()""",
                    (space.generation, space.identity()),
                )
        except DuplicateTable:  # made by another process meanwhile: the caller compares identities
            return

    def _drop(self, generation: str) -> None:
        if self._identity(generation) is not None:
            with self._transaction():
                self._run("DROP TABLE IF EXISTS {table}", generation=generation)
                self._run("DELETE FROM {schema}.generations WHERE generation = %s", (generation,))

    # -- rows ------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._connection().transaction():
            self._run("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
            yield

    @contextmanager
    def _writing(self, generation: str) -> Iterator[None]:
        """One transaction, one writer at a time; readers go on."""
        with self._transaction():
            self._run("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE", generation=generation)
            yield

    def _put(self, space: Space, columns: Columns, vectors: np.ndarray) -> None:
        names = (*COLUMNS, "terms", "vector", *(["signs"] if space.dtype in LOSSY else []))
        texts = [text.replace("\0", "\ufffd") for text in columns["text"]]
        metadata = [b"\x01" + _NUL.sub(r"\1\\ufffd", text).encode() for text in columns["metadata"]]  # jsonb, format 1
        fields = [columns["chunk_id"], columns["doc_id"], texts, metadata, columns["hash"], columns["terms"], *_wire(space, vectors)]
        with self._writing(space.generation):
            cursor = self._run("CREATE TEMPORARY TABLE incoming (LIKE {table}) ON COMMIT DROP", generation=space.generation)
            with cursor.copy(f"COPY incoming ({', '.join(names)}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "text", "text", "bytea", "text", "text[]", *["bytea"] * (len(fields) - 6)])
                for row in zip(*fields, strict=True):
                    copy.write_row(row)
            self._run("DELETE FROM {table} WHERE doc_id IN (SELECT doc_id FROM incoming)", generation=space.generation)
            self._run("INSERT INTO {table} SELECT * FROM incoming", generation=space.generation)

    def _delete(self, space: Space, doc_ids: list[str]) -> int:
        with self._writing(space.generation):
            gone = self._run("DELETE FROM {table} WHERE doc_id = ANY(%s) RETURNING doc_id", (doc_ids,), generation=space.generation)
            return len({doc_id for (doc_id,) in gone})

    def _hashes(self, space: Space) -> dict[str, str]:
        return dict(self._run("SELECT DISTINCT doc_id, hash FROM {table}", generation=space.generation))

    def _count(self, space: Space) -> tuple[int, int]:
        documents, chunks = self._run("SELECT count(DISTINCT doc_id), count(*) FROM {table}", generation=space.generation).fetchone()
        return int(documents), int(chunks)

    def _fetch(self, space: Space, doc_ids: list[str]) -> tuple[Columns, np.ndarray]:
        query = "SELECT chunk_id, doc_id, text, metadata::text, hash, {sent} FROM {table} WHERE doc_id = ANY(%s)"
        found = self._run(query, (doc_ids,), generation=space.generation, sent=_sent(space)).fetchall()
        return {name: [row[i] for row in found] for i, name in enumerate(COLUMNS)}, _read(space, [row[-1] for row in found])

    # -- search ----------------------------------------------------------------------------------

    def _build_index(self, space: Space, sample: Vectors | None) -> dict[str, Any]:
        # halfvec: half the memory of float32, and up to 4,000 dimensions; scores are computed on the rows themselves
        indexed = "signs bit_hamming_ops" if space.dtype in LOSSY else "(vector::halfvec({n})) halfvec_ip_ops"
        with self._writing(space.generation):
            self._run("SELECT set_config('maintenance_work_mem', %s, true)", (_MEMORY,))
            self._run("CREATE INDEX IF NOT EXISTS {terms} ON {table} USING gin (terms)", generation=space.generation)
            self._run("CREATE INDEX IF NOT EXISTS {words} ON {table} USING gin ({text})", generation=space.generation, text=_WORDS)
            large = self._count(space)[1] >= self.exact_below
            if large:
                index = "CREATE INDEX IF NOT EXISTS {near} ON {table} USING hnsw ({indexed})"
                self._run(index, generation=space.generation, indexed=indexed, n=space.dimension)
            self._run("ANALYZE {table}", generation=space.generation)
        if not large:
            return {"kind": "exact"}

        def remember(effort: int) -> None:
            self._run("UPDATE {schema}.generations SET effort = %s WHERE generation = %s", (effort, space.generation))

        return {"kind": "HNSW", **self._tune(space, sample, remember)}

    def _effort(self, space: Space) -> int | None:
        row = self._run("SELECT effort FROM {schema}.generations WHERE generation = %s", (space.generation,)).fetchone()
        return row[0] if row else None

    def _eligible(self, space: Space, wanted: Clauses) -> int:
        limited = "SELECT count(*) FROM (SELECT FROM {table} {filter} LIMIT %s) AS kept"
        values = (*wanted, self.exact_below + 1)
        return int(self._run(limited, values, generation=space.generation, filter=_filter(wanted)).fetchone()[0])

    def _nearest(self, space: Space, queries: np.ndarray, n: int, wanted: Clauses, effort: int | None) -> list[Found]:
        if space.dtype in LOSSY:
            distance = "signs <~> %s::bit({n})"
            asked = ["".join(map(str, row)) for row in (queries > 0).astype(np.int8)]
        else:
            kind = "vector" if space.dtype == "float32" and effort is None else "halfvec"
            distance = f"vector::{kind}({{n}}) <#> %s::{kind}({{n}})"
            asked = [json.dumps(row.tolist()) for row in queries]
        parts = {
            "sent": _sent(space),
            "filter": _filter(wanted),
            "order": distance if effort is not None else f"({distance}) + 0",  # + 0: no index has that
        }
        found = []
        with self._connection().transaction():
            if effort is not None:
                tuned = "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)"
                self._run(tuned, (str(min(1000, max(n, 40 << effort))),))
            for vector in asked:
                query = "SELECT doc_id, {sent} FROM {table} {filter} ORDER BY {order} LIMIT %s"
                rows = self._run(query, (*wanted, vector, n), generation=space.generation, n=space.dimension, **parts).fetchall()
                found.append(([row[0] for row in rows], _read(space, [row[1] for row in rows])))
        return found

    def _stored(self, space: Space, wanted: Clauses) -> Iterator[Found]:
        query = self._sql("SELECT doc_id, {sent} FROM {table} {filter}", space.generation, sent=_sent(space), filter=_filter(wanted))
        with self._connection().transaction(), self._connection().cursor("stored") as cursor:
            cursor.execute(query, wanted)
            while rows := cursor.fetchmany(8192):
                yield [row[0] for row in rows], _read(space, [row[1] for row in rows])

    def text_search(self, space: Space, query: str, k: int, *, filter: Metadata | None = None) -> list[Hit]:
        """PostgreSQL's full-text search: any of the words, ranked by `ts_rank_cd`, no language assumed."""
        with self._opened(space):
            wanted = clauses(filter)
            if k < 1 or not all(wanted):
                return []
            found = """
                WITH asked AS (SELECT replace(plainto_tsquery('simple', %s)::text, ' & ', ' | ')::tsquery AS words)
                SELECT doc_id, max(ts_rank_cd({text}, words)) AS score FROM {table}, asked {filter}
                GROUP BY doc_id ORDER BY score DESC, doc_id COLLATE "C" DESC LIMIT %s"""
            parts = {"text": _WORDS, "filter": _filter(wanted, f"{_WORDS} @@ words")}
            rows = self._run(found, (query.replace("\0", " "), *wanted, k), generation=space.generation, **parts).fetchall()
            return collapse([row[0] for row in rows], np.array([row[1] for row in rows], np.float32), k)

    # -- the pointer -----------------------------------------------------------------------------

    def _active(self) -> str | None:
        if self._run("SELECT to_regclass(%s)", (self._name("active"),)).fetchone()[0] is None:
            return None
        row = self._run("SELECT generation FROM {schema}.active ORDER BY id DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def _activate(self, generation: str | None) -> None:
        self._prepare()
        self._run("INSERT INTO {schema}.active (generation) VALUES (%s)", (generation,))


def grants(reader: str, writer: str, schema: str = "nearer") -> str:
    """SQL that a DBA runs once: the schema, a role that builds and cuts over, and one that only searches."""
    from psycopg import sql

    names = {"schema": sql.Identifier(schema), "reader": sql.Identifier(reader), "writer": sql.Identifier(writer)}
    text = """CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {writer};
GRANT USAGE ON SCHEMA {schema} TO {reader};
GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {writer} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {reader};
"""
    return str(sql.SQL(text).format(**names).as_string(None))


_WORDS = f"to_tsvector('simple', left(text, {_LONGEST}))"


def _filter(wanted: Clauses, *more: str) -> str:
    conditions = [*more, *["terms && %s"] * len(wanted)]
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _sent(space: Space) -> str:
    """SQL for vectors as bytes: what pgvector sends in binary."""
    return {"float32": "vector_send(vector)", "float16": "halfvec_send(vector)"}.get(space.dtype, "vector")


def _wire(space: Space, stored: np.ndarray) -> list[list[bytes]]:
    """Rows as PostgreSQL receives them in binary: a header and big-endian components; signs as bits."""
    if space.dtype not in LOSSY:
        head = np.array([space.dimension, 0], ">u2").tobytes()
        return [[head + row.tobytes() for row in stored.astype(stored.dtype.newbyteorder(">"))]]
    signs = stored if space.dtype == "binary" else np.packbits(stored[:, 4:] > 0, axis=1)
    head = np.array(space.dimension, ">i4").tobytes()
    return [[row.tobytes() for row in stored], [head + row.tobytes() for row in signs]]


def _read(space: Space, sent: list[bytes]) -> np.ndarray:
    """Rows in stored form, (n, width), of what PostgreSQL sent."""
    raw = np.frombuffer(b"".join(sent), np.uint8).reshape(len(sent), -1) if sent else np.zeros((0, 4), np.uint8)
    if space.dtype in LOSSY:
        return raw if space.dtype == "binary" else raw.view(np.int8)
    kind = np.dtype(space.dtype)
    return np.ascontiguousarray(raw[:, 4:]).view(kind.newbyteorder(">")).astype(kind)
