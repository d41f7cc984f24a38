"""How far a fine-tuned model goes back towards its base: on dev, and on ordinary language."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nearer.training.merging import MERGE_WEIGHTS, Merged, MergeRule, Scores, back_to_base, merge

RULE = MergeRule(tolerance=0.01, keep=0.85, forget=0.01)
Curve = Callable[[float], Scores]


def merged_along(curve: Curve, before: Scores, rule: MergeRule = RULE) -> tuple[Merged, float]:
    """Merge a model of one weight: 0 is its base, 1 the tuned one.  The weight itself comes with it."""
    model = torch.nn.Linear(1, 1, bias=False)
    base = {"weight": torch.zeros(1, 1)}
    torch.nn.init.ones_(model.weight)

    def judge() -> Scores:
        return curve(model.weight.item())

    merged = merge(model, base, before, judge, rule)
    return merged, model.weight.item()


def test_without_a_general_set_dev_alone_decides() -> None:
    merged, weight = merged_along(lambda w: Scores(0.3 + 0.05 * w), Scores(0.3))
    assert merged.weight == pytest.approx(0.8)  # .340 is within .01 of .350; .335 is not
    assert weight == pytest.approx(0.8)
    assert [point[0] for point in merged.curve] == [1.0, 0.9, 0.8, 0.7]


def test_going_back_ends_where_little_enough_is_forgotten() -> None:
    before = Scores(0.3, general=0.8)

    def curve(w: float) -> Scores:
        return Scores(0.5 - 0.2 * (1 - w) ** 2, 0.8 - 0.012 * w)

    merged, weight = merged_along(curve, before)
    assert merged.weight == pytest.approx(0.8)  # .0096 is lost there, .0108 at .9
    assert weight == pytest.approx(0.8)


def test_a_model_that_forgets_nothing_goes_all_the_way() -> None:
    before = Scores(0.3, general=0.8)
    merged, weight = merged_along(lambda w: Scores(0.3 + 0.2 * w, 0.8), before)
    assert (merged.weight, weight) == (1.0, 1.0)
    assert len(merged.curve) == 1


def test_most_of_the_gain_is_kept_whatever_is_forgotten() -> None:
    before = Scores(0.3, general=0.8)
    merged, _ = merged_along(lambda w: Scores(0.3 + 0.2 * w, 0.8 - 0.1 * w), before)
    assert merged.weight == pytest.approx(0.9)  # .8 would keep 80% of the gain only
    assert merged.scores == Scores(pytest.approx(0.48), pytest.approx(0.71))


def test_no_model_comes_out_worse_on_dev_than_its_base() -> None:
    before = Scores(0.5, general=0.8)
    merged, weight = merged_along(lambda w: Scores(0.5 - 0.2 * w, 0.8 - 0.1 * w), before)
    assert merged.weight == 0.0
    assert weight == 0.0


def test_part_of_the_way_can_help_where_all_of_it_hurts() -> None:
    merged, weight = merged_along(lambda w: Scores(0.5 + 0.1 * w * (0.7 - w)), Scores(0.5))
    assert merged.weight in MERGE_WEIGHTS
    assert merged.scores is not None
    assert merged.scores.dev >= 0.5
    assert weight == pytest.approx(merged.weight)


def test_going_back_stops_at_the_score_of_the_base() -> None:
    """Within the tolerance of the tuned model, and still not below the base's."""
    before = Scores(0.5)
    merged, _ = merged_along(lambda w: Scores(0.503 - 0.02 * (1 - w)), before)
    assert merged.weight == pytest.approx(0.9)
    assert merged.scores is not None
    assert merged.scores.dev >= before.dev


@pytest.mark.parametrize("general", [None, 0.8])
def test_where_all_of_the_way_hurts_a_part_that_does_not_is_taken(general: float | None) -> None:
    before = Scores(0.5, general)

    def curve(w: float) -> Scores:
        return Scores(0.495 if w > 0.65 else 0.495 + 0.01 * (w > 0.55), general)

    merged, _ = merged_along(curve, before)
    assert merged.weight == pytest.approx(0.6)  # .505; at .5 it is worse than the base again


def test_without_time_for_another_score_the_base_is_known_to_be_better() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    base = {"weight": torch.zeros(1, 1)}
    judged: list[float] = []

    def judge() -> Scores:
        judged.append(model.weight.item())
        return Scores(0.4)

    merged = merge(model, base, Scores(0.5), judge, RULE, go_on=lambda: False)
    assert len(judged) == 1
    assert merged.weight == 0.0
    assert merged.scores == Scores(0.5)
    assert model.weight.item() == 0.0
    torch.nn.init.ones_(model.weight)
    assert back_to_base(model, base, Scores(0.5)).scores == Scores(0.5)
    assert model.weight.item() == 0.0


def test_a_tolerance_of_0_merges_nothing() -> None:
    rule = MergeRule(tolerance=0, keep=0.85, forget=0.01)
    merged, weight = merged_along(lambda w: Scores(0.9 - w, 0.1), Scores(0.5, 0.9), rule)
    assert merged == Merged()
    assert weight == 1.0


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_scores_are_no_merged_model_is_below_its_base(seed: int) -> None:
    rng = np.random.default_rng(seed)
    general = None if seed % 2 else 0.8
    before = Scores(0.5, general)
    # Few different values, so that ties are frequent.
    values = rng.choice([0.3, 0.499, 0.5, 0.501, 0.7], 11)

    def curve(w: float) -> Scores:
        if w == 0.0:
            return before
        score = float(values[round(10 * w)])
        return Scores(score, None if general is None else float(rng.uniform(0.7, 0.9)))

    time_for = int(rng.integers(1, 12))
    model = torch.nn.Linear(1, 1, bias=False)
    base = {"weight": torch.zeros(1, 1)}
    torch.nn.init.ones_(model.weight)
    judged: list[float] = []

    def judge() -> Scores:
        judged.append(model.weight.item())
        return curve(model.weight.item())

    rule = MergeRule(tolerance=0.01, keep=float(rng.choice([0.0, 0.85, 1.0])), forget=0.01)
    merged = merge(model, base, before, judge, rule, lambda: len(judged) < time_for)
    assert merged.scores is not None
    assert merged.scores.dev >= before.dev
    assert curve(model.weight.item()).dev >= before.dev
    assert model.weight.item() == pytest.approx(merged.weight)
