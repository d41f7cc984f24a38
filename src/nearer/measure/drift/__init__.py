"""Compares today's queries with a reference: how far they moved, and what tells them apart.

- shift.py: one number per query (scores, rates, latencies); every result is a `Shift`
- behaviour.py: clicks and reformulations
- exposure.py: how much of a catalogue lists show
- vectors.py: two-sample tests and new clusters; words.py: new and telling terms

Every test gives the size of the effect beside its p value: with thousands of queries a difference
that is too small to matter is significant.  Vectors and terms belong to *distinct* queries, because
a repetition (a user's, a crawler's) is no new evidence, and to those that only one side has: a query
in both teaches a classifier that it belongs to either, which hides the new ones (measured: AUC .41).
p values are exact or conservative.
"""

from nearer.measure.drift.behaviour import corrected_clicks, reformulated
from nearer.measure.drift.exposure import coverage_shift
from nearer.measure.drift.shift import Shift, mean_shift, psi, score_shift
from nearer.measure.drift.vectors import Novelty, new_clusters, two_sample, unit
from nearer.measure.drift.words import new_terms, telling_terms

__all__ = [
    "Novelty",
    "Shift",
    "corrected_clicks",
    "coverage_shift",
    "mean_shift",
    "new_clusters",
    "new_terms",
    "psi",
    "reformulated",
    "score_shift",
    "telling_terms",
    "two_sample",
    "unit",
]
