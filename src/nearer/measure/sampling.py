"""Samples whose draws have known probabilities: of queries by how often they are asked, of pools.

A sample may favour what is rare or what matters, as long as the probability of each draw is kept:
each item then stands for 1 / probability items (Horvitz and Thompson, JASA 1952).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

BANDS = ("frequent", "middle", "rare")
#: The shares of all requests at which the first bands end; a share that is equal but for rounding
#: belongs to the band before.
_BAND_ENDS = np.array([1 / 3, 2 / 3]) + 1e-12
#: Strata of a pool: the best rank that any system gives a document, from these ranks on.
RANK_STRATA = (1, 2, 5)
#: How much likelier a document of a stratum is judged than one of the last.
_FAVOUR = (4.0, 2.0, 1.0)
#: After so many halvings of an interval its ends differ by rounding alone.
_HALVINGS = 50

Cell = TypeVar("Cell", bound=Hashable)
#: Positions of items by the group that they belong to.
_Groups = dict[Hashable, list[int]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """An item that was drawn, by its position, and the probability that it would be."""

    position: int
    probability: float


def frequency_bands(counts: np.ndarray) -> np.ndarray:
    """(n,) positions in `BANDS` for (n,) numbers of requests per query.

    Frequent queries make up the first third of all requests, rare ones the last.  Equal numbers of
    requests give equal bands: where every query was asked once, all are rare.
    """
    if not len(counts):
        return np.zeros(0, dtype=np.int64)
    most_first = -np.asarray(counts, dtype=np.float64)
    distinct, distinct_of_query = np.unique(most_first, return_inverse=True)
    requests = np.bincount(distinct_of_query, weights=counts, minlength=len(distinct))
    share_up_to = np.cumsum(requests) / requests.sum()
    band_of_distinct = np.searchsorted(_BAND_ENDS, share_up_to, side="left")
    return np.asarray(band_of_distinct, dtype=np.int64)[distinct_of_query]


def allocate(sizes: Mapping[Cell, int], n: int) -> dict[Cell, int]:
    """How many items to draw of each cell: in proportion to its size, at least one where n allows.

    The sum is n, or the number of all items where that is less.
    """
    total = sum(sizes.values())
    n = min(n, total)
    largest_first = sorted(sizes, key=lambda cell: (-sizes[cell], repr(cell)))
    counts = dict.fromkeys(sizes, 0)
    for cell in largest_first[:n]:
        counts[cell] = min(1, sizes[cell])

    def lack(cell: Cell) -> float:
        """How far a cell is below its share."""
        return n * sizes[cell] / total - counts[cell]

    while sum(counts.values()) < n:
        not_exhausted = [cell for cell in largest_first if counts[cell] < sizes[cell]]
        counts[max(not_exhausted, key=lack)] += 1
    return counts


def share_equally(sizes: Mapping[Cell, int], n: int) -> dict[Cell, int]:
    """Equal numbers of each cell; what a small cell cannot give, the others give."""
    counts = dict.fromkeys(sizes, 0)
    n = min(n, sum(sizes.values()))
    while sum(counts.values()) < n:
        not_exhausted = [cell for cell in sizes if counts[cell] < sizes[cell]]
        cell_with_fewest = min(not_exhausted, key=lambda cell: counts[cell])
        counts[cell_with_fewest] += 1
    return counts


def draw_queries(
    bands: Sequence[int], groups: Sequence[Hashable], n: int, rng: np.random.Generator
) -> list[Drawn]:
    """n queries: equally many of each band, within a band of each group in proportion to its size.

    `groups` are what a query belongs to besides (slices, whether it failed): none of them is
    over-represented within its band, and a probability undoes that of the bands.  Every query can
    be drawn, also where there are more groups than draws.
    """
    if n < 1:
        return []
    if n < len(set(bands)):
        bands = [0] * len(bands)  # a band without a draw would stand for none of its queries
    positions: dict[int, _Groups] = {}
    for position, (band, group) in enumerate(zip(bands, groups, strict=True)):
        positions.setdefault(band, {}).setdefault(group, []).append(position)
    band_sizes = {band: sum(map(len, positions[band].values())) for band in sorted(positions)}
    drawn: list[Drawn] = []
    for band, share in share_equally(band_sizes, n).items():
        draw = _in_proportion
        if len(positions[band]) > share:
            draw = _spread_over
        drawn += draw(positions[band], share, rng)
    return sorted(drawn, key=lambda each: each.position)


def _in_proportion(groups: _Groups, n: int, rng: np.random.Generator) -> list[Drawn]:
    """n items: of each group in proportion to its size, at least one."""
    counts = allocate({group: len(positions) for group, positions in groups.items()}, n)
    drawn = []
    for group, positions in groups.items():
        count = counts[group]
        chosen = rng.permutation(len(positions))[:count]
        probability = count / len(positions)
        for row in sorted(chosen.tolist()):
            drawn.append(Drawn(positions[row], probability))
    return drawn


def _spread_over(groups: _Groups, n: int, rng: np.random.Generator) -> list[Drawn]:
    """n items at equal distances of a list in which groups stand together, from a random start.

    A group gets its share give or take one, and every item has the same probability.
    """
    listed: list[int] = []
    for group in sorted(groups, key=repr):
        positions = groups[group]
        shuffled = rng.permutation(len(positions)).tolist()
        listed += [positions[row] for row in shuffled]
    distance = len(listed) / n
    start = rng.random() * distance
    probability = n / len(listed)
    drawn = []
    for number in range(n):
        row = min(int(start + number * distance), len(listed) - 1)
        drawn.append(Drawn(listed[row], probability))
    return drawn


def rank_stratum(best_rank: int) -> int:
    """The stratum of a document that some system ranks there (from 1) and none above."""
    return int(np.searchsorted(RANK_STRATA, best_rank, side="right")) - 1


def sample_pool(strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """(n_documents,) bool: the documents of one pool that are judged, of each stratum at least one.

    `strata` is int64 (n_documents,), from `rank_stratum`.  About `share` of all are judged; the
    first ranks are likelier to be among them.
    """
    is_judged = np.zeros(len(strata), dtype=bool)
    if not len(strata):  # no system finds anything
        return is_judged
    present, sizes = np.unique(strata, return_counts=True)
    favour = np.array([_FAVOUR[stratum] for stratum in present])
    rates = _rates(favour, sizes, share)
    for stratum, size, rate in zip(present.tolist(), sizes.tolist(), rates.tolist(), strict=True):
        expected = max(1.0, rate * size)
        # A whole number that is the expected one on average.
        whole = int(expected)
        number = whole + int(rng.random() < expected - whole)
        rows = np.flatnonzero(strata == stratum)
        is_judged[rng.permutation(rows)[:number]] = True
    return is_judged


def _rates(favour: np.ndarray, sizes: np.ndarray, share: float) -> np.ndarray:
    """(n_strata,) rates in proportion to `favour`, at most 1, that give `share` of all documents.

    `favour` and `sizes` are (n_strata,).  Each stratum gives one document at least, so no formula
    has the factor between favour and rate: it is found by halving an interval.
    """
    wanted = share * float(sizes.sum())
    low, high = 0.0, 1.0 / float(favour.min())  # with the last, every rate is 1
    for _ in range(_HALVINGS):
        factor = (low + high) / 2.0
        rates = np.minimum(1.0, factor * favour)
        expected = np.maximum(1.0, rates * sizes)
        if float(expected.sum()) < wanted:
            low = factor
        else:
            high = factor
    return np.minimum(1.0, high * favour)
