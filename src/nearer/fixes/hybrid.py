"""Hybrid: words beside vectors, by ranks or by scores with a weight tuned on dev; the title as a field."""

from __future__ import annotations

from dataclasses import replace

from nearer.data.corpus import Corpus
from nearer.fixes.base import Fix
from nearer.search.pipeline import HYBRIDS, Pipeline
from nearer.search.systems import Systems
from nearer.types import Split

_SAMPLE = 200  # documents looked at for a title


class Hybrid(Fix):
    name = "hybrid"
    needs = "a BM25 index beside the vectors"

    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> list[Pipeline]:
        plain = replace(base, weight=None, title_weight=None)
        pipelines = [replace(plain, system=name) for name in HYBRIDS if name != base.system]
        if _has_titles(systems.corpus):
            for weight in self.settings.fix.title_weights:
                pipelines.append(replace(plain, system="convex", title_weight=weight))
        return pipelines


def _has_titles(corpus: Corpus) -> bool:
    """Whether a document has a title, of a sample spread over the corpus."""
    step = max(1, len(corpus) // _SAMPLE)
    return any(corpus[position].title for position in range(0, len(corpus), step))
