"""The table of candidates as people see it in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.results import Block, Line, Row, Table

_COLUMNS = ("candidate", "seconds", "dev", "seen", "unseen", "embed again", "size")
_GAP = "–"


def candidate_blocks(table: Mapping[str, Any]) -> list[Block]:
    """One row per candidate, and why the chosen one was; nothing where nothing else was tried."""
    rows = [_row(line) for line in table.get("candidates", ())]
    if not rows:
        return []
    queries = table["queries"]
    counts = f"{queries['seen']} dev queries with seen documents, {queries['unseen']} without"
    blocks: list[Block] = [Table(_COLUMNS, rows), Line(f"{table['reason']}; {counts}", "dim")]
    for line in table.get("not_tried", ()):
        blocks.append(Line(f"{line['name']} was not tried: {line['reason']}", "dim"))
    return blocks


def _row(line: Mapping[str, Any]) -> Row:
    name = f"{line['name']} (reference)" if line["reference"] else str(line["name"])
    cells = (
        name,
        f"{line['seconds']:.1f}",
        _change(line["dev"]),
        _change(line["seen"]),
        _change(line["unseen"]),
        str(line["reindex"]),
        _megabytes(line["size_bytes"]),
    )
    return Row(cells, "bold" if line["chosen"] else "")


def _change(change: Mapping[str, Any] | None) -> str:
    if change is None:
        return _GAP
    return f"{change['before']:.3f} → {change['after']:.3f} ({change['gain']:+.3f})"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
