"""The section that stands first: the verdict and its figures."""

from __future__ import annotations

from collections.abc import Mapping

from nearer.decision.record import DecisionRecord
from nearer.decision.showing import origin_sentence
from nearer.decision.sign_off import is_void
from nearer.report import content, values
from nearer.report.values import Json, as_text, fixed, signed

#: Value, label, and a note below the label.
Figure = tuple[str, str, str]


def verdict(decided: DecisionRecord) -> Json:
    """The sentence, the badge, and the figures that stand beside them."""
    word, tone = content.badge(decided)
    undecided = "This run has not been decided yet."
    if tone != "none":
        undecided = f"{word}."
    return {
        "word": word,
        "tone": tone,
        "sentence": decided.sentence or undecided,
        "figures": _headline_figures(decided) + _guardrail_figures(decided),
        "sign_off": _sign_off(decided),
        "n_queries": decided.n_queries,
        "origin": origin_sentence(decided),
        "test_looks": decided.test_looks,
        "seeds": decided.seeds,
    }


def _headline_figures(decided: DecisionRecord) -> list[Figure]:
    """Gain, interval and p of the headline; the recommended system alone where there is none."""
    head = content.headline(decided)
    measure = content.primary(decided)
    if head is None:
        value = _mean(decided, decided.recommended, measure)
        if value is None:
            return []
        return [(fixed(value), f"{measure}, {as_text(decided.recommended, 80)}", "")]
    ends = [fixed(_mean(decided, name, measure)) for name in (head.baseline, head.candidate)]
    name = as_text(head.candidate, 80)
    level = content.level(decided)
    interval = values.span(head.ci, signed)
    counts = [values.whole(count) for count in (head.wins, head.ties, head.losses)]
    return [
        (
            " → ".join(ends),
            f"{measure}, today → {name}",
            "",
        ),
        (
            signed(head.delta),
            f"gain, {level}% interval {interval}",
            f"minimum useful gain {fixed(decided.min_gain)}",
        ),
        (
            " · ".join(counts),
            "queries better · same · worse",
            f"p {values.p_value(head.p)}",
        ),
    ]


def _mean(decided: DecisionRecord, name: str, measure: str) -> float | None:
    """Mean of a measure of the candidate of that name."""
    candidate = decided.candidate(name)
    return None if candidate is None else candidate.mean(measure)


def _guardrail_figures(decided: DecisionRecord) -> list[Figure]:
    """How many of the guardrails passed that have something to guard; how many nobody measured."""
    statuses = [row.status for row in decided.guardrails if row.status != "does not apply"]
    if not statuses:
        return []
    left_out = statuses.count("not measured")
    note = f"{left_out} not measured" if left_out else ""
    return [(f"{statuses.count('pass')} of {len(statuses)}", "guardrails passed", note)]


def _sign_off(decided: DecisionRecord) -> str:
    """Who approved, when and why; that it does not count where it is not of this decision."""
    value = decided.sign_off
    if not isinstance(value, Mapping):
        return as_text(value)
    shown = {key: value[key] for key in value if key != "decision"}
    facts = " · ".join(f"{label}: {figure}" for label, figure in values.facts(shown))
    if is_void(decided.as_dict()):
        return f"{facts} (not of this decision as it stands: it does not count)"
    return facts
