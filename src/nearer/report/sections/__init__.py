"""One function per section of the page: what its part of report.html.j2 reads.

A section whose file is missing is None, or has nothing in its lists; the template then leaves it
out.
"""

from nearer.report.sections.browser import browser
from nearer.report.sections.frontiers import frontiers
from nearer.report.sections.headline import verdict
from nearer.report.sections.mining import mining
from nearer.report.sections.mistakes import mistakes
from nearer.report.sections.model import margins, training
from nearer.report.sections.neighbours import neighbours
from nearer.report.sections.pays import pays
from nearer.report.sections.queries import queries
from nearer.report.sections.ranked_lists import examples
from nearer.report.sections.reading import reading
from nearer.report.sections.repairs import failures, fixes
from nearer.report.sections.reviewed import reviewed
from nearer.report.sections.systems import candidates, guardrails, slices
from nearer.report.sections.task import task
from nearer.report.sections.terms import terms

__all__ = [
    "browser",
    "candidates",
    "examples",
    "failures",
    "fixes",
    "frontiers",
    "guardrails",
    "margins",
    "mining",
    "mistakes",
    "neighbours",
    "pays",
    "queries",
    "reading",
    "reviewed",
    "slices",
    "task",
    "terms",
    "training",
    "verdict",
]
