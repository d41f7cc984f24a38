"""What is tested on the test queries: the finalists against each other, and slice by slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer.decision.candidates import Finalists
from nearer.decision.inputs import DecisionInputs
from nearer.measure.margins import Vectors, margin_histogram
from nearer.measure.significance import Comparison, compare
from nearer.measure.slices import compare_slices
from nearer.measure.verdict import Candidate
from nearer.search.systems import Systems
from nearer.types import Split


@dataclass(frozen=True, slots=True)
class Statistics:
    """What every statistical test of a decision is run with."""

    primary: str
    alpha: float
    resamples: int
    rng: np.random.Generator

    @classmethod
    def of(cls, inputs: DecisionInputs, rng: np.random.Generator) -> Statistics:
        settings = inputs.settings
        return cls(inputs.primary, settings.decide.alpha, settings.evaluate.resamples, rng)

    def compare(self, baseline: Candidate, candidate: Candidate) -> Comparison:
        return compare(
            baseline.scores.column(self.primary),
            candidate.scores.column(self.primary),
            self.rng,
            self.resamples,
            self.alpha,
        )


def compare_finalists(
    finalists: Finalists, statistics: Statistics
) -> dict[tuple[str, str], Comparison]:
    """(name of the baseline, name of the candidate) → their comparison in the primary measure."""
    results = {}
    for baseline, candidate in finalists.pairs():
        names = (baseline.name, candidate.name)
        results[names] = statistics.compare(baseline, candidate)
    return results


def compare_by_slice(
    baseline: Candidate,
    candidate: Candidate,
    slices: dict[str, set[str]],
    statistics: Statistics,
    min_size: int,
) -> list[dict[str, Any]]:
    """The rows `slices` of decision.json."""
    return compare_slices(
        baseline.scores,
        candidate.scores,
        slices,
        statistics.primary,
        min_size,
        statistics.rng,
        resamples=statistics.resamples,
        alpha=statistics.alpha,
    )


def compare_margins(base: Systems, tuned: Systems, test: Split) -> dict[str, Any]:
    """`margins.json`: histograms of the margins of the test queries under both models."""
    return margin_histogram(_vectors(base, test), _vectors(tuned, test), base.corpus.ids, test)


def _vectors(systems: Systems, split: Split) -> Vectors:
    texts = [query.text for query in split.queries]
    return systems.encoder.encode(texts, "query"), systems.document_vectors
