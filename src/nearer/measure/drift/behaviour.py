"""What people did with their results: clicks corrected for position, and reformulated queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

_SESSION = 300.0  # seconds within which a user's next query may be a reformulation


def corrected_clicks(ranks: Sequence[Collection[int]], depth: int = 10) -> np.ndarray:
    """Clicks of each request as if every rank were looked at alike, (n,) float64.

    `ranks` holds the clicked ranks of each request.  Inverse propensity weighting (Joachims,
    Swaminathan and Schnabel, WSDM 2017).  The examination of a rank is *assumed*, not estimated:
    1 / log2(rank + 1), the discount of nDCG; ranks beyond `depth` do not count, which bounds the
    weight.  Relevant documents that move down lower the plain click rate; those that are gone lower
    this as well.
    """
    weights = np.zeros(len(ranks))
    for row, clicked in enumerate(ranks):
        for rank in clicked:
            if rank <= depth:
                weights[row] += np.log2(rank + 1.0)
    return weights


def reformulated(
    users: Sequence[str | None],
    seconds: np.ndarray,
    terms: Sequence[Collection[str]],
) -> np.ndarray:
    """(n,) bool, in order of time: the same user next asks something else that shares a term, within five minutes.

    `terms` are those of each query.  The term-overlap rule of Jansen, Booth and Spink (JASIST 2009).
    """
    result = np.zeros(len(users), bool)
    last: dict[str, int] = {}  # user → row of the last query
    for row, user in enumerate(users):
        if user is None:
            continue
        before = last.get(user)
        last[user] = row
        if before is not None and seconds[row] - seconds[before] <= _SESSION:
            result[before] = _share_some(set(terms[before]), set(terms[row]))
    return result


def _share_some(first: set[str], second: set[str]) -> bool:
    """Whether two sets differ and still have something in common."""
    return first != second and not first.isdisjoint(second)
