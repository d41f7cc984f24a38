"""What is PostgreSQL's own: roles, one transaction a write, secrets, plans, history."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from nearer.embed.fingerprint import Vectors
from nearer.errors import BusyError, StoreError
from nearer.live.stores import postgres, searching
from nearer.live.stores.base import Space
from nearer.live.stores.postgres import PostgresStore, grants
from test_contract_stores import CORPUS, MODEL, SPACE, WIDE, WIDE_MODEL, alike, asked, rows_of


@pytest.fixture
def schema(tmp_path: Path) -> str:
    return f'{tmp_path.name[:30]} "x"'  # a name that needs quoting


@pytest.fixture
def store(dsn: str, schema: str) -> PostgresStore:
    return PostgresStore(dsn, schema)


def run(dsn: str, query: str, schema: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql.SQL(query).format(schema=sql.Identifier(schema)))
        return cursor.fetchall() if cursor.description else []


def test_a_reader_searches_and_cannot_write(dsn: str, schema: str) -> None:
    run(dsn, "CREATE ROLE builder LOGIN; CREATE ROLE searcher LOGIN", schema)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(grants("searcher", "builder", schema))
    as_role = {
        role: PostgresStore(psycopg.conninfo.make_conninfo(dsn, user=role), schema)
        for role in ("builder", "searcher")
    }
    builder, searcher = as_role["builder"], as_role["searcher"]
    builder.create(SPACE)
    builder.write(SPACE, CORPUS)
    builder.build_index(SPACE)
    builder.activate(SPACE.generation)
    assert searcher.active() == SPACE.generation
    assert searcher.spaces() == [SPACE]
    assert searcher.search(SPACE, asked(), 5) == builder.search(SPACE, asked(), 5)
    for attempt in (
        lambda: searcher.write(SPACE, rows_of(["x"])),
        lambda: searcher.delete(SPACE, ["d001"]),
        lambda: searcher.activate(None),
        lambda: searcher.create(Space("other", MODEL, 16)),
        lambda: searcher.drop(SPACE.generation),
    ):
        with pytest.raises(StoreError, match=r"permission denied|must be owner"):
            attempt()
    assert builder.count(SPACE) == (200, len(CORPUS))


def test_grants_quote_names() -> None:
    assert 'TO "a""; DROP TABLE x; --"' in grants('a"; DROP TABLE x; --', "writer")


def test_a_write_that_dies_in_the_middle_changes_nothing(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(SPACE)
    store.write(SPACE, CORPUS)
    before = store.hashes(SPACE)
    run_one = PostgresStore._run

    def dying(self: PostgresStore, query: str, *args: Any, **parts: Any) -> Any:
        if query.startswith("INSERT INTO {table}"):
            self._local.connection.close()  # after the old rows are gone, before the new ones are in
        return run_one(self, query, *args, **parts)

    monkeypatch.setattr(PostgresStore, "_run", dying)
    with pytest.raises(StoreError):
        store.write(SPACE, rows_of({"d001": 1, "new": 1}, version="2"))
    monkeypatch.undo()
    assert store.hashes(SPACE) == before
    assert store.count(SPACE) == (200, len(CORPUS))


def test_a_second_writer_waits_then_says_that_another_writes(
    store: PostgresStore, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_PATIENCE", "200ms")
    store.create(SPACE)
    with store._transaction(SPACE.generation):
        with pytest.raises(BusyError):
            PostgresStore(dsn, schema).write(SPACE, rows_of(["a"]))
        assert PostgresStore(dsn, schema).count(SPACE) == (0, 0)  # readers go on
    PostgresStore(dsn, schema).write(SPACE, rows_of(["a"]))
    assert store.count(SPACE) == (1, 1)


def test_many_writers_and_readers_lose_and_double_nothing(store: PostgresStore) -> None:
    store.create(SPACE)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for turn in range(5):
                store.write(SPACE, rows_of({"shared": 2, f"own {worker} {turn}": 1}, seed=worker))
                assert len({doc_id for doc_id, _ in store.search(SPACE, asked(1), 50)[0]}) >= 2
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.count(SPACE) == (21, 22)


def test_large_tables_are_searched_through_the_index_and_narrow_filters_are_not(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching.IndexedStore, "exact_below", 1000)
    plans: list[str] = []
    run_one = PostgresStore._run

    def explained(
        self: PostgresStore, query: str, values: Any = (), *args: Any, **parts: Any
    ) -> Any:
        if "<#>" in query:
            run_one(
                self, "SELECT set_config('enable_seqscan', 'off', true)"
            )  # 1,500 rows alone are no reason for an index
            plans.append(
                "\n".join(
                    line for (line,) in run_one(self, f"EXPLAIN {query}", values, *args, **parts)
                )
            )
        return run_one(self, query, values, *args, **parts)

    query = Vectors(alike(1, 6), WIDE_MODEL)
    rows = rows_of(
        [f"d{i}" for i in range(1500)],
        vectors=alike(1500, 5),
        fingerprint=WIDE_MODEL,
        metadata=lambda d: {"id": d},
    )
    for dtype in ("float32", "float16"):
        space = Space(dtype, WIDE_MODEL, WIDE, dtype)
        store.create(space)
        store.write(space, rows)
        assert store.build_index(space)["kind"] == "HNSW"
        with monkeypatch.context() as patch:
            patch.setattr(PostgresStore, "_run", explained)
            plans.clear()
            store.search(space, query, 3)
            store.search(space, query, 3, exact=True)
            store.search(space, query, 3, filter={"id": "d7"})
        assert [f"gen_{dtype}_near" in plan for plan in plans] == [True, False, False]
        assert f"gen_{dtype}_terms" in plans[2]


def test_a_password_is_never_shown(dsn: str) -> None:
    secret = "-".join(["hunter2", "x"])
    address = psycopg.conninfo.make_conninfo(dsn, password=secret, dbname=f"no-{secret}-here")
    store = PostgresStore(address)
    with pytest.raises(StoreError, match="does not exist") as failed:
        store.count(SPACE)
    assert "hunter2" not in str(failed.value) + str(failed.value.as_dict()) + repr(store)
    with pytest.raises(StoreError, match="cannot be read") as failed:
        PostgresStore("postgresql://user:hunter2-secret@host/db?hunter2")
    assert "hunter2" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_characters_that_postgresql_cannot_keep_come_back(store: PostgresStore) -> None:
    store.create(SPACE)
    odd = {"nul": "a\0\0b", "escaped": "\\u0000", "both": "\\\0", "key\0": [1]}
    store.write(SPACE, replace(rows_of(["a"], metadata=lambda _: odd), texts=["x\0y"]))
    fetched = store.fetch(SPACE, ["a"])
    assert list(fetched.texts) == ["x\0y"]
    assert fetched.metadata[0] == odd
    assert store.search(SPACE, asked(1), 1, filter={"nul": "A\0\0B"})[0][0][0] == "a"


def test_the_pointer_keeps_its_history(store: PostgresStore, dsn: str, schema: str) -> None:
    for generation in ("a", "b", None, "a"):
        store.activate(generation)
    rows = run(
        dsn,
        "SELECT generation, moved_at IS NOT NULL, moved_by = current_user FROM {schema}.active ORDER BY id",
        schema,
    )
    assert rows == [("a", True, True), ("b", True, True), (None, True, True), ("a", True, True)]


def test_a_lost_connection_is_opened_again(store: PostgresStore, dsn: str, schema: str) -> None:
    store.create(SPACE)
    run(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nearer'",
        schema,
    )
    with pytest.raises(StoreError):
        store.count(SPACE)
    assert store.count(SPACE) == (0, 0)
