"""The example of a gate in CI: it parses, and every command in it is one that nearer has."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nearer.cli import app

EXAMPLE = Path(__file__).parents[1] / "examples" / "ci"
ACTION = EXAMPLE / "gate" / "action.yml"
WORKFLOW = EXAMPLE / "search-quality.yml"


def steps_of(path: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(path.read_text())
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


def commands() -> list[list[str]]:
    """Every line of the example that starts nearer, as words."""
    lines = []
    for path in (ACTION, WORKFLOW):
        for step in steps_of(path):
            for line in str(step.get("run", "")).splitlines():
                if line.strip().startswith("nearer "):
                    lines.append(shlex.split(line.split("||")[0]))
    return lines


def test_every_option_of_the_example_exists() -> None:
    root = typer.main.get_command(app)
    found = commands()
    assert {words[1] for words in found} == {"gate", "run"}
    for words in found:
        command = root.commands[words[1]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("path", [ACTION, WORKFLOW], ids=lambda path: path.name)
def test_no_value_of_an_event_is_pasted_into_a_script(path: Path) -> None:
    """A branch or a title with a quote in it must not become a command: scripts read the environment."""
    for step in steps_of(path):
        assert "${{" not in str(step.get("run", ""))


def test_the_scripts_are_valid_shell() -> None:
    for step in steps_of(ACTION):
        subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


def test_the_workflow_gives_what_the_action_takes() -> None:
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    given = [step["with"] for step in steps_of(WORKFLOW) if "search-gate" in step.get("uses", "")]
    assert len(given) == 1
    assert set(given[0]) <= set(inputs)
    needed = {name for name, value in inputs.items() if value.get("required")}
    assert needed <= set(given[0])


@pytest.mark.parametrize(("code", "passes"), [(0, True), (1, False), (2, False)])
def test_the_check_is_red_when_the_gate_says_no_and_the_comment_is_written_first(
    tmp_path: Path, code: int, passes: bool
) -> None:
    """The first script runs with a stand-in for nearer; the last one repeats its exit code."""
    gate, *_, last = steps_of(ACTION)
    stand_in = tmp_path / "nearer"
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" > "{tmp_path}/words"\necho said > "$COMMENT"\nexit {code}\n'
    )
    stand_in.chmod(0o755)
    comment, summary, output = (tmp_path / name for name in ("comment.md", "summary", "output"))
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "CONFIG": "nearer.yaml",
        "AGAINST": "main",
        "RUN": "pr",
        "SLICES": "true",
        "COMMENT": str(comment),
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    shell = ["bash", "-eo", "pipefail", "-c"]
    subprocess.run([*shell, gate["run"]], env=environment, check=True)
    assert summary.read_text() == "said\n"
    words = (tmp_path / "words").read_text().split()
    assert (
        words
        == f"gate --config nearer.yaml --run pr --against main --markdown {comment} --slices".split()
    )
    told = re.search(r"^code=(\d)$", output.read_text(), flags=re.MULTILINE)
    assert told is not None
    ended = subprocess.run(
        [*shell, last["run"]], env={"CODE": told[1], "PATH": "/bin"}, check=False
    )
    assert (ended.returncode == 0) is passes
