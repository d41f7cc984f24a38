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
#: Strata of a pool: the best rank that any system gives a document, from these ranks on.
RANK_STRATA = (1, 2, 5)
#: How much likelier a document of a stratum is judged than one of the last.
_FAVOUR = (4.0, 2.0, 1.0)

Cell = TypeVar("Cell", bound=Hashable)


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
    values, inverse = np.unique(-np.asarray(counts, dtype=np.float64), return_inverse=True)
    masses = np.bincount(inverse, weights=counts, minlength=len(values))
    until = np.cumsum(masses) / masses.sum()
    bands = np.searchsorted(np.array([1 / 3, 2 / 3]) + 1e-12, until, side="left")
    return np.asarray(bands, dtype=np.int64)[inverse]


def allocate(sizes: Mapping[Cell, int], n: int) -> dict[Cell, int]:
    """How many items to draw of each cell: in proportion to its size, at least one where n allows.

    The sum is n, or the number of all items where that is less.
    """
    total = sum(sizes.values())
    n = min(n, total)
    cells = sorted(sizes, key=lambda cell: (-sizes[cell], repr(cell)))
    given = dict.fromkeys(sizes, 0)
    for cell in cells[:n]:
        given[cell] = 1 if sizes[cell] else 0
    while sum(given.values()) < n:
        lacking = [cell for cell in cells if given[cell] < sizes[cell]]
        # the cell that is furthest below its share
        neediest = max(lacking, key=lambda cell: n * sizes[cell] / total - given[cell])
        given[neediest] += 1
    return given


def share_equally(sizes: Mapping[Cell, int], n: int) -> dict[Cell, int]:
    """Equal numbers of each cell; what a small cell cannot give, the others give."""
    given = dict.fromkeys(sizes, 0)
    n = min(n, sum(sizes.values()))
    while sum(given.values()) < n:
        lacking = [cell for cell in sizes if given[cell] < sizes[cell]]
        fewest = min(lacking, key=lambda cell: given[cell])
        given[fewest] += 1
    return given


def draw_queries(
    bands: Sequence[int], groups: Sequence[Hashable], n: int, rng: np.random.Generator
) -> list[Drawn]:
    """n queries: equally many of each band, within a band of each group in proportion to its size.

    `groups` are what a query belongs to besides (slices, whether it failed): none of them is
    over-represented within its band, and a probability undoes that of the bands.  Every query can
    be drawn, also where there are more groups than draws.
    """
    members: dict[int, dict[Hashable, list[int]]] = {}
    for position, (band, group) in enumerate(zip(bands, groups, strict=True)):
        members.setdefault(band, {}).setdefault(group, []).append(position)
    sizes = {band: sum(map(len, cells.values())) for band, cells in sorted(members.items())}
    drawn: list[Drawn] = []
    for band, share in share_equally(sizes, n).items():
        cells = members[band]
        if len(cells) > share:
            drawn += _spread_over(cells, share, rng)
            continue
        given = allocate({group: len(rows) for group, rows in cells.items()}, share)
        for group, rows in cells.items():
            chosen = rng.permutation(len(rows))[: given[group]]
            probability = given[group] / len(rows)
            drawn += [Drawn(rows[row], probability) for row in sorted(chosen.tolist())]
    return sorted(drawn, key=lambda each: each.position)


def _spread_over(
    cells: Mapping[Hashable, Sequence[int]], n: int, rng: np.random.Generator
) -> list[Drawn]:
    """n items at equal distances of a list in which groups stand together, from a random start.

    A group gets its share give or take one, and every item has the same probability.
    """
    listed: list[int] = []
    for group in sorted(cells, key=repr):
        rows = cells[group]
        listed += [rows[place] for place in rng.permutation(len(rows)).tolist()]
    distance = len(listed) / n
    start = rng.random() * distance
    places = [min(int(start + draw * distance), len(listed) - 1) for draw in range(n)]
    return [Drawn(listed[place], n / len(listed)) for place in places]


def rank_stratum(best_rank: int) -> int:
    """The stratum of a document that some system ranks there (from 1) and none above."""
    return int(np.searchsorted(RANK_STRATA, best_rank, side="right")) - 1


def sample_pool(strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: the documents of one pool that are judged, of each stratum at least one.

    About `share` of all; the first ranks are likelier to be among them.
    """
    chosen = np.zeros(len(strata), dtype=bool)
    if not len(strata):  # no system finds anything
        return chosen
    present, sizes = np.unique(strata, return_counts=True)
    rates = _rates(np.array([_FAVOUR[stratum] for stratum in present]), sizes, share)
    for stratum, size, rate in zip(present.tolist(), sizes.tolist(), rates.tolist(), strict=True):
        exact = max(1.0, rate * size)
        number = int(exact) + int(rng.random() < exact - int(exact))
        rows = np.flatnonzero(strata == stratum)
        chosen[rng.permutation(rows)[:number]] = True
    return chosen


def _rates(favour: np.ndarray, sizes: np.ndarray, share: float) -> np.ndarray:
    """(s,) rates in proportion to `favour`, at most 1, that give `share` of all, one of each at least."""
    wanted = share * float(sizes.sum())
    low, high = 0.0, 1.0 / float(favour.min())
    for _ in range(50):
        middle = (low + high) / 2.0
        given = np.maximum(1.0, np.minimum(1.0, middle * favour) * sizes)
        if float(given.sum()) < wanted:
            low = middle
        else:
            high = middle
    return np.minimum(1.0, high * favour)
