"""The frontier of a merge: what is gained on dev against what is lost of ordinary language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nearer.report.charts.drawing import axis_around, dot, frame, horizontal, path, svg, text
from nearer.report.charts.drawing import vertical as line_down
from nearer.report.values import signed

_WIDTH = 368
_LEFT, _RIGHT = 52.0, _WIDTH - 22.0
_TOP, _BOTTOM = 26.0, 196.0


@dataclass(frozen=True, slots=True)
class Step:
    """A model on the way from its base (0) to the trained one (1), and its change against the base."""

    weight: float
    gain: float  # on dev
    lost: float  # on the general set; below 0: it became better
    chosen: bool = False

    @property
    def label(self) -> str:
        return f"{self.weight:.0%}"


def frontier(steps: Sequence[Step], *, title: str, allowed: float | None = None) -> Markup | None:
    """Gain upwards, loss to the right, the steps joined in the order of their weights.

    The base model is drawn at 0, 0, the chosen step is marked, and a dashed line stands at the loss
    that is `allowed`.  None for fewer than two steps, the base included.
    """
    way = sorted(steps, key=lambda step: step.weight)
    if not way or way[0].weight > 0:
        way.insert(0, Step(0.0, 0.0, 0.0, not any(step.chosen for step in steps)))
    if len(way) < 2:
        return None
    bounds = [step.lost for step in way]
    if allowed is not None:
        bounds.append(allowed)
    x = axis_around(bounds, _LEFT, _RIGHT, 4)
    y = axis_around([step.gain for step in way], _BOTTOM, _TOP, sign=True)
    body = frame(x, y)
    body.append(horizontal(x.start, x.stop, y(0.0), "reference"))
    if allowed is not None:
        body.append(line_down(x(allowed), _TOP, _BOTTOM, "reference"))
        body.append(text(x(allowed), _TOP - 8, "allowed", "tick", "middle"))
    pixels = [(x(step.lost), y(step.gain)) for step in way]
    body.append(path(pixels, "line"))
    for step, (left, top) in zip(way, pixels, strict=True):
        if step.chosen:
            body.append(dot(left, top, 6, "best"))
            body.append(text(left - 9, top + 4, step.label, "label after", "end"))
        else:
            body.append(dot(left, top, 3, "point"))
    return svg(_WIDTH, _BOTTOM + 26, body, title, _described(way))


def _described(way: Sequence[Step]) -> str:
    parts = []
    for step in way:
        mark = ", chosen" if step.chosen else ""
        parts.append(f"{step.label}: {signed(step.gain)} gained, {signed(step.lost)} lost{mark}")
    return "; ".join(parts) + "."
