"""What the charts of several sections share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from nearer.report import charts
from nearer.report.values import as_pair, as_text, fixed


def in_both_widths(draw: Callable[[int], Markup | None]) -> Markup:
    """A chart drawn for wide and for narrow windows; the style sheet shows one."""
    wide = draw(charts.WIDE)
    narrow = draw(charts.NARROW)
    return Markup("").join([wide or "", narrow or ""])


def mark_with_interval(
    label: Any, value: float, interval: Any, tone: str, show: Callable[[Any], str] = fixed
) -> charts.Mark:
    low, high = as_pair(interval) or (None, None)
    note = show(value)
    if low is not None:
        note += f" [{show(low)}, {show(high)}]"
    return charts.Mark(as_text(label, 80), value, low, high, note, tone)
