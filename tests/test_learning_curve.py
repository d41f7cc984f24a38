"""What more data would add, and that the subsets it is told from are nested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nearer
from conftest import QUICK
from nearer.errors import ConfigError
from nearer.files import read_json
from nearer.training.examples import TrainingSet
from nearer.training.learning_curve import SHARES, draw, fit_curve, subset, worth_drawing
from test_training import toy, training_sets

pytestmark = pytest.mark.long


@given(training_sets(), st.integers(0, 5))
def test_a_larger_share_holds_all_rows_of_a_smaller_one(rows: TrainingSet, seed: int) -> None:
    rows = replace(rows, scores=tuple(float(row) for row in range(len(rows))))
    smaller: set[float | None] = set()
    for share in SHARES:
        chosen = subset(rows, share, seed)
        assert len(chosen.scores) == len(chosen.rows)
        for row, score in zip(chosen.rows, chosen.scores, strict=True):
            assert score is not None
            assert rows.rows[int(score)] == row  # each row keeps what belongs to it
        assert smaller <= set(chosen.scores)
        smaller = set(chosen.scores)
    assert subset(rows, 1.0, seed).rows == rows.rows


def test_the_gain_of_a_doubling_is_found_where_each_adds_the_same() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.5, 200)
    slopes = rng.normal(0.03, 0.02, 200)
    queries = (100, 200, 300, 400)
    columns = [base + slopes * np.log2(n / 100) for n in queries]
    curve = fit_curve(queries, columns, "nDCG@10")
    assert curve.doubling == pytest.approx(slopes.mean(), abs=1e-9)
    assert curve.low < slopes.mean() < curve.high
    assert "twice the data would add about +0.0" in curve.sentence


def test_where_nothing_is_gained_the_interval_says_so() -> None:
    rng = np.random.default_rng(1)
    columns = [rng.uniform(0, 1, 60) for _ in SHARES]
    curve = fit_curve((25, 50, 75, 100), columns, "nDCG@10")
    assert curve.low < 0 < curve.high


def test_the_whole_training_is_not_done_twice() -> None:
    trained: list[tuple[int, str]] = []

    def train(rows: TrainingSet, name: str) -> np.ndarray:
        trained.append((len(rows), name))
        return np.full(10, len(rows) / 100)

    curve = draw(toy(40), 7, train, np.full(10, 0.4), "nDCG@10")
    assert trained == [(10, "curve-25"), (20, "curve-50"), (30, "curve-75")]
    assert curve.queries == (10, 20, 30, 40)
    assert worth_drawing(toy(40))
    assert not worth_drawing(toy(24))


def test_a_run_tells_what_more_data_would_add(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    project = nearer.load(
        small_data,
        model=str(tiny_model),
        train={
            **QUICK["train"],
            "learning_curve": True,
            "merge_tolerance": 0,
            "dev_documents": 40,
        },
    )
    mined = nearer.mine(project)
    trained = nearer.train(project, mined.examples, checkpoints=tmp_path / "checkpoints")
    trained.save(tmp_path)
    curve = read_json(tmp_path / "learning_curve.json")
    assert [point["queries"] for point in curve["points"]] == sorted(
        point["queries"] for point in curve["points"]
    )
    assert len(curve["points"]) == len(SHARES)
    assert curve["interval"][0] <= curve["doubling"] <= curve["interval"][1]
    assert curve["sentence"] in str(trained)
    card = (tmp_path / "model" / "README.md").read_text()
    assert str(tmp_path) not in card
    assert str(small_data.parent) not in card


def test_a_learning_curve_does_not_fit_into_a_budget(small_data: Path, tiny_model: Path) -> None:
    project = nearer.load(
        small_data, model=str(tiny_model), train={"learning_curve": True, "budget": "10m"}
    )
    mined = nearer.mine(project)
    with pytest.raises(ConfigError, match="learning curve"):
        nearer.train(project, mined.examples)
