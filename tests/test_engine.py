"""The budget of time, cheap looks at dev, loggers and callbacks of the user's own."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nearer import config, progress
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.errors import ConfigError
from nearer.settings.durations import read_duration
from nearer.tables import sparkline
from nearer.training import callbacks, checkpoints, engine
from nearer.training import schedule as schedule_module
from nearer.training import work as work_module
from nearer.training.looks import FEWEST_QUERIES, DevJudge, Judge, dev_judge
from nearer.training.losses.ranking import RankingLoss
from nearer.training.recipe import Recipe
from nearer.training.reporting import logging_to
from nearer.training.schedule import Budget, Planner, Schedule
from nearer.training.trainer import Trained, train
from nearer.training.work import Work
from nearer.types import Document, Query, Split
from test_training import quick, toy


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("45 s", 45),
        ("1.5 hours", 5400),
        ("2 min", 120),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read_however_people_write_it(text: Any, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5m", 0, True, None, "nan", "inf", "m", []])
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="10m"):
        read_duration(text)


def test_a_budget_in_the_settings_is_seconds_and_a_bad_one_is_named() -> None:
    assert config.build({"train": {"budget": "1h30m"}}).train.budget == 5400
    with pytest.raises(ConfigError, match=r"train\.budget"):
        config.build({"train": {"budget": "soon"}})


def schedule(most: int = 1000, **changes: Any) -> Schedule:
    values = {
        "most_steps": most,
        "steps_per_epoch": 100,
        "learning_rate": 1e-4,
        "warmup": 0.1,
        "evaluate_every": 100,
        **changes,
    }
    return Schedule(**values)


def test_the_learning_rate_rises_and_falls_to_zero_at_the_last_planned_step() -> None:
    plan = schedule(100)
    assert plan.factor(0) == 0
    assert plan.factor(10) == 1
    assert plan.factor(55) == pytest.approx(0.5)
    assert plan.factor(100) == 0
    plan.plan(50)
    assert plan.factor(50) == 0


def test_steps_are_planned_to_what_fits_into_the_time() -> None:
    plan = schedule()
    budget = Budget(130.0, started=time.monotonic() - 10.0)
    planner = Planner(plan, budget, used=0.0, look_seconds=0.0, final_seconds=4.0)
    work = Work(steps=10, training_seconds=10.0)
    assert planner.ready(work)
    assert planner.reserve == 20.0  # saving, and four scores on all of dev
    assert planner.replan(10, work)
    assert plan.steps == pytest.approx(110, abs=2)
    assert plan.evaluate_every <= plan.steps // 4
    fast = Work(steps=20, training_seconds=0.02)
    assert planner.replan(20, fast)
    assert plan.steps == plan.most_steps  # never more than the epochs


def test_no_more_than_half_of_a_budget_is_kept_back() -> None:
    planner = Planner(schedule(), Budget(10.0), 0.0, look_seconds=9.0, final_seconds=9.0)
    assert planner.reserve == 5.0


class Clock:
    """A clock on which each training step takes two seconds, and nothing else takes any."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        real = RankingLoss.forward

        def forward(loss: RankingLoss, *arguments: Any) -> Any:
            self.now += 2.0
            return real(loss, *arguments)

        monkeypatch.setattr(RankingLoss, "forward", forward)
        for module in (callbacks, checkpoints, engine, schedule_module, work_module):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.mark.long
def test_a_training_keeps_to_its_budget_with_a_model_of_its_best(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    encoder, rows = toy_encoder(tiny_model), toy()
    settings = quick(epochs=500, budget="54s", patience=1000, merge_tolerance=0.01)
    recipe = Recipe.of(settings, tmp_path)
    budget = replace(recipe.budget, started=clock.now)
    trained = train(encoder, rows, toy_judge(), replace(recipe, budget=budget))
    summary = trained.summary
    assert summary["stopped"] == "at the end of the budget"
    assert summary["steps"] == summary["planned_steps"] == 25  # less the reserve of 4 seconds
    assert summary["budget"]["steps_without"] == 3000
    assert clock.now - budget.started <= 54
    assert summary["dev"]["after"] > summary["dev"]["before"]
    rates = [line["learning_rate"] for line in trained.history if "learning_rate" in line]
    assert rates[-1] < 0.1 * max(rates)  # the schedule was fitted to the time


def toy_encoder(tiny_model: Path) -> SentenceEncoder:
    return load_encoder(config.Model(name=str(tiny_model), precision="fp32"), Path())


def toy_dev(n: int = 24) -> Split:
    rows = toy()
    queries = tuple(Query(f"q{i}", rows.queries[i]) for i in range(n))
    return Split("dev", queries, {f"q{i}": {f"d{i}": 1} for i in range(n)})


def toy_judge(sample: int | None = None) -> DevJudge:
    documents = [Document(f"d{i}", text) for i, text in enumerate(toy().documents)]
    whole = Judge(Corpus.from_documents(documents), toy_dev(), "nDCG@10")
    if sample is None:
        return DevJudge(whole)
    fewer = Judge(Corpus.from_documents(documents[: 2 * sample]), toy_dev(sample), "nDCG@10")
    return DevJudge(whole, fewer)


def sampled_training(tiny_model: Path, folder: Path) -> tuple[SentenceEncoder, Trained, DevJudge]:
    encoder, judge = toy_encoder(tiny_model), toy_judge(sample=6)
    settings = quick(epochs=2, evaluations=2)
    return encoder, train(encoder, toy(), judge, Recipe.of(settings, folder)), judge


def test_looks_are_at_a_sample_and_all_of_dev_decides(tiny_model: Path, tmp_path: Path) -> None:
    base = toy_encoder(tiny_model)
    encoder, trained, judge = sampled_training(tiny_model, tmp_path)
    dev = trained.summary["dev"]
    assert judge.sample is not None
    assert trained.history[0]["nDCG@10"] == pytest.approx(judge.sample(base), abs=1e-6)
    assert dev["before"] == pytest.approx(judge.whole(base), abs=1e-6)
    assert dev["after"] == pytest.approx(judge.whole(encoder), abs=1e-6)
    assert dev["interval"][0] <= dev["after"] <= dev["interval"][1]
    scores = [json.loads(path.read_text())["score"] for path in tmp_path.glob("score_*.json")]
    assert dev["after"] == max(scores)


def test_the_gap_is_that_of_as_many_training_queries(tiny_model: Path, tmp_path: Path) -> None:
    encoder, trained, judge = sampled_training(tiny_model, tmp_path)
    gap = trained.summary["gap"]
    # The toy's dev queries are its training queries: there is no gap, and all of them are drawn.
    assert gap["queries"] == len(judge.whole.dev.queries)
    assert gap["gap"] == 0
    assert gap["train"] == pytest.approx(judge.whole(encoder), abs=1e-6)


def systems(n_documents: int, **train_settings: Any) -> Any:
    documents = [Document(f"d{i}", f"text {i} " + "word " * 50) for i in range(n_documents)]
    return SimpleNamespace(
        config=config.build({"train": train_settings}),
        corpus=Corpus.from_documents(documents),
        item_to_item=False,
        search=lambda name, dev: SimpleNamespace(
            results={query.id: [("d999", 2.0), ("d998", 1.0)] for query in dev.queries}
        ),
    )


def many_dev(n: int) -> Split:
    queries = tuple(Query(f"q{i}", f"query {i}") for i in range(n))
    return Split("dev", queries, {f"q{i}": {f"d{i}": 1} for i in range(n)})


def test_a_look_is_as_large_as_its_share_of_the_time_allows() -> None:
    dev, rows = many_dev(300), toy()
    judge = dev_judge(systems(1000), dev, rows, np.random.default_rng(0))
    assert judge.sample is not None
    assert len(judge.sample.dev) == FEWEST_QUERIES
    judged = {doc_id for judged in judge.sample.dev.judgments.values() for doc_id in judged}
    assert judged | {"d999", "d998"} <= set(judge.sample.pool.ids)  # judged, and hard ones
    assert len(judge.sample.pool) < len(judge.whole.pool) == 1000
    again = dev_judge(systems(1000), dev, rows, np.random.default_rng(0))
    assert again.sample is not None
    assert again.sample.pool.ids == judge.sample.pool.ids
    facts = judge.facts()
    assert facts["queries"] == 300
    assert facts["look"] == {
        "queries": FEWEST_QUERIES,
        "documents": len(judge.sample.pool),
        "sampled": True,
    }


def test_a_small_dev_is_always_looked_at_whole() -> None:
    judge = dev_judge(systems(100), many_dev(50), toy(), np.random.default_rng(0))
    assert judge.sample is None
    assert judge.looked_at is judge.whole


class Notes(progress.Silent):
    """A listener that keeps what stands beside the bar."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.curves: list[list[float]] = []

    def note(self, text: str, curve: Any = ()) -> None:
        self.texts.append(text)
        self.curves.append(list(curve))


def test_the_bar_tells_the_loss_and_the_last_dev_scores(tiny_model: Path, tmp_path: Path) -> None:
    notes = Notes()
    with progress.listen(notes):
        train(toy_encoder(tiny_model), toy(), toy_judge(), Recipe.of(quick(epochs=2), tmp_path))
    assert "dev nDCG@10" in notes.texts[-1]
    assert "loss" in notes.texts[-1]
    assert len(notes.curves[-1]) == 2


def test_a_sparkline_has_a_character_per_value() -> None:
    assert sparkline([0.1, 0.2, 0.3]) == "▁▅█"
    assert sparkline([0.5, 0.5]) == "▁▁"
    assert sparkline([0.5]) == ""


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_logger_that_is_not_installed_names_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match="is not installed") as caught:
        logging_to([name], Recipe.of(quick(), tmp_path))
    assert f"pip install {name}" in str(caught.value)


WRITER = """
import json
from pathlib import Path


class SummaryWriter:
    def __init__(self, log_dir):
        self.path = Path(log_dir) / "scalars.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def add_scalar(self, name, value, step):
        with open(self.path, "a") as file:
            file.write(json.dumps([name, float(value), step]) + "\\n")

    def add_text(self, *arguments):
        pass

    def flush(self):
        pass

    def close(self):
        pass
"""


def test_losses_and_dev_scores_reach_the_logger_beside_the_project(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for TensorBoard's writer: the package is large, and the Trainer drives either."""
    (tmp_path / "tensorboardX.py").write_text(WRITER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    if importlib.util.find_spec("tensorboard") is not None:
        monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    settings = quick(epochs=1, report_to=("tensorboard",))
    recipe = Recipe.of(settings, tmp_path / "checkpoints", root=tmp_path)
    train(toy_encoder(tiny_model), toy(), toy_judge(), recipe)
    [path] = tmp_path.glob("tensorboard/*/scalars.jsonl")
    names = {json.loads(line)[0] for line in path.read_text().splitlines()}
    assert {"train/loss", "eval/nDCG@10"} <= names


def test_what_is_no_callback_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "own_callback.py").write_text("class Own:\n    pass\n")
    settings = quick(callbacks=("own_callback:Own",))
    recipe = Recipe.of(settings, tmp_path / "checkpoints", root=tmp_path)
    with pytest.raises(ConfigError, match="TrainerCallback"):
        train(toy_encoder(tiny_model), toy(), None, recipe)


def test_an_unlimited_budget_is_never_used_up() -> None:
    assert Budget().left() == math.inf
    assert not Budget().limited
