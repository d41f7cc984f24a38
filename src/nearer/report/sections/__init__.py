"""One function per section of the page: what its part of report.html.j2 reads.

A section whose file is missing is None, or has nothing in its lists; the template then leaves it
out.
"""

from nearer.report.sections.headline import verdict
from nearer.report.sections.mining import mining
from nearer.report.sections.model import margins, training
from nearer.report.sections.ranked_lists import examples
from nearer.report.sections.repairs import failures, fixes
from nearer.report.sections.systems import candidates, guardrails, slices
from nearer.report.sections.task import task

__all__ = [
    "candidates",
    "examples",
    "failures",
    "fixes",
    "guardrails",
    "margins",
    "mining",
    "slices",
    "task",
    "training",
    "verdict",
]
