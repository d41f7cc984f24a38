"""Whether a gain of the search reaches the context and the answers, in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Json = Mapping[str, Any]


def finding(retrieval: Json, measured: Iterable[Json]) -> str:
    """What becomes of the change of a retrieval measure further on.

    `retrieval` is a row of `comparisons`; `measured` are those of one measure of contexts or of
    answers each, of the same two systems.
    """
    parts = [_part(retrieval, row) for row in measured]
    if not parts:
        return ""
    return f"{_change(retrieval)}; {'; '.join(parts)}"


def _part(retrieval: Json, row: Json) -> str:
    change = _change(row)
    if row["outcome"] == "worse":
        return f"{change}: worse"
    if retrieval["outcome"] != "better":
        return f"{change}: {row['outcome']}"
    if row["outcome"] == "better":
        return f"{change}: the gain reaches it"
    return f"{change}: the gain is not shown to reach it"


def reaches(retrieval: Json, row: Json) -> bool | None:
    """Whether a shown gain of the search is shown here too; None where there is no gain to reach it."""
    if retrieval["outcome"] != "better":
        return None
    return bool(row["outcome"] == "better")


def _change(row: Json) -> str:
    delta, low, high = (_signed(value) for value in (row["delta"], *row["ci"]))
    return f"{row['measure']} {delta} ({low} to {high}, n {row['n']:,})"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
