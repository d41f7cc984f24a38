"""Does a catalogue still come out as widely?  Coverage of as many lists as the reference, with a p value."""

from __future__ import annotations

import numpy as np

from nearer.measure.drift.shift import Shift
from nearer.measure.drift.vectors import PERMUTATIONS
from nearer.measure.recommendation import Lists, of_all

_DRAWS = 100  # of lists, for a mean
_MOST = 2000  # lists that are compared


def coverage_shift(before: Lists, now: Lists, n_items: int, rng: np.random.Generator) -> Shift:
    """How far coverage fell below that of as many lists of the reference; `size` is the share lost.

    More lists cover more, so both sides are drawn without replacement to the size of the smaller
    one.  The p value says how often as many lists of both together cover as little (a permutation
    test; conservative where `now` is the larger side, because its coverage is then a mean of draws).
    Raises ValueError for a side without lists.
    """
    n = min(len(before.items), len(now.items), _MOST)
    if n < 1:
        raise ValueError("there are no lists to compare")
    first = float(np.mean(_coverages(before, n, n_items, rng, _DRAWS)))
    second = float(np.mean(_coverages(now, n, n_items, rng, _DRAWS)))
    both = Lists((*before.query_ids, *now.query_ids), np.concatenate([before.items, now.items]))
    drawn = _coverages(both, n, n_items, rng, PERMUTATIONS)
    p = (1 + np.count_nonzero(drawn <= second)) / (1 + len(drawn))
    lost = 1 - second / first if first > 0 else 0.0
    return Shift(lost, float(p), second, second, second, first)


def _coverages(
    lists: Lists, n: int, n_items: int, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """(draws,) float64: the coverage of `n` lists drawn without replacement; one value where `n` are all."""
    total = len(lists.items)
    if n == total:
        return np.array([of_all("Coverage", lists, n_items)])
    coverages = np.empty(draws)
    for draw in range(draws):
        weights = np.zeros(total, np.int64)
        weights[rng.choice(total, n, replace=False)] = 1
        coverages[draw] = of_all("Coverage", lists, n_items, weights)
    return coverages
