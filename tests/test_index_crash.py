"""Forty kills, two writers, a full disk and a read-only folder: always the old state or the new one."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generations_kit import World, documents, static_model
from nearer.decision.sign_off import signed
from nearer.errors import BusyError
from nearer.live.index.build import build
from nearer.live.index.reader import open_active
from nearer.live.index.searcher import Searcher
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify

Drive = Callable[..., dict[str, Any]]
KILLED = 9


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    """Does work in another process: `drive(world, action, kill_at=…)` (see crash_driver.py)."""
    driver = Path(__file__).with_name("crash_driver.py")
    process = subprocess.Popen(
        [sys.executable, str(driver)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def order(world: World | None, action: str = "", **how: Any) -> dict[str, Any]:
        about = {"root": str(world.root), "action": action} if world else {}
        process.stdin.write(json.dumps({**about, **how}) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        answer: dict[str, Any] = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        return answer

    yield order
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("static")
    return static_model(folder / "a", seed=1), static_model(folder / "b", seed=2)


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    return World(tmp_path / "project", models[0]).write(documents(range(60)))


def ready(world: World, model: Path) -> str:
    """A verified generation."""
    generation = build(
        world.generations, world.corpus, world.encoder(model), str(model), today=False, force=True
    ).manifest.id
    assert verify(world.generations, generation, world.corpus).state == "verified"
    return generation


def is_whole(
    world: World, generation: str, before: dict[str, list[str]], after: dict[str, list[str]]
) -> None:
    """No document lost or doubled, each as it was before or as it is to be."""
    held = world.texts(generation)
    assert before.keys() & after.keys() <= held.keys() <= before.keys() | after.keys()
    for doc_id, texts in held.items():
        assert texts in (before.get(doc_id), after.get(doc_id)), doc_id


def embedded(world: World, generation: str) -> int:
    """Documents in finished parts."""
    import pyarrow as pa

    parts = (world.root / "generations" / generation / "parts").glob("[0-9]*.arrow")
    return len(
        {
            doc_id
            for path in parts
            for doc_id in pa.ipc.open_file(path.read_bytes()).read_all()["doc_id"].to_pylist()
        }
    )


class Killer:
    """Kills at seeded moments: in turn at a file operation, and after a time."""

    def __init__(self, drive: Drive, seed: int) -> None:
        self._drive, self._random = drive, random.Random(seed)  # noqa: S311 - no secret
        self._whole: dict[str, dict[str, Any]] = {}
        self.killed = self.tried = 0

    def learn(self, world: World, action: str) -> None:
        """Let an action run to its end, to know how long it is."""
        self._whole[action.split(maxsplit=1)[0]] = answer = self._drive(world, action)
        assert answer["error"] is None, answer["error"]

    def __call__(self, world: World, action: str) -> None:
        """Start the action and kill it, unless it is done before that."""
        whole = self._whole[action.split(maxsplit=1)[0]]
        self.tried += 1
        if self.tried % 2:
            answer = self._drive(
                world, action, kill_at=self._random.randint(1, whole["operations"])
            )
        else:
            answer = self._drive(
                world, action, kill_after=self._random.uniform(0, whole["seconds"])
            )
        assert answer["signal"] == KILLED or answer["error"] is None, answer["error"]
        self.killed += answer["signal"] == KILLED


@pytest.mark.long
def test_forty_kills_leave_the_old_state_or_the_new_one(
    drive: Drive, world: World, models: tuple[Path, Path]
) -> None:
    kill = Killer(drive, seed=20)
    active = ready(world, models[0])
    world.generations.cutover(active, override="first")
    rehearsed = World.at(world.root.with_name("rehearsed"))
    shutil.copytree(world.root, rehearsed.root)
    kill.learn(rehearsed, f"build {models[1]} force")
    (new,) = (one.id for one in rehearsed.generations.manifests() if one.state == "building")
    rehearsed.write([*documents(range(12), 2), *documents(range(100, 138))])
    kill.learn(rehearsed, "sync")
    verify(rehearsed.generations, new, rehearsed.corpus)
    for action in (f"cutover {new}", "rollback", "gc"):
        kill.learn(rehearsed, action)
    dropped: list[str] = []
    version = 1
    while kill.killed < 40:
        corpus = world.expected()
        model = models[version % 2]

        kill(world, f"build {model} force")
        assert open_active(world.root).search("pump 1").generation == active
        assert world.texts(active) == corpus
        begun = [one.id for one in world.generations.manifests() if one.state == "building"]
        finished = embedded(world, begun[0]) if begun else 0
        filled = build(
            world.generations,
            world.corpus,
            world.encoder(model),
            str(model),
            today=False,
            force=not begun,
        )
        assert filled.embedded == len(corpus) - finished  # no finished part again
        new = filled.manifest.id
        assert world.texts(new) == corpus
        assert verify(world.generations, new, world.corpus).state == "verified"

        version += 1
        kept = random.Random(version).sample(range(10 * version, 10 * version + 60), 50)  # noqa: S311 - no secret
        world.write([*documents(kept[:12], version), *documents(sorted(kept[12:]))])
        kill(world, "sync")
        for generation in (active, new):
            is_whole(world, generation, corpus, world.expected())
        assert open_active(world.root).search("pump 1").generation == active
        sync(world.generations, world.corpus)
        for generation in (active, new):
            assert world.texts(generation) == world.expected()
            verified = verify(world.generations, generation, world.corpus).verified
            assert verified is not None
            assert verified["passed"]

        kill(world, f"cutover {new}")
        assert open_active(world.root).search("pump 1").generation in (active, new)
        if world.generations.pointer().id == active:
            world.generations.cutover(new, override="resumed")
        assert world.generations.pointer().previous == active

        kill(world, "rollback")
        assert open_active(world.root).search("pump 1").generation in (active, new)
        if world.generations.pointer().id == new:
            world.generations.rollback()
        world.generations.cutover(new, override="again")

        kill(world, "gc")
        assert open_active(world.root).search("pump 1").generation == new
        assert world.generations.rollback().id == active  # what a rollback needs was left alone
        world.generations.cutover(new, override="again")
        world.generations.gc()
        dropped += [
            line["to"]
            for line in world.generations.history()
            if line["action"] == "drop" and line["to"] not in dropped
        ]
        tables = {space.generation for space in world.generations.store("numpy").spaces()}
        assert {one.id for one in world.generations.manifests()} == tables == {active, new}
        assert not tables & set(dropped)
        for generation in tables:
            assert world.texts(generation) == world.expected()
        assert not list((world.root / "generations").rglob("*.tmp"))
        active = new
    moves = [
        line for line in world.generations.history() if line["action"] in ("cutover", "rollback")
    ]
    for earlier, later in itertools.pairwise(moves):
        assert (
            later["from"] == earlier["to"]
        )  # no move is missing in the history, none is there twice
    assert len(dropped) >= 4
    assert kill.tried < 60


def operations(drive: Drive, world: World, action: str, scratch: Path) -> int:
    """File operations of an action, counted on a copy."""
    shutil.copytree(world.root, scratch)
    answer = drive(World.at(scratch), action)
    assert answer["error"] is None
    return int(answer["operations"])


def served(world: World, generation: str) -> tuple[Any, str, str]:
    """By which decision a generation answers, through which pipeline, under which identity."""
    searcher = Searcher(world.generations, generation)
    now = searcher.current()
    return now.manifest.decision, now.pipeline.label, now.identity


def decide(world: World, system: str, generation: str) -> None:
    """A decision that ships the model of a generation through a search system."""
    manifest = world.generations.manifest(generation)
    model = replace(manifest.fingerprint, chunker=None).id
    chosen = {"name": system, "fingerprint": model, "pipeline": {"system": system}}
    path = world.root / "runs" / "default" / "decide" / "decision.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"verdict": "ship", "recommended": system, "candidates": [chosen]}
    path.write_text(json.dumps(signed(record, "ann", "2026-05-03")))


@pytest.mark.long
@pytest.mark.parametrize("action", ["cutover", "rollback"])
def test_a_kill_before_each_file_operation_of_a_move_is_survived(
    action: str, drive: Drive, world: World, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """After it one generation answers, and each answers as it was judged, also after a rollback."""
    old, new = ready(world, models[0]), ready(world, models[1])
    decide(world, "rrf", old)
    world.generations.cutover(old)
    world.generations.cutover(new, override="second")
    judged = {name: served(world, name) for name in (old, new)}
    assert judged[old][1] != judged[new][1]
    active, target, order = new, old, "rollback"
    if action == "cutover":  # to `old` once more, on another decision than it was judged by
        verify(world.generations, old, world.corpus)
        order = f"cutover {old}"
    before = len(moves_of(world))
    answered = set()
    for moment in range(1, operations(drive, world, order, tmp_path / "counted") + 1):
        copy = World.at(tmp_path / str(moment))
        shutil.copytree(world.root, copy.root)
        assert drive(copy, order, kill_at=moment)["signal"] == KILLED
        now = open_active(copy.root).search("pump 1").generation
        moved = now == target
        expected = dict(judged)
        if moved and action == "cutover":
            expected[old] = ({"override": "crash test"}, judged[new][1], judged[old][2])
        for settled in (False, True):
            if settled:
                copy.generations.gc()  # any writer settles what was left undone
            for name in (old, new):
                told = served(copy, name)
                assert told[:2] == expected[name][:2], (moment, settled, name)
        answered.add(now)
        assert copy.generations.pointer().id == copy.generations.store("numpy").active() == now
        assert len(moves_of(copy)) == before + moved
        states = {one.id: one.state for one in copy.generations.manifests()}
        assert states[now] == "active"
        assert sorted(states.values()).count("active") == 1
        if copy.generations.pointer().previous is not None:
            back = copy.generations.rollback().id
            assert served(copy, str(back))[:2] == expected[str(back)][:2]
        shutil.rmtree(copy.root)
    assert answered == {active, target}


def moves_of(world: World) -> list[dict[str, Any]]:
    moves = ("cutover", "rollback")
    return [line for line in world.generations.history() if line["action"] in moves]


@pytest.mark.long
def test_a_second_writer_is_refused_by_name_and_spoils_nothing(
    drive: Drive, world: World, models: tuple[Path, Path]
) -> None:
    active = ready(world, models[0])
    world.generations.cutover(active, override="first")
    world.write([*documents(range(30), version=2), *documents(range(30, 70))])
    first = drive(world, "sync", stop_at=60)
    assert first["signal"] == "stopped"
    for action in ("sync", f"build {models[1]}", "gc"):
        answer = drive(world, action)
        assert answer["error"] is not None
        assert answer["error"].startswith("BusyError")
        assert f"pid {first['pid']}" in answer["error"]
    with pytest.raises(BusyError):
        world.generations.drop(active)
    assert open_active(world.root).search("pump 1").generation == active
    assert drive(None, wait=first["pid"])["error"] is None
    assert world.texts(active) == world.expected()
    assert verify(world.generations, active, world.corpus).state == "active"


@contextmanager
def little_room(folder: Path, kilobytes: int) -> Iterator[dict[str, Any]]:
    """A full disk below `folder`: a small file system where this user may mount one, else a limit on the size of files."""
    saved = folder.with_name(folder.name + ".saved")
    shutil.copytree(folder, saved)
    size = sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
    mounted = subprocess.run(
        [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={size // 1024 + kilobytes}k",
            "nearer-test",
            str(folder),
        ],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        yield {"file_limit": 1024 * kilobytes}
    else:
        try:
            shutil.copytree(saved, folder, dirs_exist_ok=True)
            yield {}
            shutil.rmtree(saved)
            shutil.copytree(folder, saved)
        finally:
            subprocess.run(
                ["umount", "--lazy", str(folder)], check=True
            )  # a model may still be mapped from it
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)
    shutil.rmtree(saved)


@pytest.mark.long
@pytest.mark.parametrize("kilobytes", [1, 12, 24])
@pytest.mark.parametrize("full", ["generations", "vectors"])
def test_a_full_disk_is_an_error_that_leaves_the_old_state_and_work_to_go_on_with(
    full: str, kilobytes: int, drive: Drive, world: World, models: tuple[Path, Path]
) -> None:
    old = ready(world, models[0])
    world.generations.cutover(old, override="first")
    before = world.texts(old)
    world.write([*documents(range(60)), *documents(range(100, 160))])
    with little_room(world.root / full, kilobytes) as limits:
        answer = drive(world, "sync", **limits)
        assert answer["signal"] is None
        assert answer["error"].startswith(("OSError", "StoreError")), answer["error"]
        assert ("File too large" if limits else "No space left on device") in answer["error"]
        assert (
            drive(world, "cli sync", **limits)["error"] == "SystemExit: 2"
        )  # something the user can mend, not a bug
        is_whole(world, old, before, world.expected())
        assert open_active(world.root).search("pump 1").generation == old
    done = {one.manifest.id: one.embedded for one in sync(world.generations, world.corpus)}
    assert done[old] <= 60
    assert world.texts(old) == world.expected()
    assert verify(world.generations, old, world.corpus).state == "active"


def test_a_read_only_folder_is_an_error_that_leaves_everything_as_it_was(
    drive: Drive, world: World, models: tuple[Path, Path]
) -> None:
    old, new = ready(world, models[0]), ready(world, models[1])
    world.generations.cutover(old, override="first")
    world.write(documents(range(70)))
    everything = [world.root, *world.root.rglob("*")]
    before = {path: path.read_bytes() for path in everything if path.is_file()}
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for action in ("sync", f"cutover {new}", "gc", f"build {models[1]} force"):
            assert "PermissionError" in drive(world, action, powerless=True)["error"], action
        assert drive(world, "cli sync", powerless=True)["error"] == "SystemExit: 2"
        assert (
            drive(world, "cli list", powerless=True)["error"] == "SystemExit: 0"
        )  # reading needs no writing
        assert open_active(world.root).search("pump 1").generation == old
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.read_bytes() for path in before} == before
    sync(world.generations, world.corpus)
    assert world.texts(old) == world.expected()
