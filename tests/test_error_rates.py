"""Projects in which nothing is gained: how often they ship, and how often intervals hold the truth.

A few projects of each kind; bench/error_rates.py simulates 200 and more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from nearer.measure.significance import compare
from projects_kit import NULLS, Ended, Sizes, World, many, shares, synthetic_world

PROJECTS = 25
SIZES = Sizes(dev=40, test=100)


@pytest.fixture(scope="module")
def world() -> World:
    return synthetic_world(np.random.default_rng(1))


@pytest.fixture(scope="module")
def ended(world: World) -> dict[str, Sequence[Ended]]:
    return {kind: many(world, kind, SIZES, PROJECTS, [14]) for kind in NULLS}


@pytest.mark.parametrize("kind", NULLS)
def test_projects_that_gain_nothing_are_not_shipped(
    ended: dict[str, Sequence[Ended]], kind: str
) -> None:
    figures = shares(ended[kind])
    changed = figures["ship"] + figures["use_simpler_fix"]
    assert changed * PROJECTS <= binom.ppf(0.999, PROJECTS, 0.05)


def test_intervals_hold_the_true_gain(ended: dict[str, Sequence[Ended]]) -> None:
    covered = sum(project.covers(0.0) for project in ended["no difference"])
    assert covered >= binom.ppf(0.001, PROJECTS, 0.95)


def test_a_gain_that_is_there_is_found(world: World) -> None:
    """So that the projects above are not kept back by a rule that ships nothing."""
    figures = shares(many(world, "real gain", Sizes(dev=40, test=600), 4, [14]))
    assert figures["ship"] >= 0.5


def test_clusters_taken_for_queries_are_wrong_more_often_than_they_say() -> None:
    """Twelve queries per document that gain and lose together, and no gain in the long run."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(25), 12)
    wrong = {True: 0, False: 0}
    for _ in range(60):
        change = np.repeat(rng.uniform(-0.4, 0.4, 25), 12)
        for aware in wrong:
            clusters = labels if aware else None
            gain = compare(0.5 - change / 2, 0.5 + change / 2, rng, 1000, clusters=clusters)
            wrong[aware] += gain.outcome != "unclear"
    assert wrong[True] <= binom.ppf(0.999, 60, 0.05)
    assert wrong[False] > 20
