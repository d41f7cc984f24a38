"""The files of a run, parsed: the one place that knows which file the report finds what in.

A file that is missing is empty, and a file may hold less or more than the stages write today: the
sections of the report leave a gap for what they do not find.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nearer import files
from nearer.decision.record import DecisionRecord
from nearer.errors import DataError
from nearer.lifecycle import STAGES, STEP
from nearer.report.values import Json

PACKAGES = (
    "nearer",
    "sentence-transformers",
    "transformers",
    "torch",
    "numpy",
    "scipy",
    "bm25s",
    "ir-measures",
)


#: Field of `ReportData` → the file below the run that it is read from.
FILES = {
    "decision": "decide/decision.json",
    "examples": "decide/examples.json",
    "margins": "decide/margins.json",
    "neighbours": "decide/neighbours.json",
    "queries": "decide/queries.json",
    "answers": "decide/answers.jsonl",
    "history": "train/history.jsonl",
    "training": "train/summary.json",
    "candidates": "train/candidates.json",
    "mining": "mine/summary.json",
    "mined": "mine/sample.jsonl",
    "check": "check/findings.json",
    "evaluation": "evaluate/summary.json",
    "diagnosis": "diagnose/summary.json",
    "failures": "diagnose/failures.jsonl",
    "fixes": "fix/summary.json",
    "trials": "fix/trials.jsonl",
    "task": "decide/task.json",
    "task_on_dev": "evaluate/task.json",
}


@dataclass(frozen=True, slots=True)
class ReportData:
    """The parsed files of one run (see `FILES`); every one but `decision` may be empty."""

    run: str = ""
    decision: Json = field(default_factory=dict)
    examples: Json = field(default_factory=dict)  # queries that changed most, with ranked lists
    margins: Json = field(default_factory=dict)  # histograms of similarity, before and after
    neighbours: Json = field(default_factory=dict)  # texts in the plane, before and after
    queries: Json = field(default_factory=dict)  # every judged query, with both ranked lists
    answers: Sequence[Json] = ()  # of a language model, by query and system
    history: Sequence[Json] = ()  # loss and dev measure, by training step
    training: Json = field(default_factory=dict)
    candidates: Json = field(default_factory=dict)  # what else was tried in place of that training
    mining: Json = field(default_factory=dict)
    mined: Sequence[Json] = ()  # some training examples with their texts
    check: Json = field(default_factory=dict)
    evaluation: Json = field(default_factory=dict)
    diagnosis: Json = field(default_factory=dict)
    failures: Sequence[Json] = ()  # one line per failure, with its cause
    fixes: Json = field(default_factory=dict)  # the ladder of simpler fixes
    trials: Sequence[Json] = ()  # each fix at each setting, alone
    mistakes: Sequence[Json] = ()  # the common ones, as production says of them now
    task: Json = field(default_factory=dict)  # what the task measured besides, on test
    task_on_dev: Json = field(default_factory=dict)  # the same of today's system, on dev
    steps: Mapping[str, Json] = field(default_factory=dict)  # stage → its step.json
    versions: Mapping[str, str] = field(default_factory=dict)  # package → version
    reviews: Json = field(default_factory=dict)  # what the reviews say: summary, history

    @property
    def decided(self) -> DecisionRecord:
        """The decision as typed values; what is missing or nonsense is a gap."""
        return DecisionRecord.of(self.decision)


def load(run: str, file: Callable[[str], Path]) -> ReportData:
    """The files of a run as values; missing ones are empty.

    `file` gives the path of a file below the run.  Raises DataError for one that is damaged.
    """
    values = {attribute: _read(file(name)) for attribute, name in FILES.items()}
    steps = {}
    for stage in STAGES:
        if stage.name == "report":
            continue  # its own record says nothing of what is in the report
        record = _read(file(f"{stage.name}/{STEP}"))
        if record:
            steps[stage.name] = record
    return ReportData(run=run, steps=steps, versions=_versions(), **values)


def read_reviews(folder: Path, decision: Path) -> Json:
    """What people reviewed, from the project's folder `review`, and the hash of the present decision."""
    return {
        "summary": _read(folder / "summary.json"),
        "history": _read(folder / "history.jsonl"),
        "odd_one_out": _read(folder / "odd_one_out.json"),
        "decision": files.content_hash(decision),
    }


def _read(path: Path) -> Any:
    """The object of a JSON file, or the lines of a JSONL file; empty where there is no file."""
    if path.suffix == ".jsonl":
        return list(files.read_jsonl(path)) if path.is_file() else []
    if not path.is_file():
        return {}
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise DataError(
            "must hold a JSON object",
            where=str(path),
            next_step="restore the file or rerun its stage with --force",
        )
    return value


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as far as installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
