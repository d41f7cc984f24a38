"""Comparing two generations on live traffic: agreement of rankings, interleaving, and tests that may be looked at any time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaln

from nearer.types import Hit

PERSISTENCE = 0.9  # of rank-biased overlap: the first ten results weigh 86%


def overlap(a: Sequence[str], b: Sequence[str], k: int) -> float:
    """Share of the first `k` results that two rankings have in common, 0..1; two empty ones agree."""
    first, second = set(a[:k]), set(b[:k])
    longest = max(len(first), len(second))
    return len(first & second) / longest if longest else 1.0


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], p: float = PERSISTENCE) -> float:
    """Extrapolated rank-biased overlap of two rankings, 0..1.

    Webber, Moffat and Zobel, *A similarity measure for indefinite rankings*, TOIS 2010, eq. 32,
    which also compares rankings of different lengths.
    """
    short, long = sorted((a, b), key=len)
    s, n = len(short), len(long)
    if s == 0:
        return float(n == 0)
    left, right = set[str](), set[str]()
    common, shared = [0], 0
    for d in range(n):
        for one, own, other in ((long[d], left, right), (short[d] if d < s else None, right, left)):
            if one is not None and one not in own:
                own.add(one)
                shared += one in other
        common.append(shared)
    total = sum(common[d] / d * p**d for d in range(1, n + 1))
    total += sum(common[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return float((1 - p) / p * total + ((common[n] - common[s]) / n + common[s] / s) * p**n)


def team_draft(
    live: Sequence[Hit], candidate: Sequence[Hit], k: int, rng: np.random.Generator
) -> tuple[list[Hit], dict[str, str]]:
    """Two rankings dealt into one of `k` results, and who dealt each document: `live` or `candidate`.

    The side that has dealt less deals next, a coin decides when both have dealt alike.  Documents
    get the score 1 / rank: scores of two models do not compare.  Radlinski, Kurup and Joachims,
    *How does clickthrough data reflect retrieval quality?*, CIKM 2008.
    """
    sides = {
        "live": [doc_id for doc_id, _ in live],
        "candidate": [doc_id for doc_id, _ in candidate],
    }
    teams: dict[str, str] = {}
    dealt = {"live": 0, "candidate": 0}
    while len(teams) < k:
        left = {side: next((d for d in ids if d not in teams), None) for side, ids in sides.items()}
        able = [side for side, doc_id in left.items() if doc_id is not None]
        if not able:
            break
        least = min(dealt[side] for side in able)
        tied = [side for side in able if dealt[side] == least]
        side = tied[int(rng.integers(len(tied)))]
        teams[str(left[side])] = side
        dealt[side] += 1
    return [(doc_id, 1.0 / rank) for rank, doc_id in enumerate(teams, start=1)], teams


@dataclass(frozen=True, slots=True)
class Preference:
    """What clicks on interleaved results say.  `p_*` are valid however often they are looked at."""

    wins: int  # requests in which the candidate's documents got more clicks
    losses: int
    ties: int
    p_better: float
    p_worse: float

    @property
    def share(self) -> float:
        """Share of the decided requests that the candidate won; .5 when none is decided."""
        return self.wins / (self.wins + self.losses) if self.wins + self.losses else 0.5


def preference(credits: Iterable[Mapping[str, int]]) -> Preference:
    """From the clicks of each interleaved request ({live: n, candidate: m}), in order of time.

    The e-process of a Bernoulli mean against 1/2: a mixture of likelihood ratios, uniform over the
    alternatives on one side; p = 1 / its maximum (Ville).  Ramdas et al., *Game-theoretic statistics
    and safe anytime-valid inference*, Statistical Science 2023.
    """
    counts, best = [0, 0, 0], [0.0, 0.0]  # wins, losses, ties; log e-values for better, worse
    for credit in credits:
        difference = credit.get("candidate", 0) - credit.get("live", 0)
        counts[2 if difference == 0 else 0 if difference > 0 else 1] += 1
        wins, losses, _ = counts
        for side, (more, fewer) in enumerate(((wins, losses), (losses, wins))):
            best[side] = max(best[side], _one_sided(more, fewer))
    return Preference(*counts, *(min(1.0, math.exp(-value)) for value in best))


def _one_sided(more: int, fewer: int) -> float:
    """Log of ∫ over θ in (½, 1) of the likelihood of θ against ½."""
    inside = float(betainc(fewer + 1, more + 1, 0.5))
    if inside <= 0.0:
        return -math.inf
    return math.log(2 * inside) + float(betaln(fewer + 1, more + 1)) + (more + fewer) * math.log(2)


def harm(outcomes: Iterable[tuple[bool, bool]]) -> float:
    """p, valid at any time, that bad outcomes are no more frequent for the canary than for the live side.

    `outcomes` are (is canary, is bad) in order of time.  A product of e-variables for two streams of
    0 and 1, a block for each canary outcome with the live ones since the last, betting on the rates
    seen so far and only where the canary's is higher: Turner, Ly and Grünwald, *Generic E-variables for
    exact sequential k-sample tests that allow for optional stopping*, JSPI 2024.  Raising the live
    rate or lowering the canary's lowers every bet, so it also holds for a canary that is better.
    """
    bad, seen = [0.5, 0.5], [1.0, 1.0]  # a prior of half a bad one in one, live and canary
    block, log_e, best = [0, 0], 0.0, 0.0  # bad and good live outcomes of the block
    for canary, is_bad in outcomes:
        if not canary:
            block[0 if is_bad else 1] += 1
            continue
        live, own = bad[0] / seen[0], bad[1] / seen[1]
        n = sum(block)
        if own > live and n:
            null = (n * live + own) / (n + 1)
            log_e += block[0] * math.log(live / null) + block[1] * math.log((1 - live) / (1 - null))
            log_e += math.log(own / null) if is_bad else math.log((1 - own) / (1 - null))
            best = max(best, log_e)
        bad = [bad[0] + block[0], bad[1] + is_bad]
        seen = [seen[0] + n, seen[1] + 1]
        block = [0, 0]
    return min(1.0, math.exp(-best))
