"""How probably a document is looked at by its rank, from a click log, and what clicks then say.

Position-based model: a document is clicked when it is looked at (which its rank decides) and liked.
How much less a rank is looked at than the one above it follows from the documents that were shown
at both: they are liked the same, so that only the rank explains the difference (intervention
harvesting: Agarwal et al. 2019, "Estimating Position Bias without Intrusive Interventions").  Ranks
that no document connects fall off as 1/rank does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

#: Clicks are never multiplied by more than 1 over this: deep ranks are rarely looked at.
LEAST_PROPENSITY = 0.1
#: Impressions at both of two neighbouring ranks that are enough to compare them.
_ENOUGH = 20


class Shown(Protocol):
    """A query and document in a log: how often it was shown, and clicked, by rank."""

    @property
    def impressions(self) -> Mapping[int, int]: ...

    @property
    def clicks_by_rank(self) -> Mapping[int, int]: ...


def propensities(pairs: Iterable[Shown]) -> dict[int, float]:
    """Rank → how probably it is looked at, that of rank 1 being 1."""
    shown: Counter[int] = Counter()  # at this rank, of documents also shown at the next one
    rates_here: dict[int, float] = defaultdict(float)
    rates_below: dict[int, float] = defaultdict(float)
    deepest = 1
    for pair in pairs:
        deepest = max(deepest, *pair.impressions, 1)
        for rank, impressions in pair.impressions.items():
            below = pair.impressions.get(rank + 1, 0)
            if not below:
                continue
            weight = min(impressions, below)
            shown[rank] += weight
            clicks = pair.clicks_by_rank
            rates_here[rank] += weight * clicks.get(rank, 0) / impressions
            rates_below[rank] += weight * clicks.get(rank + 1, 0) / below
    looked_at = {1: 1.0}
    for rank in range(1, deepest):
        step = rank / (rank + 1)
        if shown[rank] >= _ENOUGH and rates_here[rank] > 0:
            step = min(1.0, rates_below[rank] / rates_here[rank])
        looked_at[rank + 1] = looked_at[rank] * step
    return looked_at


def liking(pair: Shown, looked_at: Mapping[int, float]) -> float:
    """Inverse-propensity estimate of how often a document is liked when it is looked at, 0 or more."""
    clicks = 0.0
    for rank, count in pair.clicks_by_rank.items():
        clicks += count / max(LEAST_PROPENSITY, looked_at.get(rank, 0.0))
    return clicks / max(1, sum(pair.impressions.values()))
