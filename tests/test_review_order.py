"""The bench of orders of review, on a few invented queries."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from nearer.review.lists import ListedQuery, Lists
from test_measure_pooled import bench


@pytest.fixture(scope="module")
def order() -> ModuleType:
    return bench("review_order")


def lists(n: int = 60, gain: bool = True) -> Lists:
    """The candidate finds the relevant document first, the baseline last; the rest they share."""
    rows = []
    for number in range(n):
        shared = tuple(f"d{number}-{row}" for row in range(9))
        right = f"right-{number}"
        better, worse = (right, *shared), (*shared, right)
        both = (worse, better) if gain else (worse, worse)
        rows.append(ListedQuery(f"q{number}", "x", None, *both, {right: 1}))
    return Lists("before", "after", "nDCG@10", tuple(rows))


def test_hiding_keeps_about_the_share_and_the_same_whatever_the_order(order: ModuleType) -> None:
    shown = order.hide(lists(400), 0.8, np.random.default_rng(1))
    kept = sum(len(row.grades) for row in shown.queries)
    assert kept == pytest.approx(80, abs=25)


def test_the_weightiest_pairs_settle_a_gain_sooner_than_random_ones(order: ModuleType) -> None:
    setting = order.Setting(hidden=1.0, accuracy=1.0)
    reviews = [
        [order.simulate(lists(), name, setting, seed) for seed in range(3)] for name in order.ORDERS
    ]
    ours, random = (order.summary(each) for each in reviews)
    assert ours["full"] == random["full"] == "gain"
    assert ours["median_share"] < random["median_share"] <= 1.0
    assert ours["never"] == 0.0
    assert reviews[0][0].before == "open"


def test_equal_systems_are_no_gain_whoever_judges(order: ModuleType) -> None:
    review = order.simulate(lists(gain=False), "nearer", order.Setting(), 0)
    assert review.full == "no gain"
    assert review.share is not None


def test_reviewers_are_as_accurate_as_they_should_be(order: ModuleType) -> None:
    rng = np.random.default_rng(2)
    for settings, truth, expected in (
        ({"reviewers": 1}, 0, 0.9),
        ({"reviewers": 3}, 2, 0.972),
        ({"confirm": True}, 0, 1 - 0.1 * 0.19),
        ({"confirm": True}, 2, 0.9 * 0.99),
    ):
        setting = order.Setting(**settings)
        said = [order.answer(truth, setting, rng) for _ in range(4000)]
        right = np.mean([(grade > 0) == (truth > 0) for grade, _ in said])
        assert right == pytest.approx(expected, abs=0.015)
