"""Steps rerun when content changes, and nothing finished is ever lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nearer import config, files, progress, workspace
from nearer.errors import BusyError, MissingStepError, UndeclaredReadError
from nearer.lifecycle import Stage
from nearer.project import Project
from nearer.results import Line
from nearer.workspace import Workspace

FIRST = Stage("first", "?", reads=("corpus",), settings=("mine",))
SECOND = Stage("second", "?", reads=("first/out.txt",), settings=("train",))
STAGES = (FIRST, SECOND)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two stages that copy their input and say that they ran; `first` reads the corpus."""
    ran: list[str] = []

    def run(project: Project) -> Any:
        assert project.stage is not None
        name = project.stage.name
        ran.append(name)
        source = (
            project.root / "corpus.jsonl"
            if project.stage is FIRST
            else project.earlier("first/out.txt")
        )
        text = source.read_text().upper()
        return SimpleNamespace(
            save=lambda folder: (folder / "out.txt").write_text(text),
            brief=lambda: {"by": name},
            blocks=lambda: [Line(text)],
        )

    monkeypatch.setattr(workspace, "STAGES", STAGES)
    monkeypatch.setattr(workspace, "BY_NAME", {stage.name: stage for stage in STAGES})
    real = __import__("importlib").import_module
    fake = SimpleNamespace(run=run)
    monkeypatch.setattr(
        "importlib.import_module",
        lambda name, *a: fake if name.startswith("nearer.stages.") else real(name, *a),
    )
    return ran


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "one"}\n')
    return tmp_path


def space(root: Path, **sections: Any) -> Workspace:
    return Workspace(root, config.build({"data": {"corpus": "corpus.jsonl"}, **sections}))


def states(results: Any) -> list[str]:
    return [result.status for result in results]


def test_a_second_run_computes_nothing(root: Path, calls: list[str]) -> None:
    assert states(space(root).run(STAGES)) == ["done", "done"]
    assert states(space(root).run(STAGES)) == ["fresh", "fresh"]
    assert calls == ["first", "second"]


def test_touching_a_file_changes_nothing_and_changing_its_content_does(
    root: Path, calls: list[str]
) -> None:
    space(root).run(STAGES)
    os.utime(root / "corpus.jsonl")
    assert states(space(root).run(STAGES)) == ["fresh", "fresh"]
    (root / "corpus.jsonl").write_text('{"_id": "d1", "text": "two"}\n')
    assert states(space(root).run(STAGES)) == ["done", "done"]


def test_a_setting_recomputes_only_what_depends_on_it(root: Path, calls: list[str]) -> None:
    space(root).run(STAGES)
    assert states(space(root, train={"epochs": 1}).run(STAGES)) == ["fresh", "done"]
    assert states(space(root, decide={"min_gain": 0.2}, train={"epochs": 1}).run(STAGES)) == [
        "fresh",
        "fresh",
    ]
    # `first` runs again, but what it wrote is the same: nothing below it needs to
    assert states(space(root, mine={"negatives": 3}, train={"epochs": 1}).run(STAGES)) == [
        "done",
        "fresh",
    ]


def test_force_recomputes(root: Path, calls: list[str]) -> None:
    space(root).run(STAGES)
    assert states(space(root).run((SECOND,), force=True)) == ["done"]
    assert calls == ["first", "second", "second"]


class Heard(progress.Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str, level: str) -> None:
        self.said.append(text)


def test_a_file_replaced_by_hand_is_used_and_never_overwritten_unasked(
    root: Path, calls: list[str]
) -> None:
    space(root).run(STAGES)
    mine = root / "runs" / "default" / "first" / "out.txt"
    mine.write_text("by hand")
    heard = Heard()
    with progress.listen(heard):
        assert states(space(root, mine={"negatives": 4}).run(STAGES)) == ["kept", "done"]
    assert "--force" in heard.said[0]
    assert (root / "runs" / "default" / "second" / "out.txt").read_text() == "BY HAND"
    assert states(space(root).run((FIRST,), force=True)) == ["done"]
    assert mine.read_text() != "by hand"


def test_a_folder_somebody_else_wrote_stands_for_the_stage(root: Path, calls: list[str]) -> None:
    other = root / "runs" / "default" / "first"
    other.mkdir(parents=True)
    (other / "out.txt").write_text("theirs")
    assert states(space(root).run(STAGES)) == ["kept", "done"]
    assert calls == ["second"]


def test_a_lost_output_is_made_again(root: Path, calls: list[str]) -> None:
    space(root).run(STAGES)
    (root / "runs" / "default" / "second" / "out.txt").unlink()
    assert states(space(root).run(STAGES)) == ["fresh", "done"]


def test_a_step_that_fails_leaves_the_old_result_whole(
    root: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space(root).run(STAGES)
    before = (root / "runs" / "default" / "first" / "step.json").read_text()

    def fails(folder: Path) -> None:
        (folder / "out.txt").write_text("half")
        raise OSError(28, "No space left on device")

    result = SimpleNamespace(save=fails)
    stage = SimpleNamespace(run=lambda project: result)
    monkeypatch.setattr("importlib.import_module", lambda *_: stage)
    with pytest.raises(OSError, match="No space"):
        space(root, mine={"negatives": 9}).run(STAGES)
    assert (root / "runs" / "default" / "first" / "step.json").read_text() == before
    assert (
        root / "runs" / "default" / "first" / "out.txt"
    ).read_text() == '{"_ID": "D1", "TEXT": "ONE"}\n'


def test_a_kill_between_the_two_renames_is_mended(root: Path, calls: list[str]) -> None:
    here = space(root)
    here.run(STAGES)
    (here.run_dir / ".work").mkdir(exist_ok=True)
    os.rename(here.run_dir / "first", here.aside(FIRST))
    assert states(space(root).run(STAGES)) == ["fresh", "fresh"]


def test_a_second_writer_is_told_who_holds_the_run(root: Path, calls: list[str]) -> None:
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
        "f.write('4711'); f.flush(); print('held', flush=True); time.sleep(60)"
    )
    here = space(root)
    here.run_dir.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(here.run_dir / ".lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(BusyError, match="4711"):
            here.run(STAGES)
    finally:
        holder.kill()
        holder.wait()


def test_a_missing_earlier_step_names_the_command(root: Path, calls: list[str]) -> None:
    with pytest.raises(MissingStepError) as caught:
        space(root).run((SECOND,))
    assert caught.value.next_step == "nearer first"


def test_status_tells_fresh_from_stale_and_waiting(root: Path, calls: list[str]) -> None:
    assert [row["state"] for row in space(root).status()] == ["missing", "waiting"]
    space(root).run(STAGES)
    assert [row["state"] for row in space(root).status()] == ["fresh", "fresh"]
    assert [row["state"] for row in space(root, mine={"negatives": 5}).status()] == [
        "stale",
        "stale",
    ]


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_reading_what_is_not_declared_raises(root: Path, calls: list[str]) -> None:
    space(root).run(STAGES)
    project = space(root).project_for("second")
    assert project.earlier("first/out.txt").is_file()
    assert project.perhaps("first/step.json").is_file()  # every stage may read when another ran
    for undeclared in ("first", "first/out.txt.bak", "first/other.txt", "second/out.txt"):
        with pytest.raises(UndeclaredReadError, match="does not declare"):
            project.earlier(undeclared)
    with pytest.raises(UndeclaredReadError):
        project.uses("model")
    space(root).project_for("first").uses("data", "corpus")


def test_what_rests_on_something_stale_says_so(root: Path, calls: list[str]) -> None:
    space(root).run(STAGES)
    said: list[str] = []

    class Listener(progress.Silent):
        def message(self, text: str, level: str) -> None:
            said.append(text)

    (root / "corpus.jsonl").write_text('{"_id": "d1", "text": "two"}\n')
    with progress.listen(Listener()):
        (alone,) = space(root).run((SECOND,))
    assert alone.status == "fresh"
    assert alone.stale_inputs == ("first",)
    assert any(
        "first changed since it ran" in text and "nearer run --to second" in text for text in said
    )
    together = space(root).run(STAGES)
    assert [result.stale_inputs for result in together] == [(), ()]


def test_only_what_a_stage_rests_on_is_hashed(
    root: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Stage("other", "?", reads=("model",), settings=("evaluate",))
    stages = (other, *STAGES)
    monkeypatch.setattr(workspace, "STAGES", stages)
    monkeypatch.setattr(workspace, "BY_NAME", {stage.name: stage for stage in stages})
    space(root).run(STAGES)
    hashed: list[str] = []
    inputs = Workspace.inputs

    def counted(self: Workspace, stage: Stage) -> dict[str, Any]:
        hashed.append(stage.name)
        return inputs(self, stage)

    monkeypatch.setattr(Workspace, "inputs", counted)
    (alone,) = space(root).run((SECOND,))
    assert hashed == ["first", "second"]
    assert alone.stale_inputs == ()  # `other` never ran, and nothing here rests on it


def test_what_was_computed_just_now_is_shown_without_its_files(
    root: Path, calls: list[str]
) -> None:
    first = space(root).run((FIRST,))[0]
    shutil.rmtree(first.path)
    assert [block.text for block in first.blocks()] == ['{"_ID": "D1", "TEXT": "ONE"}\n']


def test_stages_share_the_corpus_and_no_stage_keeps_the_systems_of_another(root: Path) -> None:
    run = space(root)
    evaluate, mine = run.project_for("evaluate"), run.project_for("mine")
    assert evaluate.corpus is mine.corpus
    assert evaluate.systems is evaluate.systems
    assert evaluate.systems is not mine.systems
    assert all("systems" not in str(name) for name in run.project.parts)
