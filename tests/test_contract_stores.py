"""The contract of vector stores, over every one that `nearer.plugins` lists, and over a user's own (memory_store.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory_store import MemoryStore
from nearer import files, plugins
from nearer.config import Index
from nearer.embed.compress import Compression, Dtype, cut, decode_rows, encode_rows
from nearer.embed.fingerprint import Fingerprint, Vectors
from nearer.errors import BusyError, ConfigError, FingerprintError, StoreError
from nearer.live.stores import adopt, open_store, searching, storable, store_class
from nearer.live.stores.base import Rows, Space, VectorStore
from nearer.live.stores.lance import LanceStore
from nearer.live.stores.numpy_store import NumpyStore
from nearer.live.stores.qdrant import QdrantStore
from nearer.search.filters import matches
from nearer.types import Hit, Metadata, rank_hits

DIMENSION = 16
WIDE = 128  # where an index has something to find
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "binary")
Open = Callable[[], VectorStore]


def unit(array: np.ndarray) -> np.ndarray:
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


PROBES = tuple(
    tuple(float(x) for x in row)
    for row in unit(np.random.default_rng(1).normal(size=(4, DIMENSION)))
)
MODEL = Fingerprint(
    "weights", "tokenizer", "modules", "", "", 64, "cosine", DIMENSION, "fp32", None, PROBES
)
OTHER = replace(MODEL, weights="tuned")
WIDE_MODEL = replace(MODEL, dimension=WIDE)
SPACE = Space("2026-a", MODEL, DIMENSION)


#: A user's own store, as `index.store` names it.
MINE = "memory_store:MemoryStore"
#: Those that find neighbours through an approximate index, and that search by words.
INDEXED, WORDED = ("lancedb", "postgres"), ("lancedb",)
STORES: Mapping[str, Callable[[Path], VectorStore]] = {"numpy": NumpyStore, "lancedb": LanceStore}


@pytest.fixture(params=[*plugins.names("store"), MINE])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one and the same store again, as another process would."""
    if request.param == "postgres":
        settings = Index(store="postgres", location=request.getfixturevalue("dsn"))
        return lambda: open_store(settings, tmp_path, tmp_path.name[:40])
    if request.param == "qdrant":
        from qdrant_client import QdrantClient

        # local mode allows one client; on a disk it commits each point by itself
        client = QdrantClient(":memory:")
        return lambda: QdrantStore("memory", client)
    settings = Index(store=request.param, location="store")
    return lambda: open_store(settings, tmp_path)


@pytest.fixture
def store(reopen: Open) -> VectorStore:
    return reopen()


def refused(store: VectorStore, space: Space) -> bool:
    """Make the table; true where the store says that it does not keep that type."""
    if store.kind in ("postgres", "qdrant") and space.dtype in searching.LOSSY:
        with pytest.raises(StoreError, match="keeps float32 or float16"):
            store.create(space)
        return True
    store.create(space)
    return False


def rows_of(
    chunks: Mapping[str, int] | Sequence[str],
    *,
    seed: int = 0,
    metadata: Callable[[str], Metadata] = lambda doc_id: {"doc": doc_id},
    fingerprint: Fingerprint = MODEL,
    vectors: np.ndarray | None = None,
    version: str = "1",
) -> Rows:
    """Documents with some chunks each (one where only ids are given)."""
    counts = chunks if isinstance(chunks, Mapping) else dict.fromkeys(chunks, 1)
    pairs = [(doc_id, i) for doc_id, n in counts.items() for i in range(n)]
    if vectors is None:
        vectors = (
            unit(np.random.default_rng(seed).normal(size=(len(pairs), fingerprint.dimension)))
            if pairs
            else np.zeros((0, DIMENSION))
        )
    return Rows(
        [f"{doc_id}#{i}" for doc_id, i in pairs],
        [doc_id for doc_id, _ in pairs],
        [f"text {i} of {doc_id}" for doc_id, i in pairs],
        [metadata(doc_id) for doc_id, _ in pairs],
        [f"hash {doc_id} {version}" for doc_id, _ in pairs],
        Vectors(vectors.astype(np.float32), fingerprint),
    )


def asked(n: int = 5, seed: int = 99, fingerprint: Fingerprint = MODEL) -> Vectors:
    return Vectors(
        unit(np.random.default_rng(seed).normal(size=(n, fingerprint.dimension))), fingerprint
    )


def alike(n: int, seed: int) -> np.ndarray:
    """Vectors that lie as those of real texts do: near a space of few dimensions."""
    rng, basis = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(12, WIDE))
    return unit(rng.normal(size=(n, 12)) @ basis + rng.normal(size=(n, WIDE)))


def brute_force(
    space: Space, rows: Rows, queries: Vectors, keep: Callable[[Metadata], bool] = lambda _: True
) -> list[dict[str, float]]:
    """What every search is held to: the score of each document, over the vectors as they are stored."""
    spec = Compression(space.dtype, space.dimension)
    similarity = space.fingerprint.similarity
    stored = decode_rows(encode_rows(rows.vectors.array, spec, similarity), spec).astype(np.float64)
    kept = [i for i, metadata in enumerate(rows.metadata) if keep(metadata)]
    found = []
    for query in cut(queries.array, spec, similarity):
        best: dict[str, float] = {}
        for i in kept:
            best[rows.doc_ids[i]] = max(
                float(stored[i] @ query), best.get(rows.doc_ids[i], -np.inf)
            )
        found.append(best)
    return found


def same(found: list[list[Hit]], expected: list[dict[str, float]], k: int) -> None:
    """The k best, each with its score, in canonical order; scores that differ by rounding alone may change places."""
    assert len(found) == len(expected)
    for hits, scores in zip(found, expected, strict=True):
        assert hits == rank_hits(hits)
        assert len(dict(hits)) == len(hits) == min(k, len(scores))
        assert [score for _, score in hits] == pytest.approx(
            sorted(scores.values(), reverse=True)[:k], abs=3e-6
        )
        assert [score for _, score in hits] == pytest.approx(
            [scores[doc_id] for doc_id, _ in hits], abs=3e-6
        )


CORPUS = rows_of({f"d{i:03}": 1 + i % 3 for i in range(200)})


@pytest.fixture
def full(store: VectorStore) -> VectorStore:
    store.create(SPACE)
    store.write(SPACE, CORPUS)
    return store


# -- opening -------------------------------------------------------------------------------------


def test_settings_name_the_store_and_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    opened = {
        "numpy": open_store(Index(store="numpy"), tmp_path),
        "lancedb": open_store(Index(location="tables"), tmp_path),
        "qdrant": open_store(Index(store="qdrant", location="q"), tmp_path),
    }
    assert {name: store.kind for name, store in opened.items()} == {name: name for name in opened}
    assert opened["numpy"].spaces() == opened["lancedb"].spaces() == opened["qdrant"].spaces() == []
    assert {path.name for path in tmp_path.iterdir()} >= {"tables", "q"}
    monkeypatch.setenv("OUR_DATABASE", dsn)
    assert open_store(Index(store="postgres", location="env:OUR_DATABASE"), tmp_path).spaces() == []
    for location in (None, "env:ABSENT"):
        with pytest.raises(StoreError, match="no address"):
            open_store(Index(store="postgres", location=location), tmp_path)


def test_a_store_that_cannot_be_reached_or_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the postgres store refused"):
        open_store(
            Index(store="postgres", location=f"postgresql://nobody@/none?host={tmp_path}"), tmp_path
        ).spaces()
    (tmp_path / "file").write_text("in the way")
    for kind in ("numpy", "lancedb"):
        with pytest.raises(StoreError, match=f"the {kind} store refused"):
            open_store(Index(store=kind, location="file"), tmp_path).create(SPACE)


def test_an_unknown_store_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="no store called 'lancdb'") as refusal:
        Index(store="lancdb")
    assert refusal.value.where == "index.store"
    assert "did you mean lancedb?" in str(refusal.value.next_step)
    with pytest.raises(ConfigError, match="no store called 'milvus'") as refusal:
        Index(store="milvus")
    assert "numpy" in str(refusal.value.next_step)


def test_a_class_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half_a_store.py").write_text("class Half:\n    kind = 'half'\n")
    with pytest.raises(ConfigError, match="is no vector store: it has no open"):
        open_store(Index(store="half_a_store:Half"), tmp_path)


@pytest.mark.parametrize(
    ("store", "location", "private"),
    [
        ("numpy", None, True),
        ("lancedb", "tables", True),
        ("lancedb", "../elsewhere", False),
        ("lancedb", "s3://bucket/path", False),
        ("qdrant", "q", True),
        ("qdrant", "env:QDRANT", False),
        ("postgres", "postgresql:///x", False),
        (MINE, None, False),
    ],
)
def test_a_location_is_private_where_it_lies_inside_the_project(
    store: str, location: str | None, private: bool, tmp_path: Path
) -> None:
    settings = Index(store=store, location=location)
    assert store_class(settings, tmp_path).is_private(settings, tmp_path) is private


# -- identity ------------------------------------------------------------------------------------


def test_every_store_has_all_members_of_the_seam(store: VectorStore) -> None:
    assert isinstance(store, VectorStore)


def test_a_table_is_made_once_and_says_what_it_holds(store: VectorStore) -> None:
    assert store.spaces() == []
    store.create(SPACE)
    store.write(SPACE, rows_of(["a"]))
    store.create(SPACE)
    assert store.spaces() == [SPACE]
    assert store.count(SPACE) == (1, 1)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(SPACE, fingerprint=OTHER), "weights"),
        (replace(SPACE, fingerprint=replace(MODEL, query_prompt="query: ")), "query prompt"),
        (replace(SPACE, dimension=8), "dimension"),
        (replace(SPACE, dtype="float16"), "dtype"),
    ],
    ids=["weights", "prompt", "dimension", "dtype"],
)
def test_a_table_of_another_space_is_refused_everywhere(
    full: VectorStore, other: Space, difference: str
) -> None:
    attempts: list[Callable[[], Any]] = [
        lambda: full.create(other),
        lambda: full.write(
            other, replace(rows_of(["x"]), vectors=asked(1, fingerprint=other.fingerprint))
        ),
        lambda: full.search(other, asked(1, fingerprint=other.fingerprint), 3),
        lambda: full.delete(other, ["d001"]),
        lambda: full.hashes(other),
        lambda: full.count(other),
        lambda: full.fetch(other, ["d001"]),
        lambda: full.scan(other),
        lambda: full.build_index(other),
    ]
    for attempt in attempts:
        with pytest.raises(FingerprintError, match=difference):
            attempt()
    assert full.count(SPACE) == (200, len(CORPUS))


def test_vectors_of_another_model_are_refused_though_the_dimension_is_equal(
    full: VectorStore,
) -> None:
    with pytest.raises(FingerprintError, match="weights"):
        full.write(SPACE, rows_of(["d001"], fingerprint=OTHER))
    with pytest.raises(FingerprintError, match="weights"):
        full.search(SPACE, asked(1, fingerprint=OTHER), 3)
    assert full.count(SPACE) == (200, len(CORPUS))


def test_vectors_without_identity_are_refused(full: VectorStore) -> None:
    bare: Any = asked(1).array
    with pytest.raises(FingerprintError, match="do not say which model"):
        full.search(SPACE, bare, 3)
    with pytest.raises(FingerprintError, match="do not say which model"):
        full.write(SPACE, replace(rows_of(["x"]), vectors=bare))


def test_the_same_declared_model_with_other_behaviour_is_refused(full: VectorStore) -> None:
    drifted = replace(MODEL, probes=tuple(tuple(reversed(row)) for row in PROBES))
    with pytest.raises(FingerprintError, match="probe cosine"):
        full.search(SPACE, asked(1, fingerprint=drifted), 3)


def test_a_table_whose_identity_was_taken_away_is_refused(
    full: VectorStore, reopen: Open, strip: Callable[[], None]
) -> None:
    strip()
    again = reopen()
    for attempt in (
        lambda: again.create(SPACE),
        lambda: again.search(SPACE, asked(1), 3),
        again.spaces,
    ):
        with pytest.raises(FingerprintError, match="does not say which model"):
            attempt()


@pytest.fixture
def strip(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Takes the identity of the table away, as a hand-made copy would."""

    def from_a_plugin() -> None:
        kind = type(request.getfixturevalue("reopen")())
        monkeypatch.setattr(kind, "_identity", lambda store, generation: "")

    def from_numpy() -> None:
        path = tmp_path / "store" / SPACE.generation / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": None}))

    def from_lance() -> None:
        import lancedb

        db = lancedb.connect(str(tmp_path / "store"))
        copy = db.open_table(f"gen_{SPACE.generation}").to_arrow().replace_schema_metadata(None)
        db.drop_table(f"gen_{SPACE.generation}")
        db.create_table(f"gen_{SPACE.generation}", copy)

    def from_memory() -> None:
        store = request.getfixturevalue("reopen")()
        assert isinstance(store, MemoryStore)
        store.place.tables[SPACE.generation].identity = ""

    def from_postgres() -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(request.getfixturevalue("dsn")) as connection:
            connection.execute(
                sql.SQL("DELETE FROM {}").format(sql.Identifier(tmp_path.name[:40], "generations"))
            )

    def from_qdrant() -> None:
        from qdrant_client import models

        client = request.getfixturevalue("reopen")()._client
        points = client.scroll(f"gen_{SPACE.generation}", limit=10_000, with_vectors=True)[0]
        client.delete_collection(f"gen_{SPACE.generation}")
        client.create_collection(
            f"gen_{SPACE.generation}", models.VectorParams(size=DIMENSION, distance="Dot")
        )
        client.upsert(
            f"gen_{SPACE.generation}",
            [models.PointStruct(id=p.id, vector=p.vector, payload=p.payload) for p in points],
        )

    known = {
        "numpy": from_numpy,
        "lancedb": from_lance,
        "postgres": from_postgres,
        "qdrant": from_qdrant,
        MINE: from_memory,
    }
    return known.get(request.node.callspec.params["reopen"], from_a_plugin)


def test_what_is_not_there_is_said_so(store: VectorStore) -> None:
    with pytest.raises(StoreError, match="no generation 2026-a"):
        store.search(SPACE, asked(1), 3)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "a'; DROP TABLE x", "x" * 49, "ü"])
def test_a_generation_is_named_safely(store: VectorStore, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a generation"):
        Space(name, MODEL, DIMENSION)
    with pytest.raises(StoreError, match="cannot name a generation"):
        store.drop(name)


# -- writing -------------------------------------------------------------------------------------


def test_a_write_is_repeatable(full: VectorStore) -> None:
    full.write(SPACE, CORPUS)
    assert full.count(SPACE) == (200, len(CORPUS))
    same(full.search(SPACE, asked(), 10, exact=True), brute_force(SPACE, CORPUS, asked()), 10)


def test_a_write_replaces_documents_that_have_fewer_chunks_now(full: VectorStore) -> None:
    full.write(SPACE, rows_of({"d002": 1, "new": 2}, seed=5, version="2"))
    assert full.count(SPACE) == (201, len(CORPUS))  # d002 had three
    assert list(full.fetch(SPACE, ["d002"]).chunk_ids) == ["d002#0"]
    hashes = full.hashes(SPACE)
    assert hashes["d002"] == "hash d002 2"
    assert hashes["d001"] == "hash d001 1"
    assert len(hashes) == 201


def test_a_bad_batch_changes_nothing(full: VectorStore) -> None:
    rows = rows_of({"d001": 2})
    bad = [
        replace(rows, chunk_ids=["d001#0", "d001#0"]),
        replace(rows, texts=["one"]),
        replace(rows, vectors=asked(3)),
        replace(rows, vectors=Vectors(np.full((2, DIMENSION), np.nan, np.float32), MODEL)),
        replace(rows, vectors=Vectors(np.zeros((2, 5), np.float32), MODEL)),
    ]
    for one in bad:
        with pytest.raises(StoreError):
            full.write(SPACE, one)
    assert full.hashes(SPACE) == {f"d{i:03}": f"hash d{i:03} 1" for i in range(200)}
    assert full.count(SPACE) == (200, len(CORPUS))


def test_an_empty_batch_is_no_write(full: VectorStore) -> None:
    full.write(SPACE, rows_of([]))
    assert full.count(SPACE) == (200, len(CORPUS))


def test_deleted_documents_are_gone_from_every_answer(full: VectorStore, reopen: Open) -> None:
    best = full.search(SPACE, asked(1), 5)[0]
    gone = [doc_id for doc_id, _ in best]
    assert full.delete(SPACE, [*gone, gone[0], "never there"]) == 5
    assert full.delete(SPACE, gone) == 0
    assert full.delete(SPACE, []) == 0
    for one in (full, reopen()):
        assert not {doc_id for doc_id, _ in one.search(SPACE, asked(1), 200)[0]} & set(gone)
        assert one.count(SPACE)[0] == len(one.hashes(SPACE)) == 195
        assert len(one.fetch(SPACE, gone)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scan_returns_what_was_written(store: VectorStore, dtype: Dtype) -> None:
    space = replace(SPACE, dtype=dtype)
    if refused(store, space):
        return
    store.write(space, CORPUS)
    found = {}
    for rows in store.scan(space, size=30):
        assert rows.vectors.array.dtype == np.float32
        assert rows.vectors.fingerprint == MODEL
        columns = zip(
            rows.chunk_ids,
            rows.doc_ids,
            rows.texts,
            rows.metadata,
            rows.hashes,
            rows.vectors.array,
            strict=True,
        )
        found.update({row[0]: row[1:] for row in columns})
    assert len(found) == len(CORPUS)
    tolerance = {"float32": 0, "float16": 1e-3, "int8": 5e-3, "binary": 1}[dtype]
    columns = zip(
        CORPUS.chunk_ids,
        CORPUS.doc_ids,
        CORPUS.texts,
        CORPUS.metadata,
        CORPUS.hashes,
        CORPUS.vectors.array,
        strict=True,
    )
    for chunk_id, *rest, vector in columns:
        assert list(found[chunk_id][:-1]) == rest
        assert np.abs(found[chunk_id][-1] - vector).max() <= tolerance


def test_a_batch_of_a_scan_holds_whole_documents(full: VectorStore) -> None:
    seen: set[str] = set()
    for rows in full.scan(SPACE, size=7):
        assert not seen & set(rows.doc_ids)
        seen |= set(rows.doc_ids)
    assert len(seen) == 200


def test_ids_and_texts_of_any_kind_come_back(store: VectorStore) -> None:
    odd = [
        "a b",
        "a/b",
        "../up",
        "it's",
        'say "x"',
        "100%_",
        "東京 🦊",
        "\u00e9",
        "e\u0301",
        "x" * 300,
        "a\\b",
        "tab\there",
        "'; DROP TABLE t; --",
        "#",
        "null",
    ]
    rows = rows_of(
        dict.fromkeys(odd, 2),
        metadata=lambda doc_id: {
            "id": doc_id,
            doc_id: [doc_id, None, 1.5, True],
            "nested": {"a": None},
        },
    )
    store.create(SPACE)
    store.write(SPACE, rows)
    store.write(SPACE, rows)
    assert store.count(SPACE) == (len(odd), 2 * len(odd))
    assert set(store.hashes(SPACE)) == set(odd)
    fetched = store.fetch(SPACE, odd)
    assert dict(zip(fetched.chunk_ids, fetched.metadata, strict=True)) == dict(
        zip(rows.chunk_ids, rows.metadata, strict=True)
    )
    assert dict(zip(fetched.chunk_ids, fetched.texts, strict=True)) == dict(
        zip(rows.chunk_ids, rows.texts, strict=True)
    )
    same(store.search(SPACE, asked(), 20), brute_force(SPACE, rows, asked()), 20)
    for doc_id in odd:
        assert [hit for hit, _ in store.search(SPACE, asked(1), 5, filter={"id": doc_id})[0]] == [
            doc_id
        ]
        assert store.delete(SPACE, [doc_id]) == 1
    assert store.count(SPACE) == (0, 0)


UNUSUAL = [
    "a\0\0b",
    "\x1a",
    "\x1a0000 \x1anan \\u0000",
    "half \ud83d, other half \ude00",
    "line\r\nline\u2028\x0b\x1f",
    "\ufeff \ufffe \uffff \U0010ffff",
    " ",
    "",
]
UNUSUAL_METADATA: Metadata = {
    "texts": UNUSUAL,
    "key \0 \x1a \ud83d": {"\0": "\0"},
    "numbers": [float("inf"), float("-inf"), 1e308, 5e-324, 1e16, -1e23, 2**70, -0.0, 0.1],
    "nan": float("nan"),
    "marks": ["\x1anan", "\x1ainf", "\x1a1e+16"],
    "none": [None, True, False, [], {}],
}


def test_every_text_and_all_metadata_come_back_as_they_were(store: VectorStore) -> None:
    rows = rows_of({"a": len(UNUSUAL)}, metadata=lambda _: UNUSUAL_METADATA)
    rows = replace(rows, texts=UNUSUAL)
    store.create(SPACE)
    store.write(SPACE, rows)
    fetched = store.fetch(SPACE, ["a"])
    texts = dict(zip(fetched.chunk_ids, fetched.texts, strict=True))
    assert texts == dict(zip(rows.chunk_ids, UNUSUAL, strict=True))
    assert all(storable.same_metadata(stored, UNUSUAL_METADATA) for stored in fetched.metadata)
    for text in UNUSUAL[:4]:
        assert [hit for hit, _ in store.search(SPACE, asked(1), 5, filter={"texts": text})[0]] == [
            "a"
        ]


@pytest.mark.parametrize(
    ("given", "other"),
    [
        ({"a": "x\0"}, {"a": "x\ufffd"}),
        ({"a": "\x1anan"}, {"a": float("nan")}),
        ({"a": 1}, {"a": "1"}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": None}, {}),
    ],
)
def test_metadata_that_came_back_changed_is_not_the_same(given: Metadata, other: Metadata) -> None:
    assert storable.same_metadata(given, given)
    assert not storable.same_metadata(given, other)


@pytest.mark.parametrize("doc_id", ["id\0", "half \ud83d", "x" * 2_049, "京" * 700])
def test_an_id_that_not_every_store_can_hold_is_refused_by_name(
    store: VectorStore, doc_id: str
) -> None:
    store.create(SPACE)
    with pytest.raises(StoreError, match="cannot be stored: its id") as refused:
        store.write(SPACE, rows_of(["good", doc_id]))
    assert ascii(doc_id)[:40] in refused.value.what
    assert store.count(SPACE) == (0, 0)
    longest = "x" * storable.LONGEST_ID
    store.write(SPACE, rows_of([longest]))
    assert store.fetch(SPACE, [longest]).doc_ids == [longest]


# -- search --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "dimension"), [*((dtype, DIMENSION) for dtype in DTYPES), ("float32", 8), ("int8", 8)]
)
def test_exact_search_equals_brute_force(store: VectorStore, dtype: Dtype, dimension: int) -> None:
    space = replace(SPACE, dtype=dtype, dimension=dimension)
    if refused(store, space):
        return
    store.write(space, CORPUS)
    expected = brute_force(space, CORPUS, asked(70))
    for k in (3, 500):
        same(store.search(space, asked(70), k, exact=True), expected, k)
        same(store.search(space, Vectors(asked(70).array[:1], MODEL), k), expected[:1], k)


def test_equal_scores_stand_in_canonical_order_and_none_is_lost(store: VectorStore) -> None:
    one = unit(np.random.default_rng(3).normal(size=(1, DIMENSION)))
    rows = rows_of([f"t{i:03}" for i in range(150)], vectors=np.repeat(one, 150, axis=0))
    store.create(SPACE)
    store.write(SPACE, rows)
    store.write(SPACE, rows_of(["best"], vectors=asked(1).array))
    found = store.search(SPACE, asked(1), 4, exact=True)[0]
    assert [doc_id for doc_id, _ in found] == ["best", "t149", "t148", "t147"]


def test_a_document_of_many_good_chunks_is_one_result(store: VectorStore) -> None:
    near = unit(asked(1).array + 0.01 * np.random.default_rng(3).normal(size=(300, DIMENSION)))
    store.create(SPACE)
    store.write(SPACE, rows_of({"long": 300}, vectors=near))
    store.write(SPACE, CORPUS)
    found = store.search(SPACE, asked(1), 10)[0]
    assert found[0][0] == "long"
    assert len(found) == len(dict(found)) == 10
    same([found[1:]], brute_force(SPACE, CORPUS, asked(1)), 9)


def test_vectors_that_are_not_of_length_one_are_brought_there_for_cosine(
    store: VectorStore,
) -> None:
    store.create(SPACE)
    store.write(SPACE, replace(CORPUS, vectors=Vectors(CORPUS.vectors.array * 7, MODEL)))
    same(
        store.search(SPACE, Vectors(asked().array * 3, MODEL), 10),
        brute_force(SPACE, CORPUS, asked()),
        10,
    )


def test_inner_products_rank_a_dot_model(store: VectorStore) -> None:
    model = replace(MODEL, similarity="dot")
    space = replace(SPACE, fingerprint=model)
    lengths = np.linspace(0.5, 3, len(CORPUS))[:, None].astype(np.float32)
    rows = replace(CORPUS, vectors=Vectors(CORPUS.vectors.array * lengths, model))
    store.create(space)
    store.write(space, rows)
    queries = asked(fingerprint=model)
    same(store.search(space, queries, 10), brute_force(space, rows, queries), 10)


def test_an_empty_generation_answers_with_nothing(store: VectorStore) -> None:
    store.create(SPACE)
    assert store.search(SPACE, asked(2), 10) == [[], []]
    assert store.search(SPACE, Vectors(np.zeros((0, DIMENSION), np.float32), MODEL), 10) == []
    assert store.hashes(SPACE) == {}
    assert store.count(SPACE) == (0, 0)
    assert list(store.scan(SPACE)) == []
    assert store.build_index(SPACE)["kind"] == "exact"


def test_no_results_are_asked_for(full: VectorStore) -> None:
    assert full.search(SPACE, asked(2), 0) == [[], []]


# -- filters -------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    *(
        "Java",
        "java",
        "C++",
        "it's",
        'say "x"',
        "' OR 1=1 --",
        "%",
        "_",
        "\\",
        "東京",
        "STRASSE",
        "straße",
        "",
        "null",
        "x" * 3000,
    ),
    *(5, 5.0, "5", "5.0", "5.50", 5.5, -1, "1.10", 1.1, 10**20, True, "true", False, 0),
    *(None, ["Java", 5], ["C++", None, "5"], [], [[1, "nested"]], {"a": 1}),
)


@pytest.fixture(scope="module")
def varied() -> Rows:
    """A document for each value, in one field and under a name that needs quoting."""
    counts = {f"v{i:02}": 1 + i % 2 for i in range(len(VALUES))}
    return rows_of(
        counts, metadata=lambda d: {"f": VALUES[int(d[1:])], "a \"b'; --": d} if d != "v03" else {}
    )


def test_filters_keep_what_matches_keeps(store: VectorStore, varied: Rows) -> None:
    store.create(SPACE)
    store.write(SPACE, varied)
    asked_for: list[Metadata] = [{"f": value} for value in VALUES]
    asked_for += [{"f": [a, b]} for a, b in zip(VALUES, VALUES[3:], strict=False)]
    asked_for += [
        {"absent": 1},
        {},
        {"a \"b'; --": ["V01", "v02"], "f": "java"},
        {"f": "Java", "absent": None},
    ]
    kept = []
    for wanted in asked_for:
        expected = brute_force(
            SPACE, varied, asked(2), lambda metadata, wanted=wanted: matches(wanted, metadata)
        )
        same(store.search(SPACE, asked(2), 100, filter=wanted), expected, 100)
        kept.append(len(expected[0]))
    assert min(kept) == 0 < sorted(kept)[len(kept) // 2] < max(kept) == len(VALUES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_narrow_filter_loses_no_document(
    store: VectorStore, dtype: Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching.IndexedStore, "exact_below", 1000)
    space = replace(SPACE, dtype=dtype)
    if refused(store, space):
        return
    rows = rows_of(
        [f"d{i:04}" for i in range(3000)],
        metadata=lambda d: {"tenant": int(d[1:]) // 3, "even": int(d[1:]) % 2 == 0},
    )
    store.write(space, rows)
    store.build_index(space)
    for tenant in (0, 999):  # one in a thousand
        wanted = {"tenant": str(tenant), "even": [True, False]}
        expected = brute_force(
            space, rows, asked(2), lambda metadata, wanted=wanted: matches(wanted, metadata)
        )
        assert len(expected[0]) == 3
        same(store.search(space, asked(2), 50, filter=wanted), expected, 50)


# -- the approximate index -----------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "int8", "binary"])
def test_an_index_is_tuned_to_find_what_exact_search_finds(
    store: VectorStore, dtype: Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching.IndexedStore, "exact_below", 1000)
    space = Space("wide", WIDE_MODEL, WIDE, dtype)
    vectors, queries = alike(2250, seed=5), Vectors(alike(50, seed=6), WIDE_MODEL)
    nearest = np.argsort(-(vectors @ queries.array.T).max(axis=1))
    rows = rows_of(
        {f"d{i:04}": 1 + i % 2 for i in range(1500)}, vectors=vectors, fingerprint=WIDE_MODEL
    )
    close = {rows.doc_ids[i] for i in nearest[:500]}
    rows = replace(rows, metadata=[{"far": doc_id not in close} for doc_id in rows.doc_ids])
    if refused(store, space):
        return
    store.write(space, rows)
    made = store.build_index(space)
    if store.kind not in INDEXED:
        assert made == {"kind": "exact"}
    else:
        assert made["recall@10"] >= searching.GOOD_RECALL
    exact = store.search(space, queries, 10, exact=True)
    same(exact, brute_force(space, rows, queries), 10)
    found = store.search(space, queries, 10)
    assert (
        np.mean(
            [len(dict(a).keys() & dict(b).keys()) / 10 for a, b in zip(found, exact, strict=True)]
        )
        >= 0.95
    )
    # a filter that leaves enough for the index, but nothing near the queries
    wide = {"far": True}
    assert sum(metadata["far"] for metadata in rows.metadata) > 1000
    wanted = store.search(space, queries, 10, filter=wide, exact=True)
    same(wanted, brute_force(space, rows, queries, lambda metadata: matches(wide, metadata)), 10)
    found = store.search(space, queries, 10, filter=wide)
    assert (
        np.mean(
            [len(dict(a).keys() & dict(b).keys()) / 10 for a, b in zip(found, wanted, strict=True)]
        )
        >= 0.95
    )
    # what is written later is found, what is deleted is not
    fresh = Vectors(queries.array[:1], WIDE_MODEL)
    store.write(space, replace(rows_of(["fresh"], fingerprint=WIDE_MODEL), vectors=fresh))
    store.delete(space, [exact[1][0][0]])
    first, second = store.search(space, Vectors(queries.array[:2], WIDE_MODEL), 5)
    assert first[0][0] == "fresh"
    assert exact[1][0][0] not in dict(second)
    assert store.build_index(space)["kind"] == made["kind"]


def test_tuning_raises_the_effort_where_the_first_partitions_are_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching.IndexedStore, "exact_below", 1000)
    store, space = LanceStore(tmp_path), Space("wide", WIDE_MODEL, WIDE)
    rows = rows_of(
        [f"d{i}" for i in range(2000)], fingerprint=WIDE_MODEL
    )  # no structure: neighbours are in every partition
    store.create(space)
    store.write(space, rows)
    made = store.build_index(space)
    queries = asked(50, fingerprint=WIDE_MODEL)
    exact = store.search(space, queries, 10, exact=True)
    recall = {
        name: np.mean(
            [len(dict(a).keys() & dict(b).keys()) / 10 for a, b in zip(found, exact, strict=True)]
        )
        for name, found in {
            "first": store._gather(space, queries.array, 10, [], 0),
            "tuned": store.search(space, queries, 10),
        }.items()
    }
    assert made["effort"] > 0
    assert recall["first"] < 0.8
    assert recall["tuned"] >= 0.98


# -- words ---------------------------------------------------------------------------------------


def test_words_find_documents_where_the_store_has_full_text(store: VectorStore) -> None:
    store.create(SPACE)
    texts = {
        "fox": "the quick brown fox",
        "dog": "a lazy dog and a quick cat",
        "code": "error 0x80070005 in C:\\Windows: it's denied",
        "han": "请更换净水器的滤芯",
        "thai": "เปลี่ยนไส้กรองน้ำ",
    }
    rows = rows_of(dict.fromkeys(texts, 2), metadata=lambda doc_id: {"kind": doc_id})
    store.write(SPACE, replace(rows, texts=[texts[doc_id] for doc_id in rows.doc_ids]))
    if store.kind not in WORDED:
        with pytest.raises(StoreError, match="no full-text search"):
            store.text_search(SPACE, "fox", 3)
        return
    assert [doc_id for doc_id, _ in store.text_search(SPACE, "Fox", 3)] == ["fox"]
    assert {doc_id for doc_id, _ in store.text_search(SPACE, "quick dog", 3)} == {"dog", "fox"}
    assert store.text_search(SPACE, "quick dog", 3)[0][0] == "dog"
    assert [
        doc_id for doc_id, _ in store.text_search(SPACE, "quick", 3, filter={"kind": "FOX"})
    ] == ["fox"]
    assert [doc_id for doc_id, _ in store.text_search(SPACE, "what is 0x80070005?", 3)] == ["code"]
    assert [doc_id for doc_id, _ in store.text_search(SPACE, "滤芯", 3)] == ["han"]
    assert [doc_id for doc_id, _ in store.text_search(SPACE, "ไส้กรอง", 3)] == ["thai"]
    for odd in ("", "  ", "'\"", "& | ! ( ) : *", "it's", "a <-> b"):
        assert len(store.text_search(SPACE, odd, 3)) <= 3
    assert store.text_search(SPACE, "absent", 3) == store.text_search(SPACE, "fox", 0) == []
    store.delete(SPACE, ["fox"])
    assert store.text_search(SPACE, "fox", 3) == []


# -- vectors that exist already ------------------------------------------------------------------


class Spelling:
    """An encoder that is quick and depends on every word."""

    fingerprint, similarity = MODEL, "cosine"

    def encode(self, texts: Sequence[str], kind: str) -> np.ndarray:
        return np.stack(
            [
                unit(np.random.default_rng(zlib.crc32(text.encode())).normal(size=(1, DIMENSION)))[
                    0
                ]
                for text in texts
            ]
        )


def test_existing_vectors_are_adopted_when_the_declared_model_reproduces_them(
    store: VectorStore,
) -> None:
    batches = [rows_of([f"{name}{i}" for i in range(20)]) for name in "abc"]
    made = [
        replace(rows, vectors=Vectors(3 * Spelling().encode(rows.texts, "document"), MODEL))
        for rows in batches
    ]
    assert adopt(store, SPACE, iter(made), Spelling()) == 60
    assert store.count(SPACE) == (60, 60)
    query = Vectors(Spelling().encode(["text 0 of b7"], "query"), MODEL)
    assert store.search(SPACE, query, 1)[0] == [("b7", 1.0)]
    with pytest.raises(
        FingerprintError, match=r"'a\d+#0' is not what this model gives for its text \(cosine"
    ):
        adopt(store, SPACE, iter(batches), Spelling())
    with pytest.raises(FingerprintError, match="weights"):
        adopt(
            store,
            SPACE,
            [replace(made[0], vectors=Vectors(made[0].vectors.array, OTHER))],
            Spelling(),
        )
    assert store.count(SPACE) == (60, 60)


def test_nothing_is_made_of_vectors_whose_first_batch_is_refused(store: VectorStore) -> None:
    with pytest.raises(FingerprintError):
        adopt(store, SPACE, [rows_of(["a", "b"])], Spelling())
    assert store.spaces() == []


# -- what is Qdrant's own ------------------------------------------------------------------------


def test_qdrant_keeps_its_collections_and_alias_on_disk(tmp_path: Path) -> None:
    store = QdrantStore(str(tmp_path / "q"))
    store.create(SPACE)
    rows = rows_of({"a": 2, "b": 1})
    store.write(SPACE, rows)
    store.activate(SPACE.generation)
    with pytest.raises(StoreError, match="already accessed"):
        QdrantStore(str(tmp_path / "q")).spaces()
    store._client.close()
    again = QdrantStore(str(tmp_path / "q"))
    assert again.spaces() == [SPACE]
    assert again.active() == SPACE.generation
    same(again.search(SPACE, asked(), 5), brute_force(SPACE, rows, asked()), 5)
    again._client.close()


def test_qdrant_shows_a_write_that_died_between_new_and_old_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    store = QdrantStore("memory", client)
    store.create(SPACE)
    store.write(SPACE, rows_of({"a": 3, "b": 1}))
    whole = client.batch_update_points
    monkeypatch.setattr(
        client,
        "batch_update_points",
        lambda name, operations, wait: whole(name, operations[:1], wait=wait),
    )
    store.write(SPACE, rows_of({"a": 1}, version="2"))
    assert store.hashes(SPACE) == {"a": "", "b": "hash b 1"}
    monkeypatch.undo()
    store.write(SPACE, rows_of({"a": 1}, version="2"))
    assert store.hashes(SPACE) == {"a": "hash a 2", "b": "hash b 1"}
    assert store.count(SPACE) == (2, 2)


# -- two writers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "lancedb"])
def test_a_second_writer_waits_then_says_that_another_writes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lock = (
        STORES[kind](tmp_path),
        {"numpy": f"{SPACE.generation}/.lock", "lancedb": f".{SPACE.generation}.lock"}[kind],
    )
    store.create(SPACE)
    monkeypatch.setattr(
        sys.modules[type(store).__module__], "locked", partial(files.locked, patience=0.05)
    )
    with files.locked(tmp_path / lock):
        for attempt in (
            lambda: store.write(SPACE, rows_of(["a"])),
            lambda: store.delete(SPACE, ["a"]),
        ):
            with pytest.raises(BusyError, match="another process is writing"):
                attempt()
        assert store.count(SPACE) == (0, 0)  # readers go on
    store.write(SPACE, rows_of(["a"]))
    assert store.count(SPACE) == (1, 1)


@pytest.mark.parametrize("kind", ["numpy", "lancedb"])
def test_writers_and_readers_at_once_lose_and_double_nothing(kind: str, tmp_path: Path) -> None:
    STORES[kind](tmp_path).create(SPACE)

    def work(worker: int) -> None:
        store = STORES[kind](tmp_path)
        for turn in range(5):
            store.write(
                SPACE, rows_of({"shared": 1 + worker % 2, f"own {worker} {turn}": 1}, seed=worker)
            )
            assert {"shared", f"own {worker} {turn}"} <= dict(
                store.search(SPACE, asked(1), 50)[0]
            ).keys()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    store = STORES[kind](tmp_path)
    assert store.count(SPACE)[0] == 21
    assert len(store.fetch(SPACE, ["shared"])) in (1, 2)
    assert sum(len(rows) for rows in store.scan(SPACE)) == store.count(SPACE)[1]


# -- kills ---------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from test_contract_stores import SPACE, STORES, rows_of
store = STORES[sys.argv[1]](Path(sys.argv[2]))
store.create(SPACE)
for version in range(int(sys.argv[3]), 10_000):
    store.write(SPACE, rows_of({f"d{i}": 1 + (version + i) % 3 for i in range(20)}, version=str(version)))
    store.delete(SPACE, ["d0", "d1"])
    print(version, flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["numpy", "lancedb"])
def test_a_killed_writer_leaves_the_old_state_or_the_new_one(kind: str, tmp_path: Path) -> None:
    version, states = 0, set()
    for turn in range(int(os.environ.get("NEARER_KILLS", "2"))):
        command = [sys.executable, "-c", WRITER, kind, str(tmp_path), str(version)]
        with subprocess.Popen(
            command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            version = int(writer.stdout.readline())
            time.sleep(np.random.default_rng(turn).uniform(0, 0.1))
            writer.kill()
            version = max([version, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        store = STORES[kind](tmp_path)
        hashes = store.hashes(SPACE)
        (last,) = {content.split()[-1] for content in hashes.values()}
        assert int(last) in (version, version + 1)
        assert set(hashes) in ({f"d{i}" for i in range(20)}, {f"d{i}" for i in range(2, 20)})
        chunks = {
            f"d{i}#{j}"
            for i in range(20)
            for j in range(1 + (int(last) + i) % 3)
            if f"d{i}" in hashes
        }
        assert sorted(store.fetch(SPACE, sorted(hashes)).chunk_ids) == sorted(chunks)
        states.add((int(last) - version, len(hashes)))
        version = int(last) + 1
    assert states <= {(0, 18), (1, 20), (1, 18)}


# -- the life of a store -------------------------------------------------------------------------


def test_another_handle_sees_what_this_one_writes(full: VectorStore, reopen: Open) -> None:
    other = reopen()
    assert other.spaces() == [SPACE]
    assert other.count(SPACE) == (200, len(CORPUS))
    full.write(SPACE, rows_of(["fresh"], vectors=asked(1).array))
    assert other.search(SPACE, asked(1), 1)[0][0][0] == "fresh"
    other.delete(SPACE, ["fresh"])
    assert full.search(SPACE, asked(1), 1)[0][0][0] != "fresh"


def test_generations_stand_side_by_side(full: VectorStore) -> None:
    tuned = Space("2026-b", OTHER, DIMENSION, "float16")
    full.create(tuned)
    full.write(tuned, rows_of(["only"], fingerprint=OTHER))
    assert {space.generation: space for space in full.spaces()} == {
        "2026-a": SPACE,
        "2026-b": tuned,
    }
    assert full.search(tuned, asked(1, fingerprint=OTHER), 5)[0][0][0] == "only"
    full.drop("2026-b")
    full.drop("2026-b")
    assert full.spaces() == [SPACE]
    assert full.count(SPACE) == (200, len(CORPUS))


def test_a_dropped_generation_can_be_made_anew_by_another_model(
    full: VectorStore, reopen: Open
) -> None:
    other = reopen()
    assert other.count(SPACE)[0] == 200
    full.drop(SPACE.generation)
    with pytest.raises(StoreError, match="no generation"):
        other.count(SPACE)
    tuned = replace(SPACE, fingerprint=OTHER)
    full.create(tuned)
    with pytest.raises(FingerprintError, match="weights"):
        other.search(SPACE, asked(1), 1)
    assert other.count(tuned) == (0, 0)


def test_lancedb_writes_nothing_of_its_own_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "import sys; from nearer.live.stores.lance import LanceStore; "
        "store = LanceStore(sys.argv[1]); store.activate('a'); store.activate('b'); "
        "print(store.active())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LANCEDB_LOG"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert (done.stdout, done.stderr) == ("b\n", "")


def test_the_pointer_moves_and_is_seen_by_other_handles(full: VectorStore, reopen: Open) -> None:
    other = reopen()
    assert other.active() is None
    full.activate("2026-a")
    assert other.active() == "2026-a"
    full.create(Space("2026-b", OTHER, DIMENSION))
    other.activate("2026-b")
    assert full.active() == "2026-b"
    full.activate(None)
    assert other.active() is None
    assert [space.generation for space in full.spaces()] == ["2026-a", "2026-b"]
