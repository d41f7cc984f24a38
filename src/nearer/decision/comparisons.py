"""What is tested on the test queries: the finalists against each other, and slice by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer import config
from nearer.data.clusters import QueryClusters
from nearer.data.importance import frequencies_of
from nearer.decision.candidates import Finalists
from nearer.decision.inputs import DecisionInputs
from nearer.measure.margins import Vectors, margin_histogram
from nearer.measure.reversals import Change, Reversal, reversals
from nearer.measure.significance import Comparison, Units, compare
from nearer.measure.slices import compare_slices
from nearer.measure.unjudged import JudgedResults, Results, judged_results
from nearer.measure.verdict import Candidate, Comparisons
from nearer.search.slices import slices_of
from nearer.search.systems import Systems
from nearer.types import Split


@dataclass(frozen=True, slots=True)
class Statistics:
    """What every statistical test of a decision is run with."""

    primary: str
    alpha: float
    resamples: int
    rng: np.random.Generator
    clusters: QueryClusters = field(default_factory=QueryClusters)
    frequencies: Mapping[str, float] | None = None  # by query id; None: nobody says

    @classmethod
    def of(cls, inputs: DecisionInputs, rng: np.random.Generator) -> Statistics:
        settings = inputs.settings
        return cls(
            primary=inputs.primary,
            alpha=settings.decide.alpha,
            resamples=settings.evaluate.resamples,
            rng=rng,
            clusters=inputs.clusters,
            frequencies=frequencies_of(inputs.test.queries),
        )

    def units(self, candidate: Candidate) -> Units:
        """What is drawn at random: the clusters of the queries that were scored."""
        return Units(self.clusters.labels(candidate.scores.query_ids))

    def requests(self, candidate: Candidate) -> Units | None:
        """The same, each query counted as often as it is asked; None where nobody says how often."""
        if self.frequencies is None:
            return None
        asked = [self.frequencies[query_id] for query_id in candidate.scores.query_ids]
        weights = np.array(asked, np.float64)
        # Counts and shares of all requests alike: a mean weight of 1 keeps clear of what counts as
        # rounding, and no sum overflows.
        weights /= weights.max()
        weights /= weights.mean()
        return Units(self.units(candidate).labels, weights)

    def compare(
        self, baseline: Candidate, candidate: Candidate, units: Units | None = None
    ) -> Comparison:
        """Query by query; `units` in place of the clusters of the queries."""
        return compare(
            baseline.scores.column(self.primary),
            candidate.scores.column(self.primary),
            self.rng,
            self.resamples,
            self.alpha,
            units or self.units(candidate),
        )


def compare_finalists(finalists: Finalists, statistics: Statistics) -> Comparisons:
    """(name of the baseline, name of the candidate) → their comparison in the primary measure."""
    results = {}
    for baseline, candidate in finalists.pairs():
        names = (baseline.name, candidate.name)
        results[names] = statistics.compare(baseline, candidate)
    return results


def compare_requests(finalists: Finalists, statistics: Statistics) -> Comparisons:
    """The same with each query counted as often as users ask it; empty where nobody says."""
    results = {}
    for baseline, candidate in finalists.pairs():
        units = statistics.requests(candidate)
        if units is not None:
            names = (baseline.name, candidate.name)
            results[names] = statistics.compare(baseline, candidate, units)
    return results


@dataclass(frozen=True, slots=True)
class SliceComparisons:
    """The slices of the test queries, and the fine-tuned system against today's in each.

    Empty where nothing was fine-tuned.
    """

    slices: Mapping[str, set[str]] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()  # `slices` of decision.json

    @classmethod
    def of(
        cls, finalists: Finalists, inputs: DecisionInputs, statistics: Statistics
    ) -> SliceComparisons:
        """Measured on the queries that were scored."""
        tuned, settings = finalists.tuned, inputs.settings
        if tuned is None or inputs.tuned is None:
            return cls()
        slices = slices_of(
            inputs.test,
            inputs.base.corpus,
            settings.data.min_grade,
            inputs.training_judgments,
            settings.decide.high_risk,
        )
        rows = compare_slices(
            finalists.today.scores,
            tuned.scores,
            slices,
            statistics.primary,
            settings.evaluate.min_slice,
            statistics.rng,
            resamples=statistics.resamples,
            alpha=statistics.alpha,
            clusters=statistics.units(tuned),
        )
        return cls(slices, rows)


def find_reversals(
    finalists: Finalists,
    by_slice: SliceComparisons,
    statistics: Statistics,
    settings: config.Decide,
) -> list[Reversal]:
    """Where the change from today's system to the challenger has the other sign."""
    challenger = finalists.challenger
    if challenger is None:
        return []
    before = finalists.today.scores.column(statistics.primary)
    after = challenger.scores.column(statistics.primary)
    requests = statistics.requests(challenger)
    change = Change(
        query_ids=challenger.scores.query_ids,
        values=after - before,
        slices=by_slice.slices,
        labels=statistics.units(challenger).labels,
        weights=None if requests is None else requests.weights,
    )
    margin = settings.guardrails.slice_margin
    return reversals(change, by_slice.rows, statistics.alpha, margin)


def compare_judged(finalists: Finalists, test: Split, primary: str) -> JudgedResults | None:
    """How much of the first results was judged; None where nothing is set against today's system."""
    challenger = finalists.challenger
    if challenger is None:
        return None
    before = Results(finalists.today.run, finalists.today.scores)
    after = Results(challenger.run, challenger.scores)
    return judged_results(before, after, test.judgments, primary)


def compare_margins(base: Systems, tuned: Systems, test: Split) -> dict[str, Any]:
    """`margins.json`: histograms of the margins of the test queries under both models."""
    return margin_histogram(_vectors(base, test), _vectors(tuned, test), base.corpus.ids, test)


def _vectors(systems: Systems, split: Split) -> Vectors:
    texts = [query.text for query in split.queries]
    return systems.encoder.encode(texts, "query"), systems.document_vectors
