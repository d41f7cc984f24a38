"""A person's approval: it holds for one decision, and a cut-over asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from generations_kit import World, documents, static_model
from nearer.cli import app
from nearer.decision.record import DecisionRecord
from nearer.decision.sign_off import DECISION, LOG, decision_hash, is_void, sign, signed, standing
from nearer.errors import DataError, MissingStepError, StoreError
from nearer.files import content_hash, read_json, write_json
from nearer.live.index.build import build
from nearer.live.index.verify import verify
from nearer.report.sections import verdict

RECORD: dict[str, Any] = {
    "verdict": "ship",
    "recommended": "fine-tuned",
    "candidates": [{"name": "fine-tuned", "fingerprint": "f"}],
    "sign_off": None,
}


def test_an_approval_holds_for_this_record_only() -> None:
    approved = signed(RECORD, " Ann Lee ", "2026-05-03T10:00:00", note="agreed")
    given = standing(approved)
    assert given is not None
    assert (given.by, given.note, given.verdict) == ("Ann Lee", "agreed", "ship")
    assert standing(RECORD) is None
    assert not is_void(RECORD)
    changed = {**approved, "verdict": "do_not_ship"}
    assert standing(changed) is None
    assert is_void(changed)
    reordered = dict(reversed(list(approved.items())))
    assert standing(reordered) is not None


@pytest.mark.parametrize(
    "value", [None, 7, [], {}, {"sign_off": "Ann"}, {"sign_off": {"by": "Ann"}}]
)
def test_nonsense_is_no_approval(value: Any) -> None:
    assert standing(value) is None


def test_nobody_cannot_approve_and_nothing_cannot_be_approved() -> None:
    with pytest.raises(DataError, match="name of a person"):
        signed(RECORD, "  ", "2026-05-03")
    with pytest.raises(DataError, match="no verdict"):
        signed({}, "Ann", "2026-05-03")


def decided(run_dir: Path) -> Path:
    folder = run_dir / "decide"
    folder.mkdir(parents=True)
    write_json(folder / DECISION, RECORD)
    write_json(folder / "examples.json", {})
    outputs = {name: content_hash(folder / name) for name in (DECISION, "examples.json")}
    write_json(folder / "step.json", {"stage": "decide", "outputs": outputs})
    return folder


def test_signing_changes_the_decision_alone_and_leaves_it_fresh(tmp_path: Path) -> None:
    folder = decided(tmp_path)
    given = sign(tmp_path, tmp_path / ".work" / "aside", "Ann", "2026-05-03", note=None)
    record = read_json(folder / DECISION)
    assert standing(record) == given
    assert {**record, "sign_off": None} == RECORD
    outputs = read_json(folder / "step.json")["outputs"]
    assert outputs[DECISION] == content_hash(folder / DECISION)
    assert json.loads((tmp_path / LOG).read_text())["decision"] == decision_hash(RECORD)
    assert sorted(path.name for path in (tmp_path / ".work").iterdir()) == []


def test_a_decision_that_was_edited_by_hand_still_looks_edited(tmp_path: Path) -> None:
    folder = decided(tmp_path)
    before = read_json(folder / "step.json")
    write_json(folder / DECISION, {**RECORD, "verdict": "inconclusive"})
    sign(tmp_path, tmp_path / ".work" / "aside", "Ann", "2026-05-03")
    assert read_json(folder / "step.json") == before


def test_without_a_decision_there_is_nothing_to_sign(tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match="no decision to sign"):
        sign(tmp_path, tmp_path / "aside", "Ann", "2026-05-03")


def test_the_report_says_who_signed_and_that_an_older_approval_does_not_count() -> None:
    approved = signed(RECORD, "Ann Lee", "2026-05-03", note="agreed")
    shown = verdict(DecisionRecord.of(approved))["sign_off"]
    assert "Ann Lee" in shown
    assert "does not count" not in shown
    changed = DecisionRecord.of({**approved, "recommended": "another"})
    assert "does not count" in verdict(changed)["sign_off"]


# -- cut-over --------------------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[World, str, Path]:
    """A world where one generation answers and another waits, with a decision that ships it."""
    models = [static_model(tmp_path / f"model-{seed}", seed) for seed in (0, 1)]
    world = World(tmp_path / "project", models[0]).write(documents(range(10)))
    made = []
    for model in models:
        built = build(
            world.generations,
            world.corpus,
            world.encoder(model),
            model.name,
            today=model is models[0],
        )
        verify(world.generations, built.manifest.id, world.corpus)
        made.append(built.manifest.id)
    world.generations.cutover(made[0])  # the first one of today's model: no decision, no approval
    chosen = {"name": "fine-tuned", "fingerprint": world.encoder(models[1]).fingerprint.id}
    record = {"verdict": "ship", "recommended": "fine-tuned", "candidates": [chosen]}
    path = world.root / "runs" / "default" / "decide" / DECISION
    path.parent.mkdir(parents=True)
    write_json(path, record)
    return world, made[1], path


def test_a_cutover_asks_for_an_approval_of_this_decision(waiting: tuple[World, str, Path]) -> None:
    world, new, path = waiting
    with pytest.raises(StoreError, match="nobody has signed") as refused:
        world.generations.cutover(new)
    assert "nearer sign-off --by NAME" in str(refused.value)
    older = signed({**read_json(path), "verdict": "use_simpler_fix"}, "Ann", "2026-05-03")
    write_json(path, {**older, "verdict": "ship"})
    with pytest.raises(StoreError, match="not of this decision"):
        world.generations.cutover(new)
    write_json(path, signed(read_json(path), "Ann", "2026-05-03"))
    world.generations.cutover(new)
    served = world.generations.manifest(new).decision
    assert served is not None
    assert served["sign_off"]["by"] == "Ann"


def test_an_override_or_the_setting_stands_in_for_it(waiting: tuple[World, str, Path]) -> None:
    world, new, _ = waiting
    world.generations.cutover(new, override="the shop is down")
    (*_, last) = world.generations.history()
    assert last["why"] == "the shop is down"
    world.generations.rollback()
    world.settings["decide"] = {"require_sign_off": False}
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    world.generations.cutover(new)
    assert "sign_off" not in (world.generations.manifest(new).decision or {})


# -- the command -----------------------------------------------------------------------------------


def test_the_command_signs_and_refuses(write_project: Any, tmp_path: Path) -> None:
    path = write_project(tmp_path / "p")

    def nearer(*words: str | Path) -> Any:
        return CliRunner().invoke(app, [*map(str, words), "-c", str(path)])

    assert nearer("sign-off", "--by", "Ann").exit_code == 2
    decided(path.parent / "runs" / "default")
    assert nearer("sign-off", "--by", " ").exit_code == 2
    result = nearer("sign-off", "--by", "Ann", "--note", "agreed", "--json")
    assert result.exit_code == 0, result.output
    given = json.loads(result.stdout)
    assert (given["by"], given["note"], given["outdated"]) == ("Ann", "agreed", True)
    assert "Ann signed ship" in nearer("sign-off", "--by", "Ann").output
