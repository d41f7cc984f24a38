"""What a task found, for the terminal: its sheets as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.results import Block, Line, Row, Table

_MOST_ROWS = 15


def blocks_of(found: Mapping[str, Any]) -> list[Block]:
    """The sheets and notes of `task.json`; nothing where there are none."""
    blocks: list[Block] = []
    for sheet in found.get("sheets", ()):
        columns = tuple(map(str, sheet["columns"]))
        rows = [Row(tuple(cell(value) for value in row)) for row in sheet["rows"][:_MOST_ROWS]]
        blocks += [Line(""), Line(sheet["title"], "bold"), Table(columns, rows, columns[:1])]
    for note in found.get("notes", ()):
        blocks.append(Line(f"  · {note}", "dim"))
    return blocks


def cell(value: Any) -> str:
    """A value of a sheet as people read it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}".replace("-", "−")
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
