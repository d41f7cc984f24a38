"""Agreement, interleaving, and tests that may be looked at after every request."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearer.measure.rollout import harm, overlap, preference, rank_biased_overlap, team_draft

ids = st.lists(st.integers(0, 30).map(str), unique=True, max_size=12)


def test_rank_biased_overlap_by_hand() -> None:
    # p = .5, depth 2: agreements 0 and 1: (1-p)/p (0·p + 1·p²) + 1·p² = .25 + .25
    assert rank_biased_overlap(["a", "b"], ["b", "a"], 0.5) == pytest.approx(0.5)
    # depth 2: agreements 1 and 1/2: (1·.5 + .5·.25) + .5·.25
    assert rank_biased_overlap(["a", "b"], ["a", "c"], 0.5) == pytest.approx(0.75)


@given(ids, ids)
def test_rank_biased_overlap_is_an_agreement(a: list[str], b: list[str]) -> None:
    value = rank_biased_overlap(a, b)
    assert -1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(rank_biased_overlap(b, a))
    assert rank_biased_overlap(a, a) == pytest.approx(1.0)
    if a and b and not set(a) & set(b):
        assert value == pytest.approx(0.0)
    if len(a) == len(b) and a:  # the definition for lists of one length, eq. 23 of the paper
        agreement = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, len(a) + 1)]
        p = 0.9
        by_definition = agreement[-1] * p ** len(a) + (1 - p) / p * sum(
            x * p**d for d, x in enumerate(agreement, start=1)
        )
        assert value == pytest.approx(by_definition)


def test_overlap() -> None:
    assert overlap(["a", "b", "c"], ["c", "x", "a"], 3) == pytest.approx(2 / 3)
    assert overlap(["a", "b"], ["b", "a"], 1) == 0.0
    assert (overlap([], [], 5), overlap(["a"], [], 5)) == (1.0, 0.0)


@given(ids, ids, st.integers(1, 12), st.integers(0, 2**32))
def test_team_draft_deals_fairly(a: list[str], b: list[str], k: int, seed: int) -> None:
    merged, teams = team_draft(
        [(d, 1.0) for d in a], [(d, 1.0) for d in b], k, np.random.default_rng(seed)
    )
    found = [doc_id for doc_id, _ in merged]
    assert len(set(found)) == len(found) == min(k, len(set(a) | set(b)))
    assert list(teams) == found
    counts = Counter(teams.values())
    if len(set(a) | set(b)) >= k and min(len(a), len(b)) >= k:
        assert abs(counts["live"] - counts["candidate"]) <= 1
    for side, own in (("live", a), ("candidate", b)):
        assert {d for d, team in teams.items() if team == side} <= set(own)


def test_team_draft_of_equal_rankings_prefers_nobody() -> None:
    rng, hits = np.random.default_rng(7), [(str(i), 1.0) for i in range(10)]
    first = Counter(next(iter(team_draft(hits, hits, 10, rng)[1].values())) for _ in range(2000))
    assert abs(first["live"] - 1000) < 4 * math.sqrt(500)


def test_looking_after_every_request_gives_no_more_false_alarms_than_promised() -> None:
    rng, looks = np.random.default_rng(7), 300
    credits = [
        [{"live": 1} if one else {"candidate": 1} for one in row]
        for row in rng.random((400, looks)) < 0.5
    ]
    # `preference` takes the largest e-value over all prefixes: it is what an observer would have seen by looking each time
    assert np.mean([preference(row).p_worse <= 0.05 for row in credits]) <= 0.05
    canary, bad = rng.random((400, 1000)) < 0.1, rng.random((400, 1000)) < 0.3
    assert (
        np.mean(
            [
                harm(zip(c.tolist(), b.tolist(), strict=True)) <= 0.05
                for c, b in zip(canary, bad, strict=True)
            ]
        )
        <= 0.05
    )


def test_a_better_canary_raises_no_alarm() -> None:
    rng = np.random.default_rng(7)
    canary = rng.random((200, 1000)) < 0.1
    bad = rng.random((200, 1000)) < np.where(canary, 0.1, 0.3)
    assert (
        np.mean(
            [
                harm(zip(c.tolist(), b.tolist(), strict=True)) <= 0.05
                for c, b in zip(canary, bad, strict=True)
            ]
        )
        <= 0.05
    )


def test_harm_is_found() -> None:
    rng = np.random.default_rng(7)
    canary = rng.random((100, 2000)) < 0.1
    bad = rng.random((100, 2000)) < np.where(canary, 0.5, 0.3)
    assert (
        np.mean(
            [
                harm(zip(c.tolist(), b.tolist(), strict=True)) <= 0.05
                for c, b in zip(canary, bad, strict=True)
            ]
        )
        >= 0.9
    )
    told = preference({"candidate": 1} if one else {"live": 1} for one in rng.random(600) < 0.4)
    assert told.p_worse <= 0.05 < told.p_better
    assert told.share < 0.5


def test_ties_and_nothing_prefer_nobody() -> None:
    told = preference([{"live": 1, "candidate": 1}, {}])
    assert (told.wins, told.losses, told.ties, told.p_better, told.p_worse, told.share) == (
        0,
        0,
        2,
        1.0,
        1.0,
        0.5,
    )
    assert harm([]) == 1.0
