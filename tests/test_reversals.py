"""A change that has the other sign in a part, or once requests or clusters are counted, is told."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearer.measure.reversals import Change, reversals

IDS = tuple(f"q{number}" for number in range(10))


def change(values: list[float], **more: Any) -> Change:
    return Change(IDS, np.array(values), more.pop("slices", {}), **more)


def row(name: str, delta: float, outcome: str = "unclear", p_holm: float = 1.0) -> dict[str, Any]:
    return {"slice": name, "delta": delta, "outcome": outcome, "p_holm": p_holm, "n": 4}


GAIN = [0.2] * 8 + [-0.1] * 2


def test_a_slice_that_loses_while_the_whole_gains() -> None:
    rows = [
        row("small", -0.02),
        row("large", -0.2),
        row("shown", -0.02, "worse", 0.01),
        row("same way", 0.3, "better", 0.001),
    ]
    found = reversals(change(GAIN), rows, 0.05, 0.05)
    assert [(turned.name, turned.shown) for turned in found] == [("large", False), ("shown", True)]


def test_the_queries_that_users_ask_most_decide_the_mean_of_requests() -> None:
    weights = np.array([1.0] * 8 + [50.0] * 2)
    (found,) = reversals(change(GAIN, weights=weights), [], 0.05, 0.05)
    assert (found.by, found.delta < 0, found.overall > 0) == ("requests", True, True)


def test_one_large_cluster_may_carry_the_whole_gain() -> None:
    labels = ["big"] * 8 + ["a", "b"]
    values = [0.2] * 8 + [-0.15, -0.15]
    (found,) = reversals(change(values, labels=labels), [], 0.05, 0.05)
    assert (found.by, found.n) == ("clusters", 3)


def test_slices_of_a_partition_counted_alike() -> None:
    slices = {"short query": set(IDS[:8]), "medium query": {"q8"}, "long query": {"q9"}}
    values = [0.2] * 8 + [-0.15, -0.15]
    (found,) = reversals(change(values, slices=slices), [], 0.05, 0.05)
    assert found.by == "slices"
    assert "short query" in found.name


def test_no_change_turns_round_nowhere() -> None:
    assert reversals(change([0.0] * 10), [row("large", -0.2)], 0.05, 0.05) == []
