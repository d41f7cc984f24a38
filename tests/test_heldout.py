"""Only `decide` opens test, by structure."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import nearer
from nearer.data.heldout import HeldOut, open_test
from nearer.data.splits import read_split, write_split
from nearer.errors import DataError, HeldOutError
from nearer.types import Query, Split

SOURCE = Path(nearer.__file__).parent


def test_only_decide_calls_the_door_to_test() -> None:
    callers = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Name | ast.Attribute)
                and (node.id if isinstance(node, ast.Name) else node.attr) == "open_test"
            ):
                callers.add(path.relative_to(SOURCE).as_posix())
    assert callers == {"stages/decide.py"}


def test_only_decide_reads_the_scored_pairs_of_test() -> None:
    callers: dict[str, set[str]] = {"open_test_pairs": set(), "read_pairs": set()}
    homes = (
        "nearer.data.heldout",
        "nearer.data.scored",
    )  # reviews have a `read_pairs` of their own
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in homes:
                for imported in node.names:
                    if imported.name in callers:
                        callers[imported.name].add(path.relative_to(SOURCE).as_posix())
    assert callers["open_test_pairs"] == {"stages/decide.py"}
    # `check` freezes them and reads dev back; a project's own door refuses test.
    assert callers["read_pairs"] == {"data/heldout.py", "stages/check.py", "project.py"}


def test_only_decide_and_the_notebook_interface_name_the_test_split() -> None:
    settings = {"settings/data.py", "settings/system.py"}
    allowed = {"stages/decide.py", "stages/check.py", "project.py", "types.py"} | settings
    named = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("test", "check/split/test")
    }
    # What brings data divides it, as data/ does; only `check` asks it to (`Project.loaded`).
    # The report says on which queries something was measured.
    bring_data = {"tasks/recommend/data.py", "tasks/cluster/data.py", "report/facts.py"}
    assert {name for name in named if not name.startswith("data/")} <= allowed | bring_data


def test_the_usual_way_to_read_a_split_refuses_test(tmp_path: Path) -> None:
    write_split(tmp_path, Split("test", (Query("q", "secret"),), {"q": {"d": 1}}))
    with pytest.raises(HeldOutError):
        read_split(tmp_path, "test")


def test_every_look_is_on_record_before_the_queries_are_read(tmp_path: Path) -> None:
    write_split(tmp_path, Split("test", (Query("q", "secret"),), {"q": {"d": 1}}))
    log = tmp_path / "looks.jsonl"
    for _ in range(2):
        assert open_test(tmp_path, log, "a test").queries[0].text == "secret"
    assert len(log.read_text().splitlines()) == 2


def test_the_guard_knows_held_out_queries_without_holding_their_text(tmp_path: Path) -> None:
    texts = [
        "A remote attacker can read arbitrary files through the upload form of the server",
        "short one",
    ]
    guard = HeldOut.of(texts, 0.8)
    guard.save(tmp_path / "heldout.npz")
    stored = (tmp_path / "heldout.npz").read_bytes()
    assert not any(word in stored for word in (b"attacker", b"upload", b"short"))
    loaded = HeldOut.load(tmp_path / "heldout.npz")
    assert loaded.collides(texts[0].upper()) == "exact"
    assert loaded.collides(texts[0] + " today") == "near-duplicate"
    assert loaded.collides("something else entirely, about cooking pasta") is None


def test_a_guard_of_no_queries_knows_nothing_and_is_read_back(tmp_path: Path) -> None:
    HeldOut.of([], 0.8).save(tmp_path / "heldout.npz")
    loaded = HeldOut.load(tmp_path / "heldout.npz")
    assert len(loaded) == 0
    assert loaded.collides("anything") is None


def test_a_damaged_guard_is_refused_and_lets_nothing_through(tmp_path: Path) -> None:
    path = tmp_path / "heldout.npz"
    HeldOut.of(["one two three four", "five six seven eight"], 0.8).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    shorter = {**arrays, "lengths": arrays["lengths"][:1]}
    with open(path, "wb") as handle:
        np.savez(handle, **shorter)
    with pytest.raises(DataError, match="not a guard"):
        HeldOut.load(path)
    for content in (b"", b"nonsense", b"PK\x03\x04 torn"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a guard"):
            HeldOut.load(path)
    with open(path, "wb") as handle:
        np.save(handle, arrays["exact"])
    with pytest.raises(DataError, match="not a guard"):
        HeldOut.load(path)


def test_a_damaged_test_split_is_refused_and_costs_no_look(tmp_path: Path) -> None:
    write_split(tmp_path, Split("test", (Query("q", "secret"),), {"q": {"d": 1}}))
    log = tmp_path / "looks.jsonl"
    for text in ("nonsense\n", "[1]\n", "{}\n"):
        (tmp_path / "test" / "queries.jsonl").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            open_test(tmp_path, log, "a test", lambda ids: None)
    assert not log.exists()
