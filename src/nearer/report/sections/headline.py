"""The section that stands first: the verdict and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.report import content, values
from nearer.report.values import Json, as_number, as_objects, as_text, fixed, signed

#: Value, label, and a note below the label.
Figure = tuple[str, str, str]


def verdict(decision: Json) -> Json:
    """The sentence, the badge, and the figures that stand beside them."""
    word, tone = content.badge(decision)
    undecided = "This run has not been decided yet."
    if tone != "none":
        undecided = f"{word}."
    return {
        "word": word,
        "tone": tone,
        "sentence": decision.get("sentence") or undecided,
        "figures": _headline_figures(decision) + _guardrail_figures(decision),
        "sign_off": _sign_off(decision.get("sign_off")),
        "n_queries": as_number(decision.get("n_queries")),
        "test_looks": as_number(decision.get("test_looks")),
        "seeds": as_number(decision.get("seeds")),
    }


def _headline_figures(decision: Json) -> list[Figure]:
    """Gain, interval and p of the headline; the recommended system alone where there is none."""
    head = content.headline(decision)
    measure = content.primary(decision)
    if not head:
        recommended = decision.get("recommended")
        system = content.candidate(decision, recommended)
        value = content.mean(system, measure)
        if value is None:
            return []
        return [(fixed(value), f"{measure}, {as_text(recommended, 80)}", "")]
    ends = []
    for key in ("baseline", "candidate"):
        system = content.candidate(decision, head.get(key))
        ends.append(fixed(content.mean(system, measure)))
    name = as_text(head.get("candidate"), 80)
    level = content.level(decision)
    interval = values.span(head.get("ci"), signed)
    least = fixed(decision.get("min_gain"))
    counts = [values.whole(head.get(key)) for key in ("wins", "ties", "losses")]
    p = values.p_value(head.get("p"))
    return [
        (
            " → ".join(ends),
            f"{measure}, today → {name}",
            "",
        ),
        (
            signed(head["delta"]),
            f"gain, {level}% interval {interval}",
            f"minimum useful gain {least}",
        ),
        (
            " · ".join(counts),
            "queries better · same · worse",
            f"p {p}",
        ),
    ]


def _guardrail_figures(decision: Json) -> list[Figure]:
    rows = as_objects(decision.get("guardrails"))
    if not rows:
        return []
    passed = sum(row.get("status") == "pass" for row in rows)
    return [(f"{passed} of {len(rows)}", "guardrails passed", "")]


def _sign_off(value: Any) -> str:
    if not isinstance(value, Mapping):
        return as_text(value)
    facts = values.facts(value)
    return " · ".join(f"{label}: {figure}" for label, figure in facts)
