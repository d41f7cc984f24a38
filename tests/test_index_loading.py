"""A table that is filled in one step holds what part by part gives; a kill in the middle leaves none of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generations_kit import World, documents, static_model
from nearer.embed.compress import Dtype
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError, StoreError
from nearer.live.index.build import build
from nearer.live.index.reader import open_active
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify
from nearer.live.stores.base import BulkStore, Rows, Space
from nearer.live.stores.lance import LanceStore
from test_contract_stores import DTYPES, MODEL, OTHER, SPACE, asked, rows_of
from test_index_crash import KILLED, Drive, drive

__all__ = ["drive"]

PARTS = [{f"d{part}{i}": 1 + i % 3 for i in range(6)} for part in range(4)]


def batches() -> Iterator[Rows]:
    for number, part in enumerate(PARTS):
        yield rows_of(part, seed=number)


def content(store: LanceStore, space: Space) -> list[Any]:
    rows = []
    for some in store.scan(space):
        columns = (some.chunk_ids, some.doc_ids, some.texts, some.metadata, some.hashes)
        vectors = [tuple(row) for row in some.vectors.array.tolist()]
        rows += list(zip(*columns, vectors, strict=True))
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_step_and_part_by_part_give_the_same_table(tmp_path: Path, dtype: Dtype) -> None:
    space = replace(SPACE, dtype=dtype)
    whole, parts = LanceStore(tmp_path / "whole"), LanceStore(tmp_path / "parts")
    assert isinstance(whole, BulkStore)
    for store in (whole, parts):
        store.create(space)
    whole.load(space, batches())
    for rows in batches():
        parts.write(space, rows)
    for store in (whole, parts):
        assert store.build_index(space) == {"kind": "exact"}
    assert whole.count(space) == parts.count(space) == (24, 48)
    assert content(whole, space) == content(parts, space)
    assert whole.hashes(space) == parts.hashes(space)
    for given in ({}, {"filter": {"doc": ["d11", "d23"]}}, {"exact": True}):
        assert whole.search(space, asked(), 9, **given) == parts.search(space, asked(), 9, **given)
    assert whole.text_search(space, "text 1 of d12", 1)[0][0] == "d12"


def test_what_is_written_later_replaces_and_is_found(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    store.create(SPACE)
    store.load(SPACE, batches())
    changed = rows_of({"d12": 1, "new": 2}, seed=9, version="2")
    store.write(SPACE, changed)
    assert store.count(SPACE) == (25, 48 - 3 + 1 + 2)
    assert store.hashes(SPACE)["d12"] == "hash d12 2"
    query = Vectors(changed.vectors.array[:1], MODEL)
    assert store.search(SPACE, query, 1)[0][0][0] == "d12"
    assert store.text_search(SPACE, "new", 1)[0][0] == "new"


def test_a_table_with_rows_is_not_loaded_over(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    store.create(SPACE)
    store.write(SPACE, rows_of(["a"]))
    with pytest.raises(StoreError, match="not empty"):
        store.load(SPACE, batches())
    assert store.count(SPACE) == (1, 1)


def files_of(store: LanceStore) -> list[Path]:
    """What holds rows, also where no version of the table says so."""
    return list(Path(store.address).rglob("data/*.lance"))


@pytest.mark.parametrize("failing", ["foreign vectors", "damaged part"])
def test_what_stops_the_batches_is_raised_as_it_was_and_leaves_an_empty_table(
    failing: str, tmp_path: Path
) -> None:
    store = LanceStore(tmp_path)
    store.create(SPACE)

    def spoiled() -> Iterator[Rows]:
        yield from batches()
        if failing == "damaged part":
            raise StoreError("this part is damaged", where="x.arrow", next_step="delete x.arrow")
        yield rows_of(["x"], fingerprint=OTHER)

    match = "weights" if failing == "foreign vectors" else "this part is damaged"
    kind = FingerprintError if failing == "foreign vectors" else StoreError
    with pytest.raises(kind, match=match) as refusal:
        store.load(SPACE, spoiled())
    assert refusal.value.next_step
    assert store.count(SPACE) == (0, 0)
    store.load(SPACE, batches())
    assert store.count(SPACE) == (24, 48)
    assert len(files_of(store)) == 1


def test_an_empty_load_leaves_an_empty_table_with_its_identity(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    store.create(SPACE)
    store.load(SPACE, iter([rows_of([])]))
    assert store.count(SPACE) == (0, 0)
    assert store.spaces() == [SPACE]


# -- builds --------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    model = static_model(tmp_path / "model", seed=1)
    return World(tmp_path / "project", model, store="lancedb").write(documents(range(60)))


def test_a_build_writes_its_table_in_one_step_and_sync_appends(world: World) -> None:
    generations = world.generations
    made = build(generations, world.corpus, world.encoder(), "today", today=True)
    assert (made.embedded, made.loaded) == (60, 0)
    store = generations.store_of(made.manifest)
    assert len(files_of(store)) == 1  # type: ignore[arg-type]  # eight parts, one fragment
    assert world.texts(made.manifest.id) == world.expected()
    world.write([*documents(range(5), version=2), *documents(range(5, 70))])
    (synced,) = sync(world.generations, world.corpus)
    assert (synced.embedded, synced.loaded, synced.deleted) == (15, 0, 0)
    assert world.texts(made.manifest.id) == world.expected()
    assert verify(world.generations, made.manifest.id, world.corpus, full=True).state == "verified"


@pytest.mark.long
def test_kills_while_a_table_is_loaded_cost_nothing_that_was_embedded(
    drive: Drive, world: World, tmp_path: Path
) -> None:
    """Another generation answers meanwhile; the half-written table is thrown away and loaded anew."""
    order = f"build {tmp_path / 'other'}"
    static_model(tmp_path / "other", seed=2)
    assert drive(world, order.replace("other", "model"))["error"] is None
    (active,) = (one.id for one in world.generations.manifests())
    assert drive(world, f"verify {active}")["error"] is None
    assert drive(world, f"cutover {active}")["error"] is None
    for part in (1, 4, 8, 2):
        assert drive(world, order, kill_at_part=part)["signal"] == KILLED
    rng = np.random.default_rng(3)
    for _ in range(3):
        assert drive(world, order, kill_after=rng.uniform(0.2, 1.0))["signal"] in (KILLED, None)
    assert open_active(world.root).search("pump 1").generation == active
    filled = build(
        world.generations, world.corpus, world.encoder(tmp_path / "other"), "other", today=False
    )
    assert filled.embedded == 0
    new = filled.manifest.id
    assert world.texts(new) == world.expected()
    assert world.texts(active) == world.expected()
    assert verify(world.generations, new, world.corpus, full=True).state == "verified"
    kept = world.root / "vectors" / f"gen_{new}.lance"
    assert len(list(kept.rglob("data/*.lance"))) == 1
