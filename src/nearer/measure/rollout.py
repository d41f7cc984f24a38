"""Compares two generations on live traffic: agreement of rankings, interleaving, sequential tests.

The tests are valid however often their p values are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaln

from nearer.types import Hit

PERSISTENCE = 0.9  # of rank-biased overlap: the first ten results weigh 86%

Ranking = Sequence[str]  # document ids, best first
Hits = Sequence[Hit]
Credit = Mapping[str, int]  # team → clicks on its documents
Teams = dict[str, str]  # document id → team
Outcome = tuple[bool, bool]  # is canary, is bad


def overlap(a: Ranking, b: Ranking, k: int) -> float:
    """Share of the first `k` results that two rankings have in common, 0..1; two empty ones agree."""
    first = set(a[:k])
    second = set(b[:k])
    longest = max(len(first), len(second))
    if not longest:
        return 1.0
    common = len(first & second)
    return common / longest


def rank_biased_overlap(a: Ranking, b: Ranking, p: float = PERSISTENCE) -> float:
    """Extrapolated rank-biased overlap of two rankings, 0..1.

    Webber, Moffat and Zobel, *A similarity measure for indefinite rankings*, TOIS 2010, eq. 32,
    which also compares rankings of different lengths.
    """
    shorter, longer = sorted((a, b), key=len)
    s = len(shorter)
    n = len(longer)
    if s == 0:
        return float(n == 0)
    common = _common_by_depth(shorter, longer)
    total = 0.0
    for depth in range(1, n + 1):
        total += common[depth] / depth * p**depth
    # What the shorter ranking would have in common if it went on as it does to its end.
    assumed = 0.0
    for depth in range(s + 1, n + 1):
        share = common[s] * (depth - s) / (s * depth)
        assumed += share * p**depth
    total += assumed
    at_end = (common[n] - common[s]) / n
    at_end += common[s] / s
    weight = (1 - p) / p
    total *= weight
    return total + at_end * p**n


def _common_by_depth(shorter: Ranking, longer: Ranking) -> list[int]:
    """Entry d: how many documents are among the first d results of both rankings."""
    common = [0]
    in_shorter = set[str]()
    in_longer = set[str]()
    for depth, doc_id in enumerate(longer, start=1):
        in_longer.add(doc_id)
        if depth <= len(shorter):
            in_shorter.add(shorter[depth - 1])
        common.append(len(in_shorter & in_longer))
    return common


def team_draft(
    live: Hits, candidate: Hits, k: int, rng: np.random.Generator
) -> tuple[list[Hit], Teams]:
    """Merges two rankings into `k` results; returns them and the team of each document.

    A team is `live` or `candidate`.  The team with fewer documents adds its best remaining one; a
    coin decides when both have as many.  Documents get the score 1 / rank, because scores of two
    models do not compare.  Radlinski, Kurup and Joachims, *How does clickthrough data reflect
    retrieval quality?*, CIKM 2008.
    """
    rankings = {"live": live, "candidate": candidate}
    teams: Teams = {}
    sizes = {"live": 0, "candidate": 0}
    while len(teams) < k:
        remaining: dict[str, str] = {}
        for team, hits in rankings.items():
            best = _best_outside(hits, teams)
            if best is not None:
                remaining[team] = best
        if not remaining:
            break
        smallest = min(sizes[team] for team in remaining)
        tied = [team for team in remaining if sizes[team] == smallest]
        coin = int(rng.integers(len(tied)))
        team = tied[coin]
        teams[remaining[team]] = team
        sizes[team] += 1
    merged: list[Hit] = []
    for rank, doc_id in enumerate(teams, start=1):
        merged.append((doc_id, 1.0 / rank))
    return merged, teams


def _best_outside(hits: Hits, drafted: Container[str]) -> str | None:
    """The first document of a ranking that is not drafted yet; None when all are."""
    for doc_id, _ in hits:
        if doc_id not in drafted:
            return doc_id
    return None


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
        decided = self.wins + self.losses
        if not decided:
            return 0.5
        return self.wins / decided


def preference(credits: Iterable[Credit]) -> Preference:
    """From the clicks of each interleaved request ({live: n, candidate: m}), in order of time.

    The e-process of a Bernoulli mean against 1/2: a mixture of likelihood ratios, uniform over the
    alternatives on one side; p = 1 / its maximum (Ville).  Ramdas et al., *Game-theoretic statistics
    and safe anytime-valid inference*, Statistical Science 2023.
    """
    wins = losses = ties = 0
    better = worse = 0.0  # the largest log e-values so far
    for credit in credits:
        live = credit.get("live", 0)
        candidate = credit.get("candidate", 0)
        if candidate > live:
            wins += 1
        elif candidate < live:
            losses += 1
        else:
            ties += 1
        better = max(better, _one_sided(wins, losses))
        worse = max(worse, _one_sided(losses, wins))
    return Preference(
        wins=wins,
        losses=losses,
        ties=ties,
        p_better=_anytime_p(better),
        p_worse=_anytime_p(worse),
    )


def _one_sided(more: int, fewer: int) -> float:
    """Log of ∫ over θ in (½, 1) of the likelihood of θ against ½."""
    inside = float(betainc(fewer + 1, more + 1, 0.5))
    if inside <= 0.0:
        return -math.inf
    log_e = math.log(2 * inside)
    log_e += float(betaln(fewer + 1, more + 1))
    n = more + fewer
    return log_e + n * math.log(2)


def _anytime_p(largest_log_e: float) -> float:
    """The p value of an e-process whose logarithm has reached this (Ville's inequality)."""
    return min(1.0, math.exp(-largest_log_e))


def harm(outcomes: Iterable[Outcome]) -> float:
    """p, valid at any time, that bad outcomes are no more frequent for the canary than for the live side.

    `outcomes` are (is canary, is bad) in order of time.  A product of e-variables for two streams of
    0 and 1, a block for each canary outcome with the live ones since the last, betting on the rates
    observed so far and only where the canary's is higher: Turner, Ly and Grünwald, *Generic
    E-variables for exact sequential k-sample tests that allow for optional stopping*, JSPI 2024.
    Raising the live rate or lowering the canary's lowers every bet, so it also holds for a canary
    that is better.
    """
    # Each rate has a prior of half a bad outcome in one.
    live_bad, live_total = 0.5, 1.0
    canary_bad, canary_total = 0.5, 1.0
    block_bad = block_good = 0  # live outcomes since the last canary outcome
    log_e = largest = 0.0
    for is_canary, is_bad in outcomes:
        if not is_canary:
            block_bad += is_bad
            block_good += not is_bad
            continue
        live = live_bad / live_total
        canary = canary_bad / canary_total
        n = block_bad + block_good
        if canary > live and n:
            null = (n * live + canary) / (n + 1)
            of_bad = block_bad * _log_ratio(live, null, True)
            of_good = block_good * _log_ratio(live, null, False)
            log_e += of_bad + of_good
            log_e += _log_ratio(canary, null, is_bad)
            largest = max(largest, log_e)
        live_bad += block_bad
        live_total += n
        canary_bad += is_bad
        canary_total += 1
        block_bad = block_good = 0
    return _anytime_p(largest)


def _log_ratio(rate: float, null: float, is_bad: bool) -> float:
    """Log likelihood ratio of one outcome, under its own rate against the common one."""
    if is_bad:
        return math.log(rate / null)
    return math.log((1 - rate) / (1 - null))
