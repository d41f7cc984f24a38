"""Guardrails in words: what a verdict says of those that passed, are open, or were not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Rows of `guardrails` in decision.json: `name`, `status` (`guardrails.base: Status`), figures.
Guards = Sequence[Mapping[str, Any]]


def names_with(guards: Guards, status: str) -> list[str]:
    """Names of the guardrails with this status."""
    return [str(guard["name"]) for guard in guards if guard["status"] == status]


def doubtful(guards: Guards) -> list[str]:
    """Names of the inconclusive guardrails whose measured change does not settle them."""
    return names_with([guard for guard in guards if not _is_unchecked(guard)], "inconclusive")


def unchecked(guards: Guards) -> list[str]:
    """Names of the inconclusive guardrails of which nothing was measured."""
    return names_with([guard for guard in guards if _is_unchecked(guard)], "inconclusive")


def _is_unchecked(guard: Mapping[str, Any]) -> bool:
    return guard.get("delta") is None and "reason" in guard


def that_are_open(guards: Guards) -> str:
    """A clause that names the inconclusive guardrails; empty where there is none."""
    clauses = []
    in_doubt, not_checked = doubtful(guards), unchecked(guards)
    if in_doubt:
        clauses.append(f"{', '.join(in_doubt)} may have lost more than the margin allows")
    if not_checked:
        clauses.append(f"{', '.join(not_checked)} could not be checked")
    return ", and ".join(clauses)


def that_passed(guards: Guards) -> str:
    """A clause on guardrails of which none fails or is open; it names those that nobody measured."""
    passed, left_out = names_with(guards, "pass"), names_with(guards, "not measured")
    if left_out:
        clause = (
            "every guardrail that was measured passes" if passed else "no guardrail was measured"
        )
        return f"{clause} (not measured: {', '.join(left_out)})"
    return "every guardrail passes" if passed else "no guardrail applies"


def guard_reasons(guards: Guards) -> list[str]:
    """A reason for each guardrail that fails or is open; one for all where every one passes."""
    reasons = []
    for name in names_with(guards, "fail"):
        reasons.append(f"guardrail {name} fails")
    for name in doubtful(guards):
        reasons.append(f"guardrail {name} is open: it may have lost more than its margin")
    for name in unchecked(guards):
        reasons.append(f"guardrail {name} is open: it could not be checked")
    passed = len(names_with(guards, "pass"))
    if passed and not reasons:
        measured = " that were measured" if names_with(guards, "not measured") else ""
        reasons.append(f"all {passed} guardrails{measured} pass")
    return reasons
