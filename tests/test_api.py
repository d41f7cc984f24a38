"""The Python interface returns values and writes no results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nearer
from conftest import QUICK
from nearer.results import Result
from nearer.training.mining import Mined


@pytest.fixture
def loaded(
    small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> nearer.Project:
    monkeypatch.chdir(tmp_path)
    return nearer.load(
        small_data,
        model=str(tiny_model),
        evaluate={"resamples": 1000, "baselines": ["bm25", "rrf"]},
        train={**QUICK["train"], "merge_tolerance": 0},
        mine={"negatives": 1},
    )


@pytest.mark.long
def test_the_stages_run_as_functions_and_leave_no_files(
    loaded: nearer.Project, tmp_path: Path
) -> None:
    assert nearer.check(loaded).counts["documents"] == 120
    evaluation = nearer.evaluate(loaded)
    assert set(evaluation.scores) == {"dense", "bm25", "rrf"}
    assert "dense (today)" in str(evaluation)
    mined = nearer.mine(loaded)
    assert len(mined.examples) > 50
    text = ["an attacker overflows a buffer"]
    before = loaded.systems.encoder.encode(text, "query")
    trained = nearer.train(loaded, mined.examples)
    assert trained.summary["steps"] > 0
    tuned = trained.model.encode(text, normalize_embeddings=True)
    assert not np.allclose(before, tuned, atol=1e-4)
    assert np.array_equal(before, loaded.systems.encoder.encode(text, "query"))  # left as it was
    decision = nearer.decide(loaded, trained, mined)
    assert decision.record["verdict"] in {"ship", "use_simpler_fix", "do_not_ship", "inconclusive"}
    assert {c["name"] for c in decision.record["candidates"]} >= {
        "dense",
        "bm25",
        "rrf",
        "fine-tuned",
    }
    assert list(tmp_path.iterdir()) == []
    shows_itself_and_reads_itself_back(nearer.check(loaded), tmp_path / "check")
    shows_itself_and_reads_itself_back(evaluation, tmp_path / "evaluate")
    shows_itself_and_reads_itself_back(mined, tmp_path / "mine")
    shows_itself_and_reads_itself_back(trained, tmp_path / "train")
    shows_itself_and_reads_itself_back(decision, tmp_path / "decide")
    again = type(evaluation).load(tmp_path / "evaluate")
    assert again.runs["bm25"].results == evaluation.runs["bm25"].results
    assert list(again.scores["bm25"].rows()) == list(evaluation.scores["bm25"].rows())


def shows_itself_and_reads_itself_back(result: Result, folder: Path) -> None:
    """A result is the same after it was saved and loaded, and has a text, a page part and a table."""
    folder.mkdir()
    result.save(folder)
    again = type(result).load(folder)
    assert json.dumps(again.brief()) == json.dumps(result.brief())
    assert str(again) == str(result)
    assert str(result).strip()
    assert result._repr_html_() == again._repr_html_()
    assert len(again.to_pandas()) == len(result.to_pandas()) > 0


def test_what_a_notebook_shows_is_escaped(tmp_path: Path) -> None:
    mined = Mined((), {"<script>alert(1)</script>": 3}, {})
    assert "&lt;script&gt;" in mined._repr_html_()
    assert "<script>" not in mined._repr_html_()


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
