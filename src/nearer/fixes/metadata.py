"""Metadata: declared filters, filters that the query's text names, or a preference for what it names."""

from __future__ import annotations

from dataclasses import replace

from nearer.fixes.base import Absence, Fix
from nearer.search.pipeline import OWN, Filters, Pipeline
from nearer.search.systems import Systems
from nearer.types import Split


class Metadata(Fix):
    name = "metadata"
    needs = "metadata kept right; the application passes its filter on"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        if base.filters not in ("ignore", "declared"):
            return []
        declared = any(query.filter for query in dev.queries)
        named = any(systems.fields.infer(query.text) for query in dev.queries)
        filters: list[Filters] = []
        if declared and base.filters == "ignore":
            filters.append("declared")
        if named:
            filters.append("inferred")
        if named or declared:
            filters.append("boost")
        if base.system in OWN:  # its results can be reordered, but not searched anew
            filters = [name for name in filters if name == "boost"]
        return [replace(base, filters=name) for name in filters]

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        return Absence(self.name, "no dev query declares or names a filter")
