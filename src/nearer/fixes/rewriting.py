"""Rewriting: queries with their acronyms and synonyms written out."""

from __future__ import annotations

from dataclasses import replace

from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Split


class Rewriting(Fix):
    name = "rewriting"
    needs = "a dictionary that somebody keeps; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.rewrite or base.system == "run":
            return []
        pipelines = []
        for spec in self.settings.fix.rewriters:
            if systems.rewriter(spec)(dev.queries) != list(dev.queries):
                pipelines.append(replace(base, rewrite=spec))
        return pipelines

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if base.system == "run":
            return Absence(self.name, "a file of results cannot be asked anew")
        if self.settings.fix.rewriters:
            return Absence(self.name, "no rewriter changes a dev query")
        step = "nearer fix --set 'fix.rewriters=[acronyms]'"
        return Absence(self.name, "no rewriter is named (fix.rewriters)", step)
