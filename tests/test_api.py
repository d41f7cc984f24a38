"""The Python interface returns values and writes no results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nearer


@pytest.fixture
def loaded(
    small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> nearer.Project:
    monkeypatch.chdir(tmp_path)
    return nearer.load(
        small_data,
        model=str(tiny_model),
        evaluate={"resamples": 1000, "baselines": ["bm25", "rrf"]},
        train={"epochs": 1, "batch_size": 8, "merge_tolerance": 0},
        mine={"negatives": 1},
    )


def test_the_stages_run_as_functions_and_leave_no_files(
    loaded: nearer.Project, tmp_path: Path
) -> None:
    assert nearer.check(loaded).counts["documents"] == 120
    evaluation = nearer.evaluate(loaded)
    assert set(evaluation.scores) == {"dense", "bm25", "rrf"}
    assert "← today" in str(evaluation)
    mined = nearer.mine(loaded)
    assert len(mined.examples) > 50
    trained = nearer.train(loaded, mined.examples)
    assert trained.summary["steps"] > 0
    decision = nearer.decide(loaded, trained, mined)
    assert decision.record["verdict"] in {"ship", "use_simpler_fix", "do_not_ship", "inconclusive"}
    assert {c["name"] for c in decision.record["candidates"]} >= {
        "dense",
        "bm25",
        "rrf",
        "fine-tuned",
    }
    assert list(tmp_path.iterdir()) == []


def test_training_leaves_todays_model_as_it_was(loaded: nearer.Project) -> None:
    text = ["an attacker overflows a buffer"]
    before = loaded.systems.encoder.encode(text, "query")
    trained = nearer.train(loaded, nearer.mine(loaded).examples)
    assert np.array_equal(before, loaded.systems.encoder.encode(text, "query"))
    assert not np.allclose(before, trained.model.encode(text, normalize_embeddings=True), atol=1e-4)


def test_a_decision_without_a_tuned_model_judges_the_simpler_fixes(loaded: nearer.Project) -> None:
    record = nearer.decide(loaded, None).record
    assert record["verdict"] in {"use_simpler_fix", "do_not_ship"}
    assert all(candidate["role"] != "candidate" for candidate in record["candidates"])


def test_unknown_settings_are_refused(small_data: Path) -> None:
    with pytest.raises(nearer.NearerError, match=r"train\.epoch"):
        nearer.load(small_data, train={"epoch": 1})


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_that"):
        nearer.nothing_like_that  # noqa: B018 - the access is the test
