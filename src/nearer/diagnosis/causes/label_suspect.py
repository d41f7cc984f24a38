"""`label_suspect`: a result above the document may be as relevant, and nobody judged it.

It has no rule: it replaces `semantic` and `unknown`, and stands beside any other cause (`classify`).
"""

from __future__ import annotations

from nearer.diagnosis.causes.base import Cause
from nearer.diagnosis.values import Facts


def duplicate(facts: Facts) -> str:
    """A near-duplicate that stands above the document, in words; empty where there is none."""
    if not facts.duplicates:
        return ""
    return f"{facts.duplicates[0]} above it is a near-duplicate and unjudged"


def preferred(facts: Facts) -> str:
    """What every system puts first, in words; empty where they differ or it is judged."""
    if not facts.preferred:
        return ""
    return f"every system puts {facts.preferred} first, which nobody judged"


CAUSE = Cause("label_suspect", remedy="judge the results above it: one may be as relevant")
