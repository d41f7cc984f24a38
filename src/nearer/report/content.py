"""What both the page and the pull request say, before it is laid out.

Each function reads one part of the parsed files; what is missing there is left out of the sentence
or the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

from nearer.decision.record import ComparisonRecord, DecisionRecord, SliceRecord
from nearer.report.values import (
    DASH,
    Json,
    as_list,
    as_number,
    as_object,
    as_objects,
    as_pair,
    as_text,
    fixed,
    signed,
    span,
    whole,
    words,
)

# verdict → (words on the badge, tone)
VERDICTS = {
    "ship": ("Ship it", "good"),
    "use_simpler_fix": ("Use a simpler fix", "warn"),
    "do_not_ship": ("Do not ship", "bad"),
    "inconclusive": ("Inconclusive", "warn"),
}
# status of a guardrail, answer of the checklist, outcome of a fix → tone
STATUS = {
    "pass": "good",
    "fail": "bad",
    "inconclusive": "warn",
    "not measured": "warn",
    "yes": "good",
    "no": "bad",
    "unknown": "warn",
    "kept": "good",
}


# -- the decision ----------------------------------------------------------------------------------


def badge(decided: DecisionRecord) -> tuple[str, str]:
    """Words and tone of the verdict."""
    return VERDICTS.get(decided.verdict, ("No verdict", "none"))


def primary(decided: DecisionRecord) -> str:
    """The measure that decides."""
    return as_text(decided.primary, 40) or "nDCG@10"


def level(decided: DecisionRecord) -> int:
    """Confidence level in percent: 95 for alpha .05."""
    alpha = decided.alpha
    if alpha is not None and 0 < alpha < 1:
        return round(100 * (1 - alpha))
    return 95


def compared(decided: DecisionRecord) -> ComparisonRecord | None:
    """The comparison that slices, margins and examples are about."""
    return _comparison(decided, decided.compared.candidate)


def headline(decided: DecisionRecord) -> ComparisonRecord | None:
    """The comparison with the baseline that carries the verdict.

    It is that of the recommended system, or of the one turned down where the baseline stays.
    """
    recommended = decided.recommended
    if recommended and recommended != decided.compared.baseline:
        return _comparison(decided, recommended)
    return compared(decided)


def _comparison(decided: DecisionRecord, name: str | None) -> ComparisonRecord | None:
    """A system's comparison with the baseline on the primary measure.

    None where there is none: the gain of another system would mislead.
    """
    if not name:
        return None
    wanted = (name, decided.compared.baseline, primary(decided))
    for row in decided.comparisons:
        described = (row.candidate, row.baseline, row.measure)
        if described == wanted and row.delta is not None:
            return row
    return None


def measured_change(row: ComparisonRecord | SliceRecord) -> float:
    """The change of a row, for sorting; none is the smallest."""
    return -math.inf if row.delta is None else row.delta


def changed_slices(decided: DecisionRecord) -> list[SliceRecord]:
    """Slices with a change, the largest first, equal ones in their own order."""
    rows = [row for row in decided.slices if row.delta is not None]
    return sorted(rows, key=measured_change, reverse=True)


def slice_margin(decided: DecisionRecord) -> float | None:
    """The drop that the guardrails of slices allow; None where there is none, or several."""
    margins = set()
    for row in decided.guardrails:
        if row.name.startswith("slice") and row.margin is not None:
            margins.add(row.margin)
    return margins.pop() if len(margins) == 1 else None


def measure_names(decided: DecisionRecord) -> list[str]:
    """Measures that any candidate has, the primary first."""
    names = {primary(decided): None}
    for row in decided.candidates:
        names |= dict.fromkeys(row.measures)
    present = []
    for name in names:
        if any(row.mean(name) is not None for row in decided.candidates):
            present.append(name)
    return present


def mean(row: Json, measure: str) -> float | None:
    """Mean of a measure of one system of the evaluation."""
    measures = as_object(row.get("measures"))
    return as_number(as_object(measures.get(measure)).get("mean"))


def has_measure(rows: Iterable[Json], measure: str) -> bool:
    """Whether any of the systems of the evaluation has a mean of the measure."""
    return any(mean(row, measure) is not None for row in rows)


# -- why queries fail ------------------------------------------------------------------------------


def counts_in_words(counts: Any) -> list[str]:
    """What was counted, as `3 × reason`."""
    entries = islice(as_object(counts).items(), 12)
    return [f"{whole(count)} × {as_text(name, 160)}" for name, count in entries]


def causes(diagnosis: Json) -> list[Json]:
    """Steps of the waterfall that repair something, each with its failures, share and kinds."""
    steps = []
    for row in as_objects(diagnosis.get("steps")):
        if (as_number(row.get("failures")) or 0) > 0:
            steps.append(row)
    total = sum(float(row["failures"]) for row in steps)
    kinds = as_object(diagnosis.get("kinds"))
    rows: list[Json] = []
    for row in steps:
        cause = as_text(row.get("cause"), 60)
        failures = float(row["failures"])
        written = {
            "cause": cause,
            "name": words(cause),
            "failures": failures,
            "share": failures / total,
            "kinds": counts_in_words(kinds.get(cause)),
        }
        rows.append({**row, **written})
    return rows


def failures_sentence(diagnosis: Json) -> str:
    """How many queries fail, what share is semantic, and what fine-tuning can add at most."""
    failing = whole(diagnosis.get("n_failing_queries"))
    total = whole(diagnosis.get("n_queries"))
    names = as_list(diagnosis.get("splits"))[:4]
    splits = " and ".join(as_text(name, 20) for name in names)
    first = whole(diagnosis.get("k"))
    sentence = f"{failing} of {total} {splits} queries find no relevant document among the first"
    sentence = f"{sentence} {first}".replace("  ", " ")
    rows = causes(diagnosis)
    if rows:
        sentence += _semantic_share(rows) + _ceiling(diagnosis)
    return f"{sentence}.{_not_tried(diagnosis, 'probe')}"


def _semantic_share(rows: list[Json]) -> str:
    failures = whole(sum(row["failures"] for row in rows))
    semantic = sum(row["share"] for row in rows if row["cause"] == "semantic")
    left = f", which leaves {failures} relevant documents unfound. "
    if not semantic:
        return f"{left}None of these failures was shown to be semantic"
    return (
        f"{left}{semantic:.0%} of these failures are semantic: every cheaper repair was tried on "
        "them, and none comes near"
    )


def _ceiling(diagnosis: Json) -> str:
    """What the measure becomes if every semantic failure finds its document first."""
    ceiling = as_object(diagnosis.get("fine_tuning_ceiling"))
    today = as_number(ceiling.get("today"))
    reached = as_number(ceiling.get("if_found"))
    possible = as_number(ceiling.get("if_unknown_were_semantic"))
    if today is None or reached is None:
        return ""
    measure = as_text(ceiling.get("measure"), 40)
    gain = f"{signed(reached - today)} of {measure}"
    change = f"{fixed(today)} → {fixed(reached)}"
    semantic = reached > today
    sentence = ""
    if semantic:
        sentence = f". Finding them first adds {gain} ({change}), the ceiling of fine-tuning"
    if possible is not None and possible > reached:
        added = signed(possible - today)
        if semantic:
            return f"{sentence}; {added} if the unknown ones were semantic too"
        return f". Fine-tuning could add at most {added} of {measure} if all unknown ones were semantic"
    return sentence


def _not_tried(summary: Json, key: str) -> str:
    """A sentence on what was not tried, and what would try it; empty where there is nothing."""
    reasons: dict[str, list[str]] = {}
    for row in as_objects(summary.get("not_tried"))[:8]:
        reason = as_text(row.get("why"), 120)
        command = as_text(row.get("next"), 120)
        reasons.setdefault(words(row.get(key, "")), []).append(f"{reason}; {command}")
    if not reasons:
        return ""
    names = [f"{name} ({' | '.join(texts)})" for name, texts in reasons.items()]
    return f" Not tried: {', '.join(names)}."


# -- simpler fixes ---------------------------------------------------------------------------------


def fix_steps(ladder: Json) -> list[Json]:
    """Steps of the ladder in order, with gain, kept or not, and the share of failures repaired.

    There is no gain where a fix was not tried or does not apply.
    """
    rows: list[Json] = []
    for row in as_objects(ladder.get("rungs")):
        delta = as_object(row.get("delta"))
        written = {
            "name": words(row.get("fix", "")),
            "gain": as_number(delta.get("mean")),
            "ci": delta.get("ci"),
            "share": repaired_share(row),
            "kept": _outcome(row.get("kept"), tried=bool(delta)),
        }
        rows.append({**row, **written})
    return rows


def _outcome(kept: Any, tried: bool) -> str:
    if kept is True:
        return "kept"
    return "not kept" if tried else ""


def repaired_share(row: Json) -> str:
    """Share of the diagnosed failures that a step, or the whole ladder, repairs."""
    repaired = total = 0.0
    for value in as_object(row.get("failures_repaired")).values():
        counts = as_pair(value)
        if counts is not None:
            repaired += counts[0]
            total += counts[1]
    if not total > 0:
        return DASH
    return f"{repaired / total:.0%}"


def fixes_sentence(ladder: Json, percent: int) -> str:
    """Where the baseline stands, which fixes are kept, and what they reach.

    `percent` is the confidence level.  Empty without a ladder.
    """
    steps = fix_steps(ladder)
    if not steps:
        if not ladder.get("skipped"):
            return ""
        return f"Not measured: {as_text(ladder['skipped'], 200)}."
    label = as_text(ladder.get("today_label"), 120) or DASH
    measure = as_text(ladder.get("measure"), 40)
    today = fixed(ladder.get("today"))
    queries = whole(ladder.get("n_queries"))
    sentence = (
        f"Today's system ({label}) has {measure} {today} on the {queries} development queries"
    )
    sentence += _kept(steps, ladder, percent)
    return f"{sentence}.{_not_tried(ladder, 'fix')}"


def _kept(steps: list[Json], ladder: Json, percent: int) -> str:
    """What the kept fixes reach together, or that none was kept."""
    names = [row["name"] for row in steps if row["kept"] == "kept"]
    if not names:
        tried = sum(bool(row["kept"]) for row in steps)
        return (
            f". None of the {tried} simpler fixes that were tried brings a real gain: none was kept"
        )
    delta = as_object(ladder.get("delta"))
    share = repaired_share(ladder)
    reached = fixed(ladder.get("best_measure"))
    gain = signed(delta.get("mean"))
    interval = span(delta.get("ci"), signed)
    together = " + ".join(names[:12])
    sentence = f"; with {together} it reaches {reached} ({gain}, {percent}% interval {interval})"
    if share != DASH:
        sentence += f" and repairs {share} of the failures diagnosed there"
    return sentence
