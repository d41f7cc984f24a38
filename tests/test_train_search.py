"""`train.search`: the budget is spent by halving, dev decides, and what has ended is not trained again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

import nearer
from nearer import config
from nearer.errors import ConfigError, ModelError
from nearer.stages.train import FineTuned
from nearer.training.methods import search as module
from nearer.training.methods.arms import Arm, Surroundings, arms_of
from nearer.training.methods.job import Candidate, Job
from nearer.training.methods.naming import Method
from nearer.training.methods.search import affordable, refuse_impossible, sizes
from nearer.training.methods.trials import Trial, Trials
from nearer.training.methods.weights import train_once
from nearer.types import Example

pytestmark = pytest.mark.long

AROUND = Surroundings(learning_rate=1e-4, layers=6, has_negatives=True)


def settings_of(**train: Any) -> config.Train:
    return config.build({"train": train}).train


def test_a_search_is_asked_for_in_a_word_a_number_or_a_section() -> None:
    assert settings_of().search.arms == 0
    assert settings_of(search=True).search.arms == 8
    assert settings_of(search=5).search.arms == 5
    assert settings_of(search=False).search == settings_of(search=None).search
    section = settings_of(search={"arms": 3, "learning_rate": [1e-4, 1e-3]}).search
    assert section.learning_rate == (1e-4, 1e-3)
    with pytest.raises(ConfigError, match=r"train\.search\.methods.*train\.search\.method\?"):
        settings_of(search={"methods": ["full"]})
    with pytest.raises(ConfigError, match="always runs beside a search"):
        settings_of(search={"method": ["linear"]})


@pytest.mark.parametrize(
    ("train", "n_dev", "message"),
    [
        ({}, 30, r"nearer train --set train\.budget=30m"),
        ({"budget": "1m"}, 0, "no dev queries"),
        ({"budget": "1m", "candidates": ["full", "query"]}, 30, r"train\.search\.method"),
        ({"budget": "1m", "method": "linear"}, 30, r"train\.search\.method"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_with_what_would_do(
    train: dict[str, Any], n_dev: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_impossible(settings_of(search=True, **train), n_dev)
    refuse_impossible(settings_of(**train), n_dev)


def test_a_search_without_a_budget_is_refused_before_anything_is_computed(
    small_data: Path, tiny_model: Path
) -> None:
    project = nearer.load(small_data, model=str(tiny_model), train={"search": True})
    examples = [Example(f"d{number}", query=f"q{number}") for number in range(3)]
    with pytest.raises(ConfigError, match=r"train\.budget"):
        nearer.train(project, examples)


def test_the_users_own_settings_come_first_and_all_arms_differ() -> None:
    arms = arms_of(settings_of(search=30), AROUND)
    assert arms[0].changes == {}
    assert "your settings" in arms[0].label
    keys = {(arm.method, *sorted(map(str, arm.changes.items()))) for arm in arms}
    assert len(keys) == len(arms) == 30
    assert {arm.method for arm in arms} == {"full", "top:3"}
    names = {name for arm in arms for name in arm.changes}
    assert names == {
        "method",
        "learning_rate",
        "epochs",
        "batch_size",
        "anchor",
        "negatives_per_batch",
    }


def test_fewer_arms_are_the_first_of_more_and_the_seed_draws_others() -> None:
    twelve = arms_of(settings_of(search=12), AROUND)
    assert arms_of(settings_of(search=4), AROUND) == twelve[:4]
    assert arms_of(settings_of(search=12, seed=8), AROUND) != twelve


def test_what_is_named_is_tried_and_nothing_else() -> None:
    named = {"learning_rate": [1e-3], "epochs": [5], "batch_size": [8], "anchor": [0.0]}
    section = {"arms": 9, "method": ["lora:4"], "negatives_per_batch": [None], **named}
    own, other = arms_of(settings_of(search=section), AROUND)
    assert own.changes == {}
    assert other.changes == {
        "method": "lora:4",
        "learning_rate": 1e-3,
        "epochs": 5.0,
        "batch_size": 8,
        "anchor": 0.0,
    }
    assert other.label == "lora:4, learning rate 0.001, epochs 5, batch 8, anchor 0"


def test_a_third_goes_on_and_the_budget_says_how_many_begin() -> None:
    assert [sizes(arms) for arms in (1, 2, 3, 4, 8, 9, 10)] == [
        [],
        [2],
        [3],
        [4, 2],
        [8, 3],
        [9, 3],
        [10, 4, 2],
    ]
    assert affordable(8, left=600.0, fewest=10.0) == 8  # 600 / 2 / 2 rounds / 8 = 18.75 s
    assert affordable(8, left=60.0, fewest=10.0) == 3
    assert affordable(8, left=10.0, fewest=10.0) == 1


def trial(arm: int, dev: float | None, number: int = 0) -> Trial:
    return Trial(number, arm, f"arm {arm}", 10.0, 9.0, 5, "at the end", dev, False)


def checkpoint(trials: Trials, arm: Arm) -> Path:
    folder = trials.place(0, arm) / "checkpoint-5"
    folder.mkdir(parents=True)
    return folder


def test_the_checkpoints_of_the_best_trial_are_kept_and_no_others(tmp_path: Path) -> None:
    arms = arms_of(settings_of(search=3), AROUND)
    trials = Trials.of(tmp_path / "search", arms)
    folders = [checkpoint(trials, arm) for arm in arms]
    for arm, dev in enumerate((0.4, 0.6, 0.5)):
        trials.add(trial(arm, dev))
    assert [folder.exists() for folder in folders] == [False, True, False]
    assert trials.best == trial(1, 0.6)
    again = Trials.of(tmp_path / "search", arms)
    assert again.best == trial(1, 0.6)
    assert again.planned(3) == 3
    other = arms_of(settings_of(search=3, seed=9), AROUND)
    assert Trials.of(tmp_path / "search", other).ended == []
    assert not folders[1].exists()


class Killed(BaseException):
    """What ends the process between two trainings."""


def project_of(data: Path, model: Path, **train: Any) -> nearer.Project:
    settings: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 8,
        "dev_documents": 60,
        "max_seq_length": 32,
        "anchor_texts": 2,
        "general": None,
        "budget": "10h",  # however slow the machine is, nothing is cut short
    }
    return nearer.load(
        data, model=str(model), train={**settings, **train}, evaluate={"resamples": 1000}
    )


@pytest.fixture(scope="module")
def examples(small_data: Path, tiny_model: Path) -> Sequence[Example]:
    project = nearer.load(small_data, model=str(tiny_model), mine={"negatives": 0})
    return nearer.mine(project).examples


SECTION = {"arms": 3, "method": ["full", "top:1"], "learning_rate": [2e-4], "epochs": [1]}


def test_a_search_goes_on_after_a_kill_without_training_anything_twice(
    small_data: Path,
    tiny_model: Path,
    tmp_path: Path,
    examples: Sequence[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = project_of(small_data, tiny_model, search=SECTION)
    began: list[str] = []

    def until_the_second(job: Job, method: Method) -> Candidate:
        if len(began) == 1:
            raise Killed
        began.append(method.name)
        return train_once(job, method)

    monkeypatch.setattr(module, "train_once", until_the_second)
    with pytest.raises(Killed):
        nearer.train(project, examples, checkpoints=tmp_path / "checkpoints")

    def counted(job: Job, method: Method) -> Candidate:
        began.append(method.name)
        return train_once(job, method)

    monkeypatch.setattr(module, "train_once", counted)
    tuned = nearer.train(project, examples, checkpoints=tmp_path / "checkpoints")
    assert len(began) == 3  # each arm once, in two processes
    record = tuned.summary["search"]
    assert [line["arm"] for line in record["trials"]] == [0, 1, 2]
    assert record["rounds"] == [3, 1]
    best = max(record["trials"], key=lambda line: line["dev"])
    assert record["chosen"]["arm"] == best["arm"]
    assert "was not cut short" in record["reason"]  # so that its own checkpoints are the model
    assert tuned.summary["steps"] == best["steps"]
    assert tuned.summary["merge"]["curve"]  # a trial is not merged, the model is
    for name, value in best["changes"].items():
        assert tuned.summary["settings"][name] == value
    (tmp_path / "out").mkdir()
    tuned.save(tmp_path / "out")
    SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu")
    saved = FineTuned.load(tmp_path / "out")
    assert "3 settings tried in" in str(saved)
    assert best["label"].split(",")[0] in str(saved)
    table = json.loads((tmp_path / "out" / "candidates.json").read_text())
    assert table["candidates"][0]["seconds"] == pytest.approx(record["seconds"], abs=0.2)


def test_what_was_cut_short_is_trained_again_for_longer(
    small_data: Path,
    tiny_model: Path,
    tmp_path: Path,
    examples: Sequence[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = project_of(small_data, tiny_model, search={**SECTION, "arms": 2}, seeds=2)
    describe = module._trial

    def cut(number: int, arm: Arm, share: float, candidate: Candidate) -> Trial:
        return replace(describe(number, arm, share, candidate), complete=False)

    monkeypatch.setattr(module, "_trial", cut)
    tuned = nearer.train(project, examples, checkpoints=tmp_path / "checkpoints")
    record = tuned.summary["search"]
    assert record["rounds"] == [2, 1]
    assert tuned.summary["seeds"] == 2
    assert len(tuned.summary["seed_scores"]["scores"]) == 2
    assert tuned.summary["dev"]["after"] >= tuned.summary["dev"]["before"]


def test_an_arm_that_fails_is_told_and_the_others_go_on(
    small_data: Path,
    tiny_model: Path,
    tmp_path: Path,
    examples: Sequence[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = project_of(small_data, tiny_model, search={**SECTION, "arms": 2})

    def failing(job: Job, method: Method) -> Candidate:
        if job.changes:
            raise ModelError("the training loss is not finite", where="tiny")
        return train_once(job, method)

    monkeypatch.setattr(module, "train_once", failing)
    tuned = nearer.train(project, examples, checkpoints=tmp_path / "checkpoints")
    record = tuned.summary["search"]
    assert record["chosen"]["arm"] == 0
    assert record["trials"][1]["dev"] is None
    assert "failed: the training loss is not finite" in str(tuned)


def test_when_the_time_is_up_the_best_so_far_is_the_model(
    small_data: Path,
    tiny_model: Path,
    tmp_path: Path,
    examples: Sequence[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = project_of(small_data, tiny_model, search={**SECTION, "arms": 2})
    describe = module._trial

    def slow(number: int, arm: Arm, share: float, candidate: Candidate) -> Trial:
        """A machine that was held up: the trial took all of the budget."""
        ended = describe(number, arm, share, candidate)
        return replace(ended, complete=False, seconds=36_000.0)

    monkeypatch.setattr(module, "_trial", slow)
    tuned = nearer.train(project, examples, checkpoints=tmp_path / "checkpoints")
    record = tuned.summary["search"]
    assert [line["arm"] for line in record["trials"]] == [0]
    assert record["chosen"]["arm"] == 0
    assert "the time was up" in record["reason"]
    assert tuned.summary["dev"]["after"] >= tuned.summary["dev"]["before"]
    assert tuned.model is not None
