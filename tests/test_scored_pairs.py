"""Scored pairs and graded judgments: what is a positive of training is declared, and the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import nearer
from nearer.cli import app
from nearer.config import Data, Mine, Train
from nearer.data.corpus import Corpus
from nearer.data.heldout import HeldOut
from nearer.data.load import load_training, refuse_undeclared_scores
from nearer.errors import ConfigError, DataError
from nearer.training.examples import (
    Duplicates,
    Part,
    TrainingSet,
    build_training_set,
    known_positives,
    read_examples,
)
from nearer.training.material import TrainingMaterial
from nearer.training.mining import Evidence, mine
from nearer.training.mining.files import usable_examples
from nearer.training.parts import planned
from nearer.types import Document, Example, Query, Run, Split

PAIRS = [("tide", "sea level", 0.0), ("yeast", "dough", 0.5), ("lava", "magma", 1.0)]


def scored(folder: Path, name: str = "score") -> Path:
    lines = [
        json.dumps({"sentence1": query, "sentence2": positive, name: score})
        for query, positive, score in PAIRS
    ]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def beir(folder: Path) -> Path:
    topics = ("bread", "volcano", "bicycle", "glacier", "violin", "harbour")
    rows = {
        "corpus.jsonl": [{"_id": f"d{i}", "text": f"on {topic}"} for i, topic in enumerate(topics)],
        "queries.jsonl": [{"_id": f"q{i}", "text": f"{topic}?"} for i, topic in enumerate(topics)],
    }
    (folder / "data").mkdir(exist_ok=True)
    for name, lines in rows.items():
        (folder / "data" / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = [f"q{i}\td{i}\t1\n" for i in range(len(topics))]
    (folder / "data" / "qrels.tsv").write_text("".join(judged))
    return folder / "data"


@pytest.mark.parametrize("column", ["score", "similarity", "label"])
def test_scores_without_a_declared_threshold_are_refused_where_positives_are_needed(
    tmp_path: Path, column: str
) -> None:
    scored(tmp_path, column)
    with pytest.raises(DataError) as caught:
        refuse_undeclared_scores(Data(training="pairs.jsonl"), tmp_path)
    message = str(caught.value)
    assert "pairs.jsonl: the pairs have scores from 0 to 1" in message
    assert "nearer run --set mine.min_score=0.5" in message
    assert len(load_training(Data(training="pairs.jsonl"), tmp_path)) == 3


def test_pairs_without_scores_need_no_threshold(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,positive\ntide,sea\n")
    (example,) = load_training(Data(training="pairs.csv"), tmp_path)
    assert example.score is None
    refuse_undeclared_scores(Data(training="pairs.csv"), tmp_path)
    assert plan([example]).parts == (Part("ranking"),)


def plan(
    examples: list[Example], min_score: float | None = None, loss: str = "auto"
) -> TrainingSet:
    """The training set of examples that carry texts, with its losses."""
    rows = build_training_set(examples, None, {}, {}, Duplicates())
    return planned(rows, Train(loss=loss), min_score, Path())


@pytest.mark.long
def test_the_first_stage_refuses_them_and_the_threshold_is_said_on_the_command_line(
    tmp_path: Path, tiny_model: Path
) -> None:
    beir(tmp_path)
    scored(tmp_path)
    settings: dict[str, Any] = {
        "data": {"folder": "data", "training": "pairs.jsonl"},
        "model": {"name": str(tiny_model)},
        "mine": {"negatives": 0},
        "train": {"loss": "ranking"},
    }
    path = tmp_path / "nearer.yaml"
    path.write_text(json.dumps(settings))
    refused = CliRunner().invoke(app, ["check", "-c", str(path)])
    assert refused.exit_code == 2
    told = " ".join(refused.output.split())
    assert "mine.min_score" in told
    assert "pairs.jsonl" in told.replace(" ", "")
    command = ["run", "-c", str(path), "--to", "mine", "--set", "mine.min_score=0.5"]
    command += ["--set", "diagnose.splits=[dev]", "--set", "evaluate.resamples=1000"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "runs/default/mine/summary.json").read_text())
    assert summary["dropped"]["score below mine.min_score"] == 1
    examples = read_examples(tmp_path / "runs/default/mine/examples.jsonl")
    assert [(one.query, one.score) for one in examples if one.query] == [
        ("yeast", 0.5),
        ("lava", 1.0),
    ]


def test_pairs_below_the_threshold_are_left_out_and_counted(tmp_path: Path) -> None:
    scored(tmp_path)
    examples = load_training(Data(training="pairs.jsonl"), tmp_path)
    kept, dropped, _ = usable_examples([*examples, examples[-1]], HeldOut(0.9, {}).collides, 0.5)
    assert [example.query for example in kept] == ["yeast", "lava"]
    assert dropped == {"score below mine.min_score": 1, "the same pair again": 1}


def test_a_pair_that_scores_too_low_does_not_hide_its_better_twin() -> None:
    twins = [Example("sea", query="tide", score=score) for score in (0.0, 1.0)]
    kept, dropped, _ = usable_examples(twins, HeldOut(0.9, {}).collides, 0.5)
    assert kept == twins[1:]
    assert dropped == {"score below mine.min_score": 1}


def test_training_refuses_examples_of_others_that_score_too_low() -> None:
    examples = [Example("sea", query="tide", score=1.0), Example("sun", query="tide", score=0.2)]
    with pytest.raises(DataError, match=r"examples.jsonl:2: the example has the score 0.2, below"):
        plan(examples, 0.5)
    with pytest.raises(DataError, match=r"examples.jsonl:1: .* mine.min_score is not set"):
        plan(examples, None, "ranking")
    assert plan(examples, 0.2).parts == (Part("ranking"),)
    assert plan(examples).parts == (Part("cosent"),)


def test_the_notebook_refuses_them_too(tmp_path: Path, tiny_model: Path) -> None:
    project = nearer.load(beir(tmp_path), model=str(tiny_model), train={"loss": "ranking"})
    with pytest.raises(DataError, match=r"mine\.min_score is not set"):
        nearer.train(project, [Example("sea", query="tide", score=0.0)])


@pytest.mark.parametrize("score", ['"0.1"', "true", "NaN", "[1]"])
def test_a_score_of_an_example_that_is_no_number_is_named(tmp_path: Path, score: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"query": "x", "positive": "y", "score": ' + score + "}\n")
    with pytest.raises(DataError, match=r"examples.jsonl:1: the score .* is not a finite number"):
        read_examples(path)


@pytest.mark.parametrize("value", ["nan", "inf", "often"])
def test_a_threshold_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"mine\.min_score"):
        nearer.config.build({"mine": {"min_score": value}})


GRADED: Mapping[str, Mapping[str, int]] = {"q": {"good": 2, "fair": 1, "bad": 0}}
TEXTS = {"good": "very good", "fair": "fairly good", "bad": "bad", "other": "other"}


def test_a_grade_below_min_grade_is_neither_positive_nor_negative() -> None:
    corpus = Corpus.from_documents(Document(name, text) for name, text in TEXTS.items())
    ranked = [(name, 4.0 - place) for place, name in enumerate(TEXTS)]
    similar = dict(ranked)
    material = TrainingMaterial(
        Split("train", (Query("q", "which"),), GRADED),
        corpus,
        Duplicates(),
        collides=lambda _: None,
        min_grade=2,
    )
    mined = mine(
        material,
        Evidence(
            [Run("dense", {"q": ranked})],
            lambda _, doc_ids: np.array([similar[name] for name in doc_ids], np.float32),
        ),
        Mine(negatives=4),
        np.random.default_rng(0),
    )
    (example,) = mined.examples
    assert example.positive == "good"
    assert set(example.negatives) == {"bad", "other"}


def test_a_grade_below_min_grade_is_no_negative_in_the_batch_either() -> None:
    corpus = Corpus.from_documents(Document(name, text) for name, text in TEXTS.items())
    queries = {"q": Query("q", "which"), "r": Query("r", "what")}
    examples = [Example("good", query_id="q"), Example("fair", query_id="r")]
    judgments = {**GRADED, "r": {"fair": 2}}
    rows = build_training_set(examples, corpus, queries, judgments, Duplicates())
    fair = rows.documents.index("fairly good")
    assert fair in rows.blocked[rows.queries.index("which")]
    assert known_positives(GRADED, Duplicates()) == {"q": frozenset({"good", "fair"})}
