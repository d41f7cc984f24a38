"""Generations: built once, verified before use, cut over and rolled back at once, kept fresh, never needed ones dropped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from generations_kit import Counting, World, documents, static_model
from nearer.cli import app
from nearer.config import build as build_config
from nearer.data.corpus import Corpus
from nearer.data.splits import write_split
from nearer.decision.sign_off import signed
from nearer.embed.fingerprint import Vectors
from nearer.errors import BusyError, StoreError
from nearer.live.index import sync as syncing
from nearer.live.index.build import build, estimate
from nearer.live.index.generations import Generations, Manifest
from nearer.live.index.reader import Reader, open_active, rehearse
from nearer.live.index.sync import sync, watch
from nearer.live.index.verify import _some_filters, canary_queries, verify
from nearer.live.stores.base import Rows
from nearer.live.stores.numpy_store import NumpyStore
from nearer.live.stores.storable import require_document
from nearer.types import Document, Query, Split


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Today's model and another one of the same dimension."""
    folder = tmp_path_factory.mktemp("static")
    return static_model(folder / "today", seed=1), static_model(folder / "tuned", seed=2)


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    return World(tmp_path / "project", models[0]).write(documents(range(40)))


def make(world: World, model: Path | None = None, *, verified: bool = True) -> str:
    """Build and verify a generation; returns its id."""
    encoder = world.encoder(model)
    generation = build(
        world.generations, world.corpus, encoder, str(model or "today"), today=model is None
    ).manifest.id
    if verified:
        assert verify(world.generations, generation, world.corpus, encoder=encoder).state in (
            "verified",
            "active",
        )
    return generation


def failed(manifest: Manifest) -> set[str]:
    assert manifest.verified is not None
    return {check["check"] for check in manifest.verified["checks"] if not check["passed"]}


# -- build ---------------------------------------------------------------------------------------


def test_a_store_of_the_users_own_holds_a_generation(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    world = World(tmp_path / "w", models[0], store="memory_store:MemoryStore")
    world.write(documents(range(20)))
    generation = make(world)
    generations = world.generations
    manifest = generations.manifest(generation)
    assert manifest.store == "memory_store:MemoryStore"
    assert manifest.namespace, "a place that others may use has a namespace per project"
    assert world.texts(generation) == world.expected()
    assert generations.cutover(generation).id == generation
    assert generations.open(generation).search("pump 3 version 1", 5, exact=True)[0]


def test_a_build_holds_every_document_once_and_says_what_it_is_made_of(world: World) -> None:
    generation = make(world, verified=False)
    manifest = world.generations.manifest(generation)
    assert world.texts(generation) == world.expected()
    assert (manifest.state, manifest.counts, manifest.chunker) == (
        "building",
        {"documents": 40, "chunks": 40},
        "document",
    )
    stored = json.loads((world.root / "generations" / generation / "manifest.json").read_text())
    assert {
        "fingerprint",
        "counts",
        "content",
        "state",
        "decision",
        "model",
        "chunker",
        "dtype",
        "dimension",
        "store",
    } <= set(stored)
    assert len(list((world.root / "generations" / generation / "parts").glob("*.arrow"))) == 5


@pytest.mark.parametrize("survivors", [0, 8, 24])
def test_an_interrupted_build_goes_on_without_embedding_a_finished_part_again(
    world: World, survivors: int
) -> None:
    stopped = Counting(world.encoder(), fail_after=survivors)
    with pytest.raises(KeyboardInterrupt):
        build(world.generations, world.corpus, stopped, "today", today=True)
    again = Counting(world.encoder())
    resumed = build(world.generations, world.corpus, again, "today", today=True)
    assert len(again.texts) == 40 - survivors
    assert sorted([*stopped.texts, *again.texts]) == sorted(one.content for one in world.corpus)
    assert world.texts(resumed.manifest.id) == world.expected()


def test_parts_depend_on_the_documents_and_the_model_alone(
    world: World, tmp_path: Path, models: tuple[Path, Path]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(
            world.generations,
            world.corpus,
            Counting(world.encoder(), fail_after=16),
            "today",
            today=True,
        )
    resumed = make(world)
    other = World(tmp_path / "other", models[0]).write(documents(range(40)))
    whole = make(other)
    parts = [
        {p.name: p.read_bytes() for p in (w.root / "generations" / g / "parts").iterdir()}
        for w, g in ((world, resumed), (other, whole))
    ]
    assert parts[0] == parts[1]


def test_a_part_that_never_reached_the_store_is_loaded_not_embedded(world: World) -> None:
    generation = make(world)
    generations = world.generations
    manifest = generations.manifest(generation)
    generations.store("numpy").delete(manifest.space, ["d3", "d30"])
    again = Counting(world.encoder())
    filled = build(world.generations, world.corpus, again, "today", today=True)
    assert (filled.embedded, filled.loaded, again.texts) == (0, 2, [])
    assert world.texts(generation) == world.expected()


def test_documents_that_change_while_a_build_is_down_are_right_in_the_end(world: World) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(
            world.generations,
            world.corpus,
            Counting(world.encoder(), fail_after=24),
            "today",
            today=True,
        )
    world.write([*documents([50, 3], version=2), *documents(range(5, 40))])
    for lost in range(2):
        with pytest.raises(KeyboardInterrupt):
            build(
                world.generations,
                world.corpus,
                Counting(world.encoder(), fail_after=8 * lost),
                "today",
                today=True,
            )
    world.write([*documents([0, 3, 50], version=3), *documents(range(4, 40))])
    generation = make(world)
    assert world.texts(generation) == world.expected()


def test_the_same_model_is_brought_up_to_date_and_another_one_begins_its_own(
    world: World, models: tuple[Path, Path]
) -> None:
    first = make(world, verified=False)
    assert make(world, verified=False) == first
    forced = build(
        world.generations, world.corpus, world.encoder(), "today", today=True, force=True
    ).manifest.id
    assert forced == first.replace("-1", "-2")
    assert make(world, models[1], verified=False).split("-")[0] != first.split("-")[0]


def test_an_id_is_never_used_twice(world: World) -> None:
    first = make(world)
    world.generations.drop(first)
    assert make(world) != first


def test_an_estimate_counts_and_writes_nothing(world: World) -> None:
    figures = estimate(world.corpus, world.encoder(), world.config, world.root)
    assert (figures["documents"], figures["chunks"]) == (40, 40)
    assert figures["tokens"] > 40
    assert figures["bytes"] > 40 * 32 * 8
    assert not (world.root / "generations").exists()


@pytest.mark.parametrize(
    ("dtype", "dimension"), [("float16", None), ("int8", 24), ("binary", 16), ("float32", 8)]
)
def test_compressed_and_cut_vectors_are_built_and_verified(
    tmp_path: Path, models: tuple[Path, Path], dtype: str, dimension: int | None
) -> None:
    world = World(tmp_path, models[0], dtype=dtype, dimension=dimension).write(documents(range(40)))
    manifest = world.generations.manifest(make(world))
    assert (manifest.state, manifest.dtype, manifest.dimension) == (
        "verified",
        dtype,
        dimension or 32,
    )


def test_chunks_belong_to_their_document(tmp_path: Path, models: tuple[Path, Path]) -> None:
    world = World(tmp_path, models[0], chunker="sentences:8")
    lines = documents(range(20))
    for line in lines:
        line["text"] = (
            "The pump makes noise. " * 2
            + f"Oil leaks at valve {line['_id'][1:]}. Reset the sensor now."
        )
    world.write(lines)
    generation = make(world)
    manifest = world.generations.manifest(generation)
    assert (manifest.chunker, manifest.fingerprint.chunker) == ("sentences:8", "sentences:8")
    assert manifest.counts["chunks"] > 2 * manifest.counts["documents"]
    world.generations.cutover(generation)
    (hits,) = open_active(world.root).search("valve 7 leaks", 20).results
    assert len({doc_id for doc_id, _ in hits}) == len(hits) == 20
    world.write([*documents([0], version=2), *lines[1:]])  # shorter by some chunks
    sync(world.generations, world.corpus)
    held = world.texts(generation)
    assert len(held["d0"]) < len(held["d1"])
    assert "version 2" in " ".join(held["d0"])
    assert verify(world.generations, generation, world.corpus).state == "active"


def test_parts_may_be_deleted_once_the_store_holds_everything(world: World) -> None:
    generation = make(world)
    shutil.rmtree(world.root / "generations" / generation / "parts")
    world.write([*documents(range(38)), *documents([39], version=2)])
    (filled,) = sync(world.generations, world.corpus)
    assert (filled.embedded, filled.loaded, filled.deleted) == (1, 0, 1)
    assert world.texts(generation) == world.expected()


def test_memory_does_not_grow_with_texts_and_vectors(tmp_path: Path, world: World) -> None:
    class Constant:
        fingerprint, similarity = world.encoder().fingerprint, "cosine"

        def encode(self, texts: Any, kind: Any) -> np.ndarray:
            return np.tile(np.float32(1 / np.sqrt(32)), (len(texts), 32))

    class Sink(NumpyStore):
        """Keeps only what every store must: which documents it has."""

        def _put(self, space: Any, columns: Any, vectors: Any) -> None:
            seen.update(columns["doc_id"])

        def count(self, space: Any) -> tuple[int, int]:
            return len(seen), len(seen)

    peaks = []
    for size in (1_000, 5_000):
        seen: set[str] = set()
        corpus = Corpus.from_documents(Document(f"d{i}", f"{i} " + "x" * 2000) for i in range(size))
        generations = Generations(
            tmp_path / str(size),
            world.config.model_copy(
                update={"index": world.config.index.model_copy(update={"part": 256})}
            ),
        )
        generations._stores["numpy"] = Sink(tmp_path / str(size) / "vectors")
        tracemalloc.start()
        build(generations, corpus, Constant(), "constant", today=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(seen) == size
    # 4,000 more documents are 8 MB of text and .5 MB of vectors; ids and hashes stay under 300 bytes each.
    assert peaks[1] - peaks[0] < 4_000 * 300


# -- verify --------------------------------------------------------------------------------------


def rows_of(
    world: World, generation: str, doc_ids: list[str], change: Callable[[Rows], Rows]
) -> None:
    """Damage: write documents of a generation back, changed behind its back."""
    generations = world.generations
    space = generations.manifest(generation).space
    store = generations.store("numpy")
    store.write(space, change(store.fetch(space, doc_ids)))


def turned(rows: Rows) -> Rows:
    return replace(rows, vectors=Vectors(-rows.vectors.array, rows.vectors.fingerprint))


ALL = [f"d{i}" for i in range(40)]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            lambda w, g: w.generations.store("numpy").delete(
                w.generations.manifest(g).space, ["d7"]
            ),
            {"documents", "counts"},
        ),
        (lambda w, g: rows_of(w, g, ALL, turned), {"sample"}),
        (
            lambda w, g: rows_of(w, g, ALL, lambda r: replace(r, texts=["other"] * len(r))),
            {"sample"},
        ),
        (
            lambda w, g: rows_of(w, g, ["d7"], lambda r: replace(r, hashes=["0" * 16])),
            {"documents"},
        ),
        (
            lambda w, g: rows_of(
                w, g, ALL, lambda r: replace(r, metadata=[{"team": "t0"}] * len(r))
            ),
            {"filters"},
        ),
        (lambda w, g: w.write(documents(range(41))), {"documents"}),
        (lambda w, g: w.write(documents(range(1, 40))), {"documents"}),
        (lambda w, g: w.write([*documents(range(39)), *documents([39], version=2)]), {"documents"}),
    ],
    ids=[
        "lost document",
        "other vectors",
        "other texts",
        "other content",
        "other metadata",
        "added",
        "deleted",
        "changed",
    ],
)
def test_verify_finds_what_is_wrong(
    world: World, damage: Callable[[World, str], Any], found: set[str]
) -> None:
    generation = make(world)
    damage(world, generation)
    manifest = verify(world.generations, generation, world.corpus)
    assert found <= failed(manifest)
    assert manifest.state == "building"
    with pytest.raises(StoreError, match="not verified"):
        world.generations.cutover(generation)


class Lossy(NumpyStore):
    """An approximate index that loses results until it has been made anew often enough."""

    needs, made = 1, 0

    def build_index(self, space: Any, sample: Any = None) -> dict[str, Any]:
        self.made += 1
        return {"kind": "lossy"}

    def search(
        self, space: Any, queries: Any, k: int, *, filter: Any = None, exact: bool = False
    ) -> Any:
        hits = super().search(space, queries, k, filter=filter, exact=exact)
        return hits if exact or filter or self.made >= self.needs else [one[:-2] for one in hits]


@pytest.mark.parametrize(("needs", "state"), [(1, "verified"), (2, "building")])
def test_a_lossy_index_is_made_anew_once_or_refused(world: World, needs: int, state: str) -> None:
    generation = make(world, verified=False)
    generations = world.generations
    store = Lossy(world.root / "vectors")
    store.needs = needs
    generations._stores["numpy"] = store
    manifest = verify(generations, generation, world.corpus)
    assert manifest.state == state
    assert store.made == 1
    assert failed(manifest) == (set() if state == "verified" else {"recall"})


class _CountedName(str):
    """A field name that counts how often names are compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return str.__eq__(self, other)


def test_choosing_filters_takes_time_in_proportion_to_the_fields() -> None:
    names = [f"field {number}" for number in range(400)]
    sample = [
        Document(f"d{n}", "text", metadata={_CountedName(name): f"{n}" for name in names})
        for n in range(5)
    ]
    _CountedName.compared = 0
    chosen = _some_filters(sample)
    assert chosen == [(name, "0") for name in names[:8]]
    assert _CountedName.compared < 10 * 5 * len(names)


def test_filters_are_of_different_fields_first() -> None:
    sample = [
        Document("a", "text", metadata={"kind": "x", "year": 1, "empty": "", "list": ["y"]}),
        Document("b", "text", metadata={"kind": "z", "year": 1, "size": 3}),
    ]
    assert _some_filters(sample) == [("kind", "x"), ("year", 1), ("size", 3), ("kind", "z")]


def test_verify_finds_metadata_that_came_back_changed_where_no_filter_asks_for_it(
    world: World,
) -> None:
    generation = make(world)
    changed = {"team": "t0", "nested": {"more": 1}}
    rows_of(world, generation, ALL, lambda r: replace(r, metadata=[changed] * len(r)))
    assert "sample" in failed(verify(world.generations, generation, world.corpus))


@pytest.mark.parametrize("doc_id", ["id\0", "x" * 3_000])
def test_a_document_that_cannot_be_stored_is_refused_by_id_before_anything_is_embedded(
    world: World, doc_id: str
) -> None:
    encoder = Counting(world.encoder())
    corpus = Corpus.from_documents([Document("good", "text"), Document(doc_id, "text")])
    with pytest.raises(StoreError, match="cannot be stored: its id has") as refused:
        build(world.generations, corpus, encoder, "today", today=True)
    assert ascii(doc_id)[:50] in refused.value.what
    assert encoder.texts == []


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (Document("d", "half \ud83d"), "its text has half of a surrogate pair"),
        (Document("d", "text", metadata={"a": {"b": "\ud83d"}}), "its metadata has half"),
        (Document("d", "text", metadata={"a": datetime.now(UTC)}), "its metadata is no JSON"),
    ],
)
def test_documents_that_no_part_can_hold_are_refused(document: Document, problem: str) -> None:
    with pytest.raises(StoreError, match=f"document 'd' cannot be stored: {problem}"):
        require_document(document, "data.corpus")


def test_documents_made_in_python_are_cleaned_as_those_of_files_are() -> None:
    corpus = Corpus.from_documents(
        [Document("d\ud83d", "half \ud83d", "\ude00", {"a": "\ud83d", "n": float("nan")})]
    )
    assert corpus[0] == Document("d?", "half ?", "?", {"a": "?", "n": None})


def test_texts_with_nul_characters_are_verified_as_they_are_stored(world: World) -> None:
    world.write({"_id": f"d{n}", "text": f"page\0 {n} \x1a0000", "n": f"\0{n}"} for n in range(30))
    assert set(world.texts(make(world))) == {f"d{n}" for n in range(30)}


def test_canary_queries_are_asked(world: World) -> None:
    generation = make(world, verified=False)
    manifest = verify(
        world.generations, generation, world.corpus, ["pump noise", "oil leak", "reset sensor"]
    )
    assert manifest.verified is not None
    told = {check["check"]: check["found"] for check in manifest.verified["checks"]}
    assert told["canaries"].startswith("3 of 3 canary queries")


def test_canary_queries_come_from_their_file_or_from_dev(world: World) -> None:
    assert canary_queries(world.config, world.root) == []
    folder = world.root / "runs" / "default" / "check" / "split"
    write_split(
        folder,
        Split("dev", (Query("q1", "oil leak"), Query("q2", "pump noise")), {"q1": {"d1": 1}}),
    )
    assert canary_queries(world.config, world.root) == ["oil leak", "pump noise"]
    (world.root / "canaries.jsonl").write_text('{"_id": "c1", "text": "reset sensor"}\n')
    world.settings["index"]["canaries"] = "canaries.jsonl"
    assert canary_queries(build_config(world.settings), world.root) == ["reset sensor"]


# -- cut-over and rollback -----------------------------------------------------------------------


def decide(world: World, model: Path, verdict: str = "ship", run: str = "default") -> Path:
    path = world.root / "runs" / run / "decide" / "decision.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    candidates = [
        {"name": "dense", "fingerprint": "0" * 16},
        {"name": "fine-tuned", "fingerprint": world.encoder(model).fingerprint.id},
    ]
    record = {"verdict": verdict, "recommended": "fine-tuned", "candidates": candidates}
    path.write_text(json.dumps(signed(record, "ann", "2026-05-03")))
    return path


def test_the_first_generation_of_todays_model_needs_no_decision(world: World) -> None:
    generation = make(world)
    world.generations.cutover(generation, who="ann")
    (*_, last) = world.generations.history()
    assert (last["who"], last["action"], last["from"], last["to"]) == (
        "ann",
        "cutover",
        None,
        generation,
    )
    assert last["decision"] == {"first": True}
    assert last["time"].startswith("20")


def test_no_cutover_without_verify_and_a_decision_for_this_very_model(
    world: World, models: tuple[Path, Path]
) -> None:
    old = make(world)
    world.generations.cutover(old)
    new = make(world, models[1], verified=False)
    with pytest.raises(StoreError, match="building, not verified"):
        world.generations.cutover(new, override="please")
    verify(world.generations, new, world.corpus)
    with pytest.raises(StoreError, match="no decision speaks for"):
        world.generations.cutover(new)
    decide(world, models[1], verdict="inconclusive")
    with pytest.raises(StoreError, match="the verdict is inconclusive"):
        world.generations.cutover(new)
    decide(world, models[0])
    with pytest.raises(StoreError, match="made by another"):
        world.generations.cutover(new)
    assert world.generations.pointer().id == old
    path = decide(world, models[1])
    world.generations.cutover(new)
    manifest = world.generations.manifest(new)
    assert manifest.state == "active"
    assert world.generations.manifest(old).state == "retired"
    assert manifest.decision is not None
    assert manifest.decision["path"] == "runs/default/decide/decision.json"
    path.unlink()
    assert manifest.decision == world.generations.history()[-1]["decision"]


def test_an_override_is_logged_and_rollback_restores_the_previous_generation(
    world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    assert open_active(world.root).search("pump noise").generation == old
    world.generations.cutover(new, override="the board wants it")
    assert world.generations.history()[-1]["why"] == "the board wants it"
    assert open_active(world.root).search("pump noise").generation == new
    assert NumpyStore(world.root / "vectors").active() == new
    pointer = world.generations.rollback(why="latency", who="bob")
    assert (pointer.id, pointer.previous) == (old, None)
    assert open_active(world.root).search("pump noise").generation == old
    assert NumpyStore(world.root / "vectors").active() == old
    assert {one.id: one.state for one in world.generations.manifests()} == {
        old: "active",
        new: "verified",
    }
    with pytest.raises(StoreError, match="no generation to roll back to"):
        world.generations.rollback()
    assert [line["action"] for line in world.generations.history()] == [
        "build",
        "build",
        "cutover",
        "cutover",
        "rollback",
    ]


def test_a_generation_that_lags_behind_the_active_one_is_refused(
    world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    world.write(documents(range(41)))
    make(world, verified=False)  # the active one alone
    with pytest.raises(StoreError, match="does not hold the documents") as refused:
        world.generations.cutover(new, override="now")
    assert refused.value.next_step == "nearer index sync"
    sync(world.generations, world.corpus)
    assert world.generations.cutover(new, override="now").id == new


@pytest.mark.parametrize("stop", ["_append", "activate", "history"])
def test_a_cutover_that_was_cut_short_is_finished_by_the_next_command(
    world: World, models: tuple[Path, Path], stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    with monkeypatch.context() as patch:
        broken = world.generations
        real = getattr(broken, stop)

        def killed(*given: Any) -> Any:
            if world.generations.pointer().id == new:
                raise KeyboardInterrupt
            return real(*given)

        patch.setattr(broken, stop, killed)
        with pytest.raises(KeyboardInterrupt):
            broken.cutover(new, override="now")
    assert open_active(world.root).search("pump").generation == new  # ACTIVE is the truth
    assert world.generations.manifest(new).state == "active"
    with (world.root / "generations" / "history.jsonl").open("a") as history:
        history.write('{"time": "20')  # and a line that was being written
    world.generations.gc()
    assert NumpyStore(world.root / "vectors").active() == new
    assert [line["action"] for line in world.generations.history()].count("cutover") == 2
    stored = {
        name: Manifest.read(world.root / "generations" / name / "manifest.json").state
        for name in (old, new)
    }
    assert stored == {old: "retired", new: "active"}


@pytest.mark.parametrize("damage", ["removed", "unreadable"])
def test_what_happened_to_other_generations_stops_neither_cutover_nor_rollback(
    damage: str, world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    world.generations.cutover(new, override="test")
    third = build(
        world.generations, world.corpus, world.encoder(), "today", today=True, force=True
    ).manifest.id
    verify(world.generations, third, world.corpus)
    folder = world.root / "generations" / (new if damage == "removed" else third)
    if damage == "removed":  # the active one, by hand
        shutil.rmtree(folder)
        assert world.generations.cutover(third, override="the active one is lost").id == third
    else:
        (folder / "manifest.json").write_text("{}")
        with pytest.raises(StoreError, match="damaged"):
            world.generations.manifests()
        assert world.generations.rollback().id == old
    assert open_active(world.root).search("pump").generation == world.generations.pointer().id


def test_a_rehearsal_times_both_moves_and_leaves_everything_as_it_was(
    world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    with pytest.raises(StoreError, match="active yet"):
        rehearse(world.generations, new, "pump")
    world.generations.cutover(old)
    before = {
        str(p): p.read_bytes()
        for p in world.root.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }
    told = rehearse(world.generations, new, "pump noise")
    assert [one["generation"] for one in told["searches"]] == [old, new, old]
    assert all(one["results"] == 10 for one in told["searches"])
    assert told["cutover_ms"] > 0
    assert told["rollback_ms"] > 0
    assert {
        str(p): p.read_bytes()
        for p in world.root.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    } == before


def test_readers_never_fail_and_never_mix_while_generations_change(
    world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    reader = open_active(world.root)
    asked = ["pump noise", "oil leak 7", "reset sensor error"]
    expected = {name: world.generations.open(name).search(asked, 5) for name in (old, new)}
    assert expected[old] != expected[new]
    reader.warm(new)
    stop, wrong = threading.Event(), list[Any]()
    seen: dict[str, int] = {old: 0, new: 0}

    def ask(number: int) -> None:
        while not stop.is_set():
            try:
                answer = reader.search(asked, 5)
                if answer.results != expected[answer.generation]:
                    wrong.append(answer)
                seen[answer.generation] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed query
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    generations = world.generations
    for _ in range(25):
        generations.cutover(new, override="test")
        before = sum(seen.values())
        while sum(seen.values()) < before + 8 and not wrong:  # let them answer from it
            time.sleep(0.001)
        generations.rollback()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen[old] > 8
    assert seen[new] > 8


def test_a_reader_goes_on_when_its_generation_is_dropped_under_it(
    world: World, models: tuple[Path, Path]
) -> None:
    first, second = make(world), make(world, models[1])
    generations = world.generations
    generations.cutover(first)
    reader = Reader(generations)
    assert reader.search("pump").generation == first
    late = reader.current()
    generations.cutover(second, override="test")
    third = build(
        generations, world.corpus, world.encoder(), "today", today=True, force=True
    ).manifest.id
    verify(generations, third, world.corpus)
    generations.cutover(third, override="test")
    assert generations.gc()[0] == [first]
    with pytest.MonkeyPatch.context() as patch:
        held = [late, reader.current()]
        patch.setattr(reader, "current", lambda: held.pop(0))
        assert reader.search("pump").generation == third


# -- freshness -----------------------------------------------------------------------------------


def test_sync_embeds_what_changed_and_deletes_everywhere(
    world: World, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    retired, previous, active = make(world), make(world, models[1]), ""
    world.generations.cutover(retired)
    world.generations.cutover(previous, override="test")
    active = build(
        world.generations, world.corpus, world.encoder(), "today", today=True, force=True
    ).manifest.id
    verify(world.generations, active, world.corpus)
    world.generations.cutover(active, override="test")
    waiting = build(
        world.generations, world.corpus, world.encoder(models[1]), "tuned", today=False, force=True
    ).manifest.id
    world.write([*documents(range(2, 39)), *documents([39], version=2), *documents([70])])
    embedded: list[str] = []
    real = Generations.encoder

    def counting(self: Generations, manifest: Manifest, folder: Path | None = None) -> Any:
        encoder = Counting(real(self, manifest, folder))
        embedded.append(manifest.id)
        encoder.texts = embedded
        return encoder

    monkeypatch.setattr(Generations, "encoder", counting)
    done = {one.manifest.id: one for one in sync(world.generations, world.corpus)}
    assert list(done) == [active, previous, waiting]
    assert {(one.embedded, one.deleted) for one in done.values()} == {(2, 2)}
    assert len(embedded) == 3 * (1 + 2)  # a model and two documents each
    for generation in done:
        assert world.texts(generation) == world.expected()
    assert set(world.texts(retired)) == {f"d{i}" for i in range(2, 40)}
    assert world.generations.rollback().id == previous
    assert "d0" not in {
        doc_id for doc_id, _ in open_active(world.root).search("pump", 40).results[0]
    }
    again = sync(world.generations, world.corpus)
    assert {(one.embedded, one.loaded, one.deleted) for one in again} == {(0, 0, 0)}


def test_an_interrupted_sync_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = make(world)
    world.write(
        [*documents(range(10), version=2), *documents(range(10, 30)), *documents(range(60, 90))]
    )
    real = Generations.encoder
    made: list[Counting] = []

    def failing(self: Generations, manifest: Manifest, folder: Path | None = None) -> Any:
        made.append(Counting(real(self, manifest, folder), fail_after=16 if not made else None))
        return made[-1]

    monkeypatch.setattr(Generations, "encoder", failing)
    with pytest.raises(KeyboardInterrupt):
        sync(world.generations, world.corpus)
    sync(world.generations, world.corpus)
    assert sum(len(one.texts) for one in made) == 40
    assert len(made[1].texts) == 24
    assert world.texts(generation) == world.expected()


def test_gc_leaves_no_trace_of_deleted_and_replaced_texts_in_parts(world: World) -> None:
    generation = make(world)
    world.write([*documents(range(10), version=2), *documents(range(20, 40))])
    sync(world.generations, world.corpus)
    _, chunks = world.generations.gc()
    assert chunks == 20
    kept = b"".join(
        p.read_bytes() for p in (world.root / "generations" / generation / "parts").iterdir()
    )
    assert b"pump 16" not in kept
    assert b" 7 version 1" not in kept
    assert b" 7 version 2" in kept
    world.generations.store("numpy").drop(generation)  # the parts alone bring everything back
    filled = build(
        world.generations, world.corpus, encoder := Counting(world.encoder()), "today", today=True
    )
    assert (filled.loaded, encoder.texts) == (30, [])
    assert world.texts(generation) == world.expected()


def test_watch_syncs_once_a_change_has_come_to_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = make(world)
    world.write(documents(range(39)))
    changes = [
        lambda: None,
        lambda: (world.root / "corpus.jsonl").write_text(
            '{"_id": "d1", "text"'
        ),  # half a file, then the rest
        lambda: world.write(documents(range(44))),
        lambda: None,
    ]
    monkeypatch.setattr(syncing.time, "sleep", lambda seconds: changes.pop(0)())
    rounds = watch(world.generations, lambda: world.corpus, world.root / "corpus.jsonl", 5)
    assert next(rounds)[0].deleted == 1
    assert next(rounds)[0].embedded == 5
    assert changes == []
    assert world.texts(generation) == world.expected()


# -- removing, one writer ------------------------------------------------------------------------


def test_what_is_active_or_needed_for_a_rollback_cannot_be_dropped(
    world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    world.generations.cutover(new, override="test")
    for generation, role in ((new, "active"), (old, "what a rollback needs")):
        with pytest.raises(StoreError, match=role):
            world.generations.drop(generation)
    assert world.generations.gc()[0] == []
    third = build(
        world.generations, world.corpus, world.encoder(), "today", today=True, force=True
    ).manifest.id
    verify(world.generations, third, world.corpus)
    world.generations.cutover(third, override="test")
    world.settings["index"]["keep"] = 1
    kept = Generations(world.root, build_config(world.settings))
    assert kept.gc()[0] == []
    assert world.generations.gc()[0] == [old]
    assert {one.id for one in world.generations.manifests()} == {new, third}
    assert {one.generation for one in NumpyStore(world.root / "vectors").spaces()} == {new, third}


def test_a_drop_that_was_cut_short_is_finished_by_the_next_command(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = make(world)
    with monkeypatch.context() as patch:
        patch.setattr(
            NumpyStore, "drop", lambda self, generation: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            world.generations.drop(generation)
    assert world.generations.manifest(generation).state == "dropping"
    with pytest.raises(StoreError, match="dropping, not verified"):
        world.generations.cutover(generation)
    world.generations.gc()
    assert world.generations.manifests() == []
    assert NumpyStore(world.root / "vectors").spaces() == []


def test_a_second_writer_is_told_who_the_first_is_and_a_rollback_does_not_wait(
    world: World, models: tuple[Path, Path]
) -> None:
    old, new = make(world), make(world, models[1])
    world.generations.cutover(old)
    world.generations.cutover(new, override="test")
    with world.generations.writing():
        with pytest.raises(BusyError, match=f"pid {os.getpid()}"):
            sync(world.generations, world.corpus)
        assert world.generations.rollback().id == old
    sync(world.generations, world.corpus)


def test_another_process_that_moves_the_pointer_is_waited_for(world: World) -> None:
    generation = make(world)
    with open(world.root / "generations" / ".pointer", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: world.generations.cutover(generation))
        waiting.start()
        waiting.join(0.1)
        assert world.generations.pointer().id is None
        fcntl.flock(handle, fcntl.LOCK_UN)
        waiting.join()
    assert world.generations.pointer().id == generation


@pytest.mark.parametrize("name", ["../../etc", "", "a/b", "00000000-1", "x; drop table", "0" * 300])
def test_only_the_id_of_a_generation_reaches_a_path(world: World, name: str) -> None:
    make(world)
    with pytest.raises(StoreError, match="no generation"):
        world.generations.cutover(name)
    with pytest.raises(StoreError, match="no generation"):
        world.generations.drop(name)


# -- command line --------------------------------------------------------------------------------


def call(world: World, *words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(
        app, ["index", *words, "-c", str(world.root / "nearer.yaml"), "--json"]
    )
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_the_commands_go_from_build_to_rollback(world: World, models: tuple[Path, Path]) -> None:
    old = call(world, "build")["id"]
    assert call(world, "verify", old)["passed"] is True
    assert call(world, "cutover", old, "--as", "ann")["active"] == old
    new = call(world, "build", "--model", str(models[1]))["id"]
    rows = call(world, "list")["generations"]
    assert [(row["id"], row["state"], row["documents"]) for row in rows] == [
        (old, "active", 40),
        (new, "building", 40),
    ]
    assert all({"model", "fingerprint"} <= set(row) for row in rows)
    assert call(world, "verify", new)["state"] == "verified"
    refused = call(world, "cutover", new, code=2)
    assert refused["error"] == "StoreError"
    assert "--override" in refused["next"]
    assert call(world, "rehearse", new)["searches"][1]["generation"] == new
    decide(world, models[1])
    assert call(world, "cutover", new)["previous"] == old
    assert call(world, "rollback", "--why", "latency")["active"] == old
    assert [line["action"] for line in call(world, "show", new)["history"]] == [
        "build",
        "cutover",
        "rollback",
    ]
    world.write(documents(range(39)))
    assert [one["deleted"] for one in call(world, "sync")["synced"]] == [1, 1]
    assert call(world, "drop", new)["dropped"] == [new]
    assert call(world, "gc") == {"dropped": [], "chunks": 1}


def test_a_verification_that_fails_exits_with_2_and_says_what(world: World) -> None:
    generation = call(world, "build")["id"]
    world.write(documents(range(30)))
    told = call(world, "verify", generation, code=2)
    assert next(check["check"] for check in told["checks"] if not check["passed"]) == "documents"


def test_a_dry_run_prints_an_estimate(world: World) -> None:
    assert call(world, "build", "--dry-run", "--set", "decide.cost_per_hour=2")["price"] >= 0
    assert call(world, "list") == {"generations": []}


def test_results_read_well_on_screen(world: World) -> None:
    runner = CliRunner()
    for words in (["build"], ["list"], ["sync"], ["gc"]):
        result = runner.invoke(app, ["index", *words, "-c", str(world.root / "nearer.yaml")])
        assert result.exit_code == 0, result.output
        assert result.stdout.strip()


@pytest.mark.parametrize(
    "command",
    ["build", "verify", "list", "show", "cutover", "rollback", "sync", "drop", "gc", "rehearse"],
)
def test_every_index_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, ["index", command, "--help"])
    assert result.exit_code == 0
    assert "Example: nearer index" in result.output
