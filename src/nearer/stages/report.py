"""report: what to show the people who must agree.

Reads the files of a run; writes report.html, and the same facts as report.md and report.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nearer import files
from nearer.decision.mistakes import in_production, read_mistakes
from nearer.live.monitor.production import production_of
from nearer.project import Project
from nearer.report import facts, markdown, page
from nearer.report.data import load, read_reviews
from nearer.results import Block, Line, Result, short_path


@dataclass(frozen=True)
class Report(Result):
    """The report as HTML, as Markdown and as values; `folder` is where it is or will be."""

    html: str = field(repr=False)
    markdown: str = field(repr=False)
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def save(self, folder: Path) -> None:
        """`report.html`, `report.md` and `report.json`."""
        files.write_text(folder / "report.html", self.html)
        files.write_text(folder / "report.md", self.markdown)
        files.write_json(folder / "report.json", self.facts)

    @classmethod
    def load(cls, folder: Path) -> Report:
        html = (folder / "report.html").read_text(encoding="utf-8")
        text = (folder / "report.md").read_text(encoding="utf-8")
        facts = folder / "report.json"
        return cls(html, text, folder, files.read_json(facts) if facts.is_file() else {})

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
    project.uses("review")
    reviews = read_reviews(project.root / "review", folder / "decide" / "decision.json")
    data = replace(data, reviews=reviews)
    project.uses("production")
    found = read_mistakes(project.perhaps("decide/mistakes.json"))
    rows = [row.as_dict() for row in in_production(found, production_of(project.root))]
    data = replace(data, mistakes=rows)
    told = facts.facts(data)
    return Report(page.render(data), markdown.render(data), folder / "report", told)
