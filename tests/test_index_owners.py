"""Projects that share a store: each has tables and a pointer of its own, and a copy destroys nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generations_kit import World, documents, static_model
from nearer.errors import StoreError
from nearer.live.index.build import build
from nearer.live.index.reader import open_active
from nearer.live.index.repair import repair
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("static")
    return static_model(folder / "a", seed=1), static_model(folder / "b", seed=2)


@pytest.fixture(params=["numpy", "lancedb", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> dict[str, Any]:
    """The index section of projects that share one location."""
    if request.param != "postgres":
        return {"store": request.param, "location": str(tmp_path / "shared")}
    monkeypatch.setenv("TENANTS_DSN", request.getfixturevalue("dsn"))
    return {"store": "postgres", "location": "env:TENANTS_DSN"}


def filled(world: World, model: Path | None = None, **how: Any) -> str:
    encoder = world.encoder(model)
    name, today = str(model or "today"), model is None
    made = build(world.generations, world.corpus, encoder, name, today=today, **how)
    return made.manifest.id


def live(world: World, model: Path | None = None, **how: Any) -> str:
    """A verified generation that answers."""
    generation = filled(world, model, **how)
    assert verify(world.generations, generation, world.corpus).state in ("verified", "active")
    if world.generations.pointer().id != generation:
        world.generations.cutover(generation, override="test")
    return generation


def tenant(root: Path, name: str, model: Path, first: int, shared: dict[str, Any]) -> World:
    return World(root / name, model, **shared).write(documents(range(first, first + 20)))


def answers(world: World) -> tuple[str, list[str]]:
    answer = open_active(world.root).search("pump noise", 20)
    return answer.generation, [doc_id for doc_id, _ in answer.results[0]]


def test_two_tenants_share_a_model_and_a_store_and_see_nothing_of_each_other(
    tmp_path: Path, models: tuple[Path, Path], shared: dict[str, Any]
) -> None:
    one = tenant(tmp_path, "one", models[0], 0, shared)
    two = tenant(tmp_path, "two", models[0], 100, shared)
    first = live(one)
    before = answers(one)
    assert live(two) == first  # the same model: the same id, in each its own table
    assert answers(one) == before
    assert set(answers(two)[1]) == {f"d{i}" for i in range(100, 120)}
    stores = [world.generations.store_of(world.generations.manifest(first)) for world in (one, two)]
    second = live(one, models[1])
    assert [store.active() for store in stores] == [second, first]
    two.write(documents(range(110, 130)))
    sync(two.generations, two.corpus)
    one.generations.rollback()
    assert answers(one) == before
    assert one.texts(first) == one.expected()
    assert two.texts(first) == two.expected()
    third = live(two, models[1])
    live(two, models[0], force=True)
    two.generations.gc()
    two.generations.rollback()
    assert answers(two)[0] == third
    assert answers(one) == before
    for generation in (first, second):
        assert verify(one.generations, generation, one.corpus).verified["passed"]  # type: ignore[index]


def test_a_namespace_of_two_projects_is_refused_before_anything_is_written(
    tmp_path: Path, models: tuple[Path, Path], shared: dict[str, Any]
) -> None:
    place = shared | {"namespace": f"team_{abs(hash(tmp_path)) % 10**8}"}
    one = tenant(tmp_path, "one", models[0], 0, place)
    two = tenant(tmp_path, "two", models[1], 100, place)
    live(one)
    before = answers(one)
    with pytest.raises(StoreError, match="keeps its tables here") as refused:
        filled(two)
    assert "index.namespace" in str(refused.value)
    assert two.generations.manifests() == []
    assert answers(one) == before


def test_a_table_of_another_project_is_refused_at_every_door(
    tmp_path: Path, models: tuple[Path, Path], shared: dict[str, Any]
) -> None:
    one = tenant(tmp_path, "one", models[0], 0, shared)
    two = tenant(tmp_path, "two", models[0], 100, shared)
    generation = live(one)
    live(two)
    stolen = one.generations.manifest(generation).namespace
    path = two.root / "generations" / generation / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"namespace": stolen}))
    before = answers(one)
    generations = two.generations
    doors: list[Callable[[], Any]] = [
        lambda: filled(two),
        lambda: verify(generations, generation, two.corpus),
        lambda: sync(generations, two.corpus),
        lambda: open_active(two.root).search("pump"),
    ]
    for door in doors:
        with pytest.raises(StoreError, match=r"belongs to project|keeps its tables here"):
            door()
    live(two, models[1])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "retired"}))
    pointer = two.root / "generations" / "ACTIVE"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"previous": None}))
    two.generations.drop(generation)
    assert answers(one) == before
    assert one.texts(generation) == one.expected()


def copied(world: World, name: str) -> World:
    shutil.copytree(world.root, world.root.with_name(name))
    return World.at(world.root.with_name(name))


def test_a_copied_project_cannot_write_the_tables_of_the_original(
    tmp_path: Path, models: tuple[Path, Path], shared: dict[str, Any]
) -> None:
    one = tenant(tmp_path, "one", models[0], 0, shared)
    generation = live(one)
    before = answers(one)
    copy = copied(one, "copy").write(documents(range(500, 510)))
    assert answers(copy) == before  # it may read them: a service on another machine does
    moves: list[Callable[[], Any]] = [
        lambda: filled(copy),
        lambda: sync(copy.generations, copy.corpus),
        copy.generations.gc,
        lambda: copy.generations.drop(generation),
        copy.generations.rollback,
    ]
    for move in moves:
        with pytest.raises(StoreError, match="copied or moved") as refused:
            move()
        assert "nearer index claim" in str(refused.value)
    copy.generations.claim(copied=True)
    (done,) = sync(copy.generations, copy.corpus)
    assert (done.embedded, copy.texts(generation)) == (10, copy.expected())
    assert answers(one) == before
    assert one.texts(generation) == one.expected()


def test_a_moved_project_goes_on(tmp_path: Path, models: tuple[Path, Path]) -> None:
    shared = {"location": str(tmp_path / "shared")}
    one = tenant(tmp_path, "one", models[0], 0, shared)
    generation = live(one)
    moved = World.at(one.root.rename(tmp_path / "moved"))
    sync(moved.generations, moved.corpus)  # the folder itself is the same
    restored = copied(moved, "restored")
    shutil.rmtree(moved.root)
    with pytest.raises(StoreError, match="copied or moved"):
        sync(restored.generations, restored.corpus)
    restored.generations.claim(copied=False)
    (done,) = sync(restored.generations, restored.corpus)
    assert (done.embedded, done.loaded) == (0, 0)
    assert restored.texts(generation) == restored.expected()


def test_a_copy_with_its_own_tables_just_goes_on(tmp_path: Path, models: tuple[Path, Path]) -> None:
    one = tenant(tmp_path, "one", models[0], 0, {})
    generation = live(one)
    copy = copied(one, "copy").write(documents(range(30, 40)))
    sync(copy.generations, copy.corpus)
    assert copy.texts(generation) == copy.expected()
    assert one.texts(generation) == one.expected()
    assert copy.generations.identity() != one.generations.identity()


def aged(world: World) -> None:
    """Make it what older versions left: no project, no owner in manifests and tables."""
    (world.root / "generations" / ".project").unlink()
    names = ("owner", "namespace", "parts", "served")
    files = [*world.root.glob("generations/*/manifest.json"), world.root / "generations" / "ACTIVE"]
    for path in files:
        values = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in values.items() if k not in names}))


def test_generations_of_older_versions_answer_and_get_tables_of_their_own_at_the_next_sync(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "shared"
    worlds = []
    for name, first in (("one", 0), ("two", 100)):
        world = tenant(tmp_path, name, models[0], first, {})
        generation = live(world)
        worlds.append(world)
        aged(world)
        table = world.root / "vectors" / generation / "manifest.json"
        identity = json.loads(json.loads(table.read_text())["identity"])
        identity.pop("owner")
        stored = json.loads(table.read_text()) | {"identity": json.dumps(identity)}
        table.write_text(json.dumps(stored))
    one, two = worlds
    shutil.copytree(one.root / "vectors", place)  # both projects took this table for their own
    for world in worlds:
        settings = json.loads((world.root / "nearer.yaml").read_text())
        settings["index"]["location"] = str(place)
        (world.root / "nearer.yaml").write_text(json.dumps(settings))
    answered = answers(one)
    assert len(answered[1]) == 20
    (done,) = sync(two.generations, two.corpus)
    assert (done.embedded, done.loaded) == (0, 20)
    assert answers(one) == answered
    assert set(answers(two)[1]) == {f"d{i}" for i in range(100, 120)}
    sync(one.generations, one.corpus)
    for world in worlds:
        assert world.texts(generation) == world.expected()
        assert verify(world.generations, generation, world.corpus).state == "active"
        assert world.generations.store("numpy").active() == generation
    assert (place / generation).is_dir()  # whose it is nobody knows: it stays


def test_a_lost_identity_is_refused_and_restored_from_the_manifests(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    one = tenant(tmp_path, "one", models[0], 0, {"location": str(tmp_path / "shared")})
    live(one)
    identity = one.generations.identity()
    path = one.root / "generations" / ".project"
    for damage in ("gone", "[]", "{"):
        path.unlink()
        if damage != "gone":
            path.write_text(damage)
        with pytest.raises(StoreError, match=r"\.project") as refused:
            sync(one.generations, one.corpus)
        assert "nearer index repair" in str(refused.value)
        assert [done.file for done in repair(one.generations)] == [".project"]
        assert one.generations.identity() == identity
    sync(one.generations, one.corpus)


def test_an_identity_under_its_former_name_is_kept_and_renamed(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    one = tenant(tmp_path, "one", models[0], 0, {"location": str(tmp_path / "shared")})
    live(one)
    folder = one.root / "generations"
    identity = one.generations.identity()
    (folder / ".project").rename(folder / "PROJECT")
    assert one.generations.identity() == identity
    assert sorted(
        path.name for path in folder.iterdir() if not path.name.startswith(".")
    ) == sorted(["ACTIVE", "history.jsonl", str(one.generations.pointer().id)])
