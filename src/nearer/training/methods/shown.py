"""Candidates, and the trials of a search, as people see them in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.results import Block, Line, Row, Table

_COLUMNS = ("candidate", "seconds", "dev", "seen", "unseen", "embed again", "size")
_TRIALS = ("round", "settings", "seconds", "steps")
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


def search_blocks(search: Mapping[str, Any] | None, measure: str) -> list[Block]:
    """One row per trial, the best of each round first, and what was chosen; nothing without a search."""
    if not search:
        return []
    rows = []
    chosen = search["chosen"]
    for trial in sorted(search["trials"], key=_by_round):
        dev = trial["stopped"] if trial["dev"] is None else f"{trial['dev']:.3f}"
        cells = (str(trial["round"] + 1), trial["label"], f"{trial['seconds']:.0f}")
        tone = "bold" if trial["arm"] == chosen["arm"] else ""
        rows.append(Row((*cells, str(trial["steps"]), dev), tone))
    sentence = (
        f"{search['arms']} settings tried in {search['seconds']:.0f} of {search['budget']:.0f} s; "
        f"taken: {chosen['label']} ({search['reason']})"
    )
    return [Table((*_TRIALS, f"dev {measure}"), rows, prose=("settings",)), Line(sentence, "dim")]


def _by_round(trial: Mapping[str, Any]) -> tuple[int, float]:
    score = float("-inf") if trial["dev"] is None else trial["dev"]
    return trial["round"], -score


def _row(line: Mapping[str, Any]) -> Row:
    name = f"{line['name']} (reference)" if line["reference"] else str(line["name"])
    scores = line.get("seeds", {}).get("scores", ())
    if len(scores) > 1:
        name += f", {len(scores)} seeds {min(scores):.3f} to {max(scores):.3f}"
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
