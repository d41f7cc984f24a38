"""A simpler fix: queries without the words of politeness that match every question of a forum."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Query, Split

_COURTESY = re.compile(
    r"\b(?:please|thanks|hello|hi there|how (?:do|can|could) (?:i|we)|is there a way to|i want to)\b[,.!]*\s*",
    re.IGNORECASE,
)
_REWRITER = "nearer_example.courtesies:without_courtesies"


def without_courtesies(queries: Sequence[Query]) -> list[str]:
    """One text per query; a query that is nothing but politeness stays as it is."""
    texts = []
    for query in queries:
        shorter = _COURTESY.sub("", query.text).strip()
        texts.append(shorter or query.text)
    return texts


class Courtesies(Fix):
    """Tries today's pipeline with the rewriter, where it changes any dev query."""

    name = "courtesies"
    needs = "a few words cut from each query; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        changes = without_courtesies(dev.queries) != [query.text for query in dev.queries]
        if base.rewrite or base.system == "run" or not changes:
            return []
        return [replace(base, rewrite=_REWRITER)]

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        return Absence(self.name, "no dev query holds words of politeness")
