"""report: what to show the people who must agree.  Reads the files of a run, writes report.html and report.md."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nearer import files
from nearer.errors import DataError
from nearer.lifecycle import STAGES
from nearer.report import markdown, page
from nearer.report.content import ReportData
from nearer.workspace import STEP, StepContext

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


def step(context: StepContext) -> dict[str, Any]:
    """Write the report.  Only `decide/decision.json` must be there; other files may be missing."""
    context.earlier("decide/decision.json")
    data = load(context.run_dir.name, context.perhaps)
    html = page.render(data)
    files.write_text(context.out / "report.html", html)
    files.write_text(context.out / "report.md", markdown.render(data))
    # The work folder is renamed to run_dir/report when the step returns.
    return {
        "html": str(context.run_dir / context.stage.name / "report.html"),
        "bytes": len(html.encode("utf-8")),
    }


def load(run: str, file: Callable[[str], Path]) -> ReportData:
    """The files of a run as values; missing ones are empty.

    `file` gives the path of a file below the run.  Raises DataError for one that is damaged.
    """
    history, trials = file("train/history.jsonl"), file("fix/trials.jsonl")
    steps = {
        stage.name: _object(file(f"{stage.name}/{STEP}"))
        for stage in STAGES
        if stage.name != "report"
    }
    return ReportData(
        run=run,
        decision=_object(file("decide/decision.json")),
        examples=_object(file("decide/examples.json")),
        margins=_object(file("decide/margins.json")),
        history=list(files.read_jsonl(history)) if history.is_file() else [],
        training=_object(file("train/summary.json")),
        mining=_object(file("mine/summary.json")),
        check=_object(file("check/findings.json")),
        evaluation=_object(file("evaluate/summary.json")),
        diagnosis=_object(file("diagnose/summary.json")),
        fixes=_object(file("fix/summary.json")),
        trials=list(files.read_jsonl(trials)) if trials.is_file() else [],
        steps={name: record for name, record in steps.items() if record},
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _object(path: Path) -> dict[str, Any]:
    value = files.read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise DataError(
            "must hold a JSON object",
            where=str(path),
            next_step="restore the file or rerun its stage with --force",
        )
    return value
