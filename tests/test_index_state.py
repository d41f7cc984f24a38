"""State files, checksums and leases: damage is refused by name and repaired from proof, never guessed or served."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from generations_kit import World, documents, static_model
from nearer.cli import app
from nearer.errors import FingerprintError, NearerError, StoreError
from nearer.files import write_json
from nearer.live.index import leases, on_disk
from nearer.live.index.build import build
from nearer.live.index.generations import Generations
from nearer.live.index.leases import HeldError, Lease, readers
from nearer.live.index.manifest import Manifest
from nearer.live.index.reader import open_active
from nearer.live.index.repair import repair
from nearer.live.index.searcher import Searcher
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify
from nearer.types import Query


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("static")
    return static_model(folder / "a", seed=1), static_model(folder / "b", seed=2)


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, models: tuple[Path, Path]
) -> tuple[Path, str, str]:
    """A project with an active generation and one to roll back to."""
    root = tmp_path_factory.mktemp("prepared") / "project"
    world = World(root, models[0]).write(documents(range(20)))
    old, new = ready(world, models[0]), ready(world, models[1])
    world.generations.cutover(old, override="first")
    world.generations.cutover(new, override="second")
    return root, old, new


@pytest.fixture
def two(prepared: tuple[Path, str, str], tmp_path: Path) -> tuple[World, str, str]:
    root, old, new = prepared
    shutil.copytree(root, tmp_path / "project")
    return World.at(tmp_path / "project"), old, new


def ready(world: World, model: Path) -> str:
    """A new generation, verified."""
    encoder = world.encoder(model)
    made = build(world.generations, world.corpus, encoder, str(model), today=False, force=True)
    assert verify(world.generations, made.manifest.id, world.corpus).state == "verified"
    return made.manifest.id


def command(world: World, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "-c", str(world.root / "nearer.yaml"), "--json"])


# -- state files ---------------------------------------------------------------------------------

SHAPES = ["null", "[]", "7", '"text"', "{}", "{broken", '{"id": 7, "previous": [], "entry": 1}', ""]


@pytest.mark.parametrize("content", [*SHAPES, '{"id": "00000000-1", "later": 1}'])
def test_a_damaged_active_is_named_and_restored_from_history(
    content: str, two: tuple[World, str, str]
) -> None:
    world, old, new = two
    path = world.root / "generations" / "ACTIVE"
    before = json.loads(path.read_text())
    path.write_text(content)
    for words in (("index", "list"), ("index", "rollback"), ("index", "gc"), ("index", "sync")):
        done = command(world, *words)
        assert done.exit_code == 2, done.output
        assert "ACTIVE" in done.output
        assert "nearer index repair" in done.output
    assert path.read_text() == content
    done = command(world, "index", "repair")
    assert done.exit_code == 0, done.output
    assert json.loads(path.read_text()) == before
    assert path.with_name("ACTIVE.damaged-1").read_text() == content
    assert open_active(world.root).search("pump").generation == new
    assert world.generations.rollback().id == old


@pytest.mark.parametrize("content", [*SHAPES, '{"generation": "x"}'])
def test_a_damaged_rollout_stops_no_answer_and_is_restored(
    content: str, two: tuple[World, str, str], models: tuple[Path, Path]
) -> None:
    world, _, new = two
    tried = ready(world, models[0])
    world.generations.start_rollout(tried, "canary", 0.25)
    path = world.root / "generations" / "ROLLOUT"
    before = json.loads(path.read_text())
    path.write_text(content)
    assert Searcher(world.generations).ask("pump")
    done = command(world, "shadow", "stop")
    assert done.exit_code == 2, done.output
    assert "nearer index repair" in done.output
    repair(world.generations)
    restored = json.loads(path.read_text())
    assert restored == before | {"since": restored["since"]}
    assert world.generations.stop_rollout() == tried
    path.write_text(content)
    repair(world.generations)
    assert world.generations.rollout() is None
    assert open_active(world.root).search("pump").generation == new


@pytest.mark.parametrize(
    "line",
    [b"{broken", b"[]", b"null", b"\xff\xfe", b'{"time": "x", "action": "cutover", "to": "y"}'],
)
def test_a_bad_line_of_history_stops_nothing_and_is_set_aside(
    line: bytes, two: tuple[World, str, str]
) -> None:
    world, old, _ = two
    path = world.root / "generations" / "history.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + b"".join(rest))
    entries = len(rest) + 1
    done = command(world, "index", "rollback")
    assert done.exit_code == 0, done.output
    assert "history.jsonl:2" in done.output
    assert world.generations.pointer().id == old
    (made,) = repair(world.generations)
    assert made.done == "left out line 2"
    assert len(world.generations.history()) == entries + 1
    assert line in path.with_name(str(made.kept)).read_bytes()
    assert repair(world.generations) == []


def test_nothing_is_removed_while_active_is_gone(two: tuple[World, str, str]) -> None:
    world, old, new = two
    (world.root / "generations" / "ACTIVE").unlink()
    for attempt in (world.generations.gc, lambda: world.generations.drop(old)):
        with pytest.raises(StoreError, match=f"by the history {new} is active"):
            attempt()
    assert {one.name for one in world.root.glob("generations/????????-*")} == {old, new}
    repair(world.generations)
    assert (world.generations.pointer().id, world.generations.pointer().previous) == (new, old)


def test_what_history_does_not_prove_is_asked_for(two: tuple[World, str, str]) -> None:
    world, old, new = two
    folder = world.root / "generations"
    path = folder / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + b"lost\n")  # the last move cannot be read
    (folder / "ACTIVE").unlink()
    done = command(world, "index", "repair")
    assert done.exit_code == 2, done.output
    assert "--active" in done.output
    assert not (folder / "ACTIVE").exists()
    done = command(world, "index", "repair", "--active", new)
    assert done.exit_code == 0, done.output
    assert (world.generations.pointer().id, world.generations.pointer().previous) == (new, old)


@pytest.mark.parametrize("content", [*SHAPES, '{"id": 1}'])
def test_a_damaged_manifest_is_refused_by_name(content: str, two: tuple[World, str, str]) -> None:
    world, old, _ = two
    (world.root / "generations" / old / "manifest.json").write_text(content)
    for words in (("index", "show", old), ("index", "list"), ("index", "gc")):
        done = command(world, *words)
        assert done.exit_code == 2, done.output
        assert "damaged" in done.output


def test_every_line_of_history_counts_where_the_clock_stands_still(
    two: tuple[World, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, old, new = two
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    monkeypatch.setattr(on_disk, "now", lambda: now)
    before = len(world.generations.history())
    for _ in range(3):
        world.generations.rollback(who="ann")
        verify(world.generations, new, world.corpus)
        world.generations.cutover(new, override="again", who="ann")
    history = world.generations.history()
    assert len(history) == before + 6
    assert len({entry["seq"] for entry in history}) == len(history)
    assert [entry["to"] for entry in history[before:]] == [old, new] * 3


def test_a_last_line_that_only_lost_its_end_is_kept(two: tuple[World, str, str]) -> None:
    world, _, _ = two
    path = world.root / "generations" / "history.jsonl"
    entries = list(world.generations.history())
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert list(world.generations.history()) == entries
    world.generations.gc()
    assert list(world.generations.history()) == entries
    assert path.read_bytes().endswith(b"\n")


# -- what a generation serves --------------------------------------------------------------------


def test_a_cutover_that_dies_before_the_move_changes_no_decision(
    two: tuple[World, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, old, _ = two
    verify(world.generations, old, world.corpus)
    served = world.generations.manifest(old).decision
    with monkeypatch.context() as patch:
        patch.setattr(Generations, "_move", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.generations.cutover(old, override="never happened")
    world.generations.rollback()
    assert world.generations.manifest(old).decision == served == {"override": "first"}


# -- leases --------------------------------------------------------------------------------------


def test_gc_leaves_what_a_reader_holds_until_its_note_ends(
    two: tuple[World, str, str], models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, old, new = two
    service = Searcher(world.generations, waiting=False)
    world.generations.rollback()
    service.refresh()
    assert service.generation == old
    world.generations.cutover(new, override="test")
    third = ready(world, models[0])
    world.generations.cutover(third, override="test")  # not looked at yet
    assert world.generations.gc()[0] == []
    with pytest.raises(HeldError, match="process"):
        world.generations.drop(old)
    assert service.search([Query("0", "pump")]).results["0"]
    service.refresh()
    service.opened(third)
    service.refresh()
    assert world.generations.gc()[0] == [old]
    late = time.time() + 10 * leases.SECONDS
    monkeypatch.setattr(time, "time", lambda: late)
    assert readers(world.generations.folder) == []


def test_a_reader_that_is_gone_holds_nothing(two: tuple[World, str, str]) -> None:
    world, _, new = two
    searcher = Searcher(world.generations)
    searcher.ask("pump")
    assert [note.holds for note in readers(world.generations.folder)] == [{new}]
    del searcher
    assert readers(world.generations.folder) == []


def test_a_damaged_note_holds_everything_for_its_time(two: tuple[World, str, str]) -> None:
    world, old, _ = two
    lease = Lease(world.generations.folder)
    lease.hold([old])
    (path,) = (world.generations.folder / ".readers").glob(".*.json")
    for content in ("", "[]", "null", '{"holds": 7}'):
        path.write_text(content)
        (note,) = readers(world.generations.folder)
        assert note.holds is None


def test_a_folder_that_cannot_be_written_can_be_read(
    two: tuple[World, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, _ = two

    def refuse(*_: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(leases, "write_json", refuse)
    assert Searcher(world.generations).ask("pump")


def test_a_generation_that_is_being_removed_is_not_opened(two: tuple[World, str, str]) -> None:
    world, old, _ = two
    path = world.root / "generations" / old / "manifest.json"
    write_json(path, json.loads(path.read_text()) | {"state": "dropping"})
    with pytest.raises(StoreError, match="being removed"):
        Searcher(world.generations, old).ask("pump")


# -- parts ---------------------------------------------------------------------------------------


def part_of(world: World, generation: str, number: int = 0) -> Path:
    return sorted((world.root / "generations" / generation / "parts").glob("*.arrow"))[number]


def zeroed(path: Path, row: int = 3) -> None:
    """One vector of a part becomes zero, as a bad block would leave it."""
    raw = path.read_bytes()
    table = pa.ipc.open_file(raw).read_all()
    vector = table["vector"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)[row]
    start = raw.index(vector.tobytes())
    path.write_bytes(raw[:start] + bytes(vector.nbytes) + raw[start + vector.nbytes :])


def text_changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"version 1", b"version 7", 1))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [zeroed, text_changed, cut_short])
def test_a_damaged_part_is_found_by_verify_and_never_loaded(
    damage: Callable[[Path], None], two: tuple[World, str, str]
) -> None:
    world, _, new = two
    path = part_of(world, new)
    damage(path)
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    failed = {check["check"]: check["found"] for check in report["checks"] if not check["passed"]}
    assert path.name in failed["parts"]
    shutil.rmtree(world.root / "vectors" / new)  # the table is lost: parts bring it back
    with pytest.raises(StoreError, match="damaged") as refused:
        sync(world.generations, world.corpus)
    assert refused.value.where == str(path)
    path.unlink()  # as the error says
    done = {one.manifest.id: one for one in sync(world.generations, world.corpus)}
    assert done[new].embedded == 8
    assert world.texts(new) == world.expected()
    report = verify(world.generations, new, world.corpus, full=True).verified
    assert report is not None
    assert report["passed"]


def test_a_part_with_any_spoiled_byte_is_refused_by_name_or_says_the_same(
    two: tuple[World, str, str],
) -> None:
    """In the footer pyarrow raises OSError for what it cannot parse: no error of the disk."""
    from nearer.live.index.parts import read_part, require_whole

    world, _, new = two
    path = part_of(world, new)
    manifest = world.generations.manifest(new)
    expected = manifest.parts[path.name]
    whole = path.read_bytes()
    original, gone = read_part(path, manifest.fingerprint)
    refused = []
    for place in [*range(0, len(whole), 37), *range(len(whole) - 600, len(whole), 2)]:
        spoiled = bytearray(whole)
        spoiled[place] ^= 0xFF
        other = path.with_name("spoiled.arrow")
        other.unlink(missing_ok=True)  # tables are mapped into memory: never write into one
        other.write_bytes(spoiled)
        try:
            table, still_gone = read_part(other, manifest.fingerprint)
            require_whole(other, table, expected)
        except (StoreError, FingerprintError) as error:
            refused.append(str(error.where))
        else:  # a byte of padding
            assert table.equals(original), place
            assert still_gone == gone, place
    assert len(refused) > 100
    assert set(refused) == {str(path.with_name("spoiled.arrow"))}


def test_another_part_in_the_place_of_one_is_found_and_nothing_is_loaded_from_it(
    two: tuple[World, str, str],
) -> None:
    world, _, new = two
    path = part_of(world, new)
    path.write_bytes(part_of(world, new, 1).read_bytes())
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    failed = {check["check"]: check["found"] for check in report["checks"] if not check["passed"]}
    assert "not the part that this generation was built from" in failed["parts"]
    shutil.rmtree(world.root / "vectors" / new)
    done = {one.manifest.id: one for one in sync(world.generations, world.corpus)}
    assert done[new].embedded == 8
    assert world.texts(new) == world.expected()


def test_gc_gives_a_damaged_part_no_new_checksum(two: tuple[World, str, str]) -> None:
    world, _, new = two
    world.write([*documents([0], version=2), *documents(range(1, 20))])
    sync(world.generations, world.corpus)
    path = part_of(world, new)
    zeroed(path)
    damaged = path.read_bytes()
    world.generations.gc()
    assert path.read_bytes() == damaged
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    assert not report["passed"]


def test_compacted_parts_have_their_new_checksums(two: tuple[World, str, str]) -> None:
    world, _, new = two
    world.write([*documents([0], version=2), *documents(range(1, 18))])
    sync(world.generations, world.corpus)
    assert world.generations.gc()[1] > 0
    kept = world.generations.manifest(new).parts
    assert kept.keys() == {path.name for path in part_of(world, new).parent.glob("*.arrow")}
    report = verify(world.generations, new, world.corpus, full=True).verified
    assert report is not None
    assert report["passed"], report


def test_verify_full_compares_every_stored_vector(two: tuple[World, str, str]) -> None:
    world, _, new = two
    (array,) = sorted((world.root / "vectors" / new).glob("00000002.npy"))
    vectors = np.load(array)
    vectors[5, :3] += 0.001  # too little for the sample to see
    np.save(array, vectors)
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    assert report["passed"]
    report = verify(world.generations, new, world.corpus, full=True).verified
    assert report is not None
    failed = [check["check"] for check in report["checks"] if not check["passed"]]
    assert failed == ["stored vectors"]


def test_parts_of_an_older_version_are_taken_and_get_checksums(two: tuple[World, str, str]) -> None:
    world, _, new = two
    for path in part_of(world, new).parent.glob("*.arrow"):
        table = pa.ipc.open_file(path.read_bytes()).read_all()
        meta = {key: value for key, value in table.schema.metadata.items() if key != b"checksum"}
        with pa.ipc.new_file(str(path), table.schema.with_metadata(meta)) as writer:
            writer.write_table(table.replace_schema_metadata(meta))
    manifest = world.root / "generations" / new / "manifest.json"
    values = json.loads(manifest.read_text())
    values.pop("parts")
    manifest.write_text(json.dumps(values))
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    assert "older version" in json.dumps(report)
    sync(world.generations, world.corpus)
    assert len(Manifest.read(manifest).parts) == 3
    zeroed(part_of(world, new))
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    assert not report["passed"]


def test_parts_whose_checksum_alone_was_made_to_fit_are_refused(
    two: tuple[World, str, str],
) -> None:
    from nearer.live.index.parts import _sealed, write_part

    world, _, new = two
    path = part_of(world, new)
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    write_part(path, _sealed(table.slice(1)))
    report = verify(world.generations, new, world.corpus).verified
    assert report is not None
    assert "not the part that this generation was built from" in json.dumps(report)
    shutil.rmtree(world.root / "vectors" / new)
    with pytest.raises(NearerError):
        sync(world.generations, world.corpus)


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("00000001.npy", None),
        ("00000001.npy", b"\x00" * 64),
        ("00000001.jsonl", None),
        ("00000001.jsonl", b"[]\n"),
        ("00000001.jsonl", b"{lost"),
        ("manifest.json", b"[]"),
        ("manifest.json", b"{"),
    ],
)
def test_a_damaged_table_is_refused_and_brought_back_by_its_parts(
    pattern: str, content: bytes | None, two: tuple[World, str, str]
) -> None:
    world, _, new = two
    table = world.root / "vectors" / new
    path = table / pattern
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as refused:
        open_active(world.root).search("pump")
    assert refused.value.where == str(table)
    shutil.rmtree(table)  # as the error says
    done = {one.manifest.id: one for one in sync(world.generations, world.corpus)}
    assert (done[new].embedded, done[new].loaded) == (0, 20)
    assert world.texts(new) == world.expected()
