"""Diversity: results that differ from each other (MMR), where items are recommended."""

from __future__ import annotations

from dataclasses import replace

from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Split


class Diversity(Fix):
    name = "diversity"
    needs = "vectors of the first results at query time; no index changes"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.diversity is not None or self.settings.task != "recommend":
            return []
        return [replace(base, diversity=weight) for weight in self.settings.recommend.diversity]

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        if self.settings.task != "recommend":
            return Absence(self.name, "lists that differ are a goal of task: recommend")
        if base.diversity is not None:
            return super().absent(base, systems, dev)
        return Absence(self.name, "recommend.diversity names no weight")
