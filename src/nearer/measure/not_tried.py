"""Simpler fixes that nobody tried, in words: what is said of them wherever a decision is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Simpler fixes: `fix`, `why` and `next`; `part`: not the whole fix.
NotTried = Sequence[Mapping[str, Any]]


def whole_fixes(not_tried: NotTried) -> NotTried:
    """Fixes of which nothing was tried."""
    return [fix for fix in not_tried if not fix.get("part")]


def untried(not_tried: NotTried) -> list[str]:
    """Fixes of which nothing was tried, then those of which a part was not; a line each."""
    whole = whole_fixes(not_tried)
    parts = [fix for fix in not_tried if fix.get("part")]
    lines = []
    if whole:
        lines.append(f"not tried: {untold(whole)}")
    if parts:
        lines.append(f"tried in part: {untold(parts)}")
    return lines


def exceptions(skipped: NotTried) -> str:
    """Declared exceptions with their reasons, as one line."""
    return ", ".join(f"{fix['fix']} ({fix['reason']})" for fix in skipped)


def untold(not_tried: NotTried) -> str:
    """What was not tried, why, and the command that would, as one line; each fix is named once."""
    reasons: dict[str, list[str]] = {}
    for fix in not_tried:
        reasons.setdefault(fix["fix"], []).append(f"{fix['why']}; {fix['next']}")
    return ", ".join(f"{name} ({' | '.join(texts)})" for name, texts in reasons.items())
