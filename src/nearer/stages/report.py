"""report: what to show the people who must agree.  Reads the files of a run, writes report.html and report.md."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nearer import files
from nearer.errors import DataError
from nearer.lifecycle import STAGES, STEP
from nearer.project import Project
from nearer.report import markdown, page
from nearer.report.content import ReportData
from nearer.results import Block, Line, Result, short_path

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


@dataclass(frozen=True)
class Report(Result):
    """The report as HTML and as Markdown; `folder` is where it is or will be."""

    html: str = field(repr=False)
    markdown: str = field(repr=False)
    folder: Path

    def save(self, folder: Path) -> None:
        """`report.html` and `report.md`."""
        files.write_text(folder / "report.html", self.html)
        files.write_text(folder / "report.md", self.markdown)

    @classmethod
    def load(cls, folder: Path) -> Report:
        html = (folder / "report.html").read_text(encoding="utf-8")
        return cls(html, (folder / "report.md").read_text(encoding="utf-8"), folder)

    def brief(self) -> dict[str, Any]:
        return {
            "html": str(self.folder / "report.html"),
            "bytes": len(self.html.encode("utf-8")),
        }

    def blocks(self) -> list[Block]:
        return [Line(""), Line(f"report: {short_path(self.folder / 'report.html')}")]


RESULT = Report


def run(project: Project) -> Report:
    """Write the report.  Only `decide/decision.json` must be there; other files may be missing."""
    folder = project.earlier("decide/decision.json").parent.parent
    data = load(folder.name, project.perhaps)
    return Report(page.render(data), markdown.render(data), folder / "report")


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
