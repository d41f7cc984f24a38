"""Scored pairs alone: models are judged by Spearman's rank correlation on pairs that are held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from typer.testing import CliRunner

import nearer
from nearer import config
from nearer.cli import app
from nearer.data.heldout import HeldOut
from nearer.data.scored import ScoredPair, held_out_pairs
from nearer.decision.scored import PairsEvidence, _guardrails, _verdict
from nearer.embed.encoder import load_encoder
from nearer.embed.pairs import similarities
from nearer.errors import DataError, HeldOutError
from nearer.guardrails import load_guardrails
from nearer.guardrails.base import Row
from nearer.measure.correlation import (
    CorrelationChange,
    compare_correlations,
    products,
    spearman,
)
from nearer.training.mining.files import PAIR_HELD_OUT, usable_examples
from nearer.types import Example, Interval

pytestmark = pytest.mark.long

WORDS = [
    "buffer",
    "overflow",
    "path",
    "traversal",
    "script",
    "injection",
    "memory",
    "leak",
    "race",
    "weak",
    "password",
    "redirect",
    "null",
    "pointer",
    "integer",
    "header",
    "token",
    "cookie",
    "cache",
    "parser",
    "kernel",
    "driver",
    "socket",
    "thread",
]


def scored_lines(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of texts of six words; the score is how many of the first three they share."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        first = rng.permutation(WORDS)[:6]
        shared = int(rng.integers(0, 4))
        others = [word for word in WORDS if word not in first]
        second = [*first[:shared], *rng.permutation(others)[: 6 - shared]]
        lines.append(
            {"sentence1": " ".join(first), "sentence2": " ".join(second), "score": float(shared)}
        )
    return lines


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


# -- the measure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_correlation_is_that_of_scipy_also_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = rng.normal(size=80)
    right = np.round(left + rng.normal(size=80))  # many equal values
    assert spearman(left, right) == pytest.approx(scipy.stats.spearmanr(left, right).statistic)
    assert products(left, right).mean() == pytest.approx(spearman(left, right))


def test_what_has_no_order_follows_nothing_and_what_is_no_number_is_refused() -> None:
    assert spearman(np.ones(10), np.arange(10.0)) == 0.0
    with pytest.raises(DataError, match="finite pairs"):
        spearman(np.array([1.0, np.nan, 2.0]), np.arange(3.0))
    with pytest.raises(DataError, match="finite pairs"):
        spearman(np.arange(2.0), np.arange(2.0))


def test_a_gain_is_shown_only_where_there_is_one() -> None:
    rng = np.random.default_rng(1)
    gold = rng.normal(size=300)
    noisy, clear = gold + rng.normal(size=300), gold + 0.3 * rng.normal(size=300)
    better = compare_correlations(gold, noisy, clear, np.random.default_rng(0), resamples=400)
    assert better.low > 0.0
    assert better.p < 0.01
    assert better.delta == pytest.approx(better.after.mean - better.before.mean)
    assert better.before.low < better.before.mean < better.before.high
    same = compare_correlations(gold, noisy, noisy, np.random.default_rng(0), resamples=400)
    assert (same.delta, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_no_gain_is_claimed_of_two_equally_good_models_more_often_than_promised() -> None:
    claimed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        gold = rng.normal(size=60)
        left, right = (gold + rng.normal(size=60) for _ in range(2))
        change = compare_correlations(gold, left, right, rng, resamples=200)
        claimed += change.low > 0.0
    assert claimed <= 14  # 2.5% of 200 are 5; more than 14 come by chance once in 2,000 times


def test_a_symmetric_pair_is_two_documents_and_another_a_query_and_a_document(
    tiny_model: Path,
) -> None:
    settings = config.Model(name=str(tiny_model), precision="fp32", query_prompt="ask: ")
    encoder = load_encoder(settings, Path())
    pairs = [
        ScoredPair("weak password", "buffer overflow", 1.0),
        ScoredPair("weak password", "buffer overflow", 1.0, symmetric=False),
    ]
    first, second = encoder.encode(["weak password", "buffer overflow"], "document")
    asked = encoder.encode(["weak password"], "query")[0]
    found = similarities(encoder, pairs)
    assert found == pytest.approx([float(first @ second), float(asked @ second)], abs=1e-6)
    assert abs(found[0] - found[1]) > 1e-4


# -- which pairs are held out ---------------------------------------------------------------------


def test_pairs_are_taken_from_the_training_file_by_the_seed_and_stay_together(
    tmp_path: Path,
) -> None:
    lines = scored_lines(300)
    for number in range(0, 300, 2):  # neighbours share a text
        lines[number + 1]["sentence1"] = lines[number]["sentence1"]
    write(tmp_path / "train.jsonl", lines)
    data = config.Data(training="train.jsonl")
    taken = held_out_pairs(data, tmp_path, 7, 0.9)
    assert len(taken.dev) == pytest.approx(30, abs=2)
    assert len(taken.test) == pytest.approx(90, abs=2)
    assert not {pair.first for pair in taken.dev} & {pair.first for pair in taken.test}
    held_out = {pair.first for pair in (*taken.dev, *taken.test)}
    rest = [line for line in lines if line["sentence1"] not in held_out]
    assert len(rest) == 300 - len(taken.dev) - len(taken.test)
    assert taken == held_out_pairs(data, tmp_path, 7, 0.9)
    assert taken.dev != held_out_pairs(data, tmp_path, 8, 0.9).dev
    assert "pairs with a text in common stay together" in taken.notes[0]


def test_files_of_held_out_pairs_are_taken_as_they_are(tmp_path: Path) -> None:
    for name, count in (("train", 60), ("dev", 25), ("test", 30)):
        write(tmp_path / f"{name}.jsonl", scored_lines(count, seed=count))
    data = config.Data(training="train.jsonl", scored={"dev": "dev.jsonl", "test": "test.jsonl"})
    taken = held_out_pairs(data, tmp_path, 7, 0.9)
    assert (len(taken.dev), len(taken.test)) == (25, 30)
    one = config.Data(training="train.jsonl", scored={"test": "test.jsonl"})
    assert len(held_out_pairs(one, tmp_path, 7, 0.9).test) == 30


def test_few_pairs_stay_in_training_and_other_data_holds_none_out(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", scored_lines(40))
    taken = held_out_pairs(config.Data(training="train.jsonl"), tmp_path, 7, 0.9)
    assert not taken.dev
    assert "too few" in taken.notes[0]
    write(tmp_path / "pairs.jsonl", [{"query": "tide", "positive": "sea"}])
    data = config.Data(training="pairs.jsonl", scored={"dev": "train.jsonl"})
    with pytest.raises(DataError, match="scored pairs are all the data"):
        held_out_pairs(data, tmp_path, 7, 0.9)
    write(tmp_path / "unscored.jsonl", [{"sentence1": "tide", "sentence2": "sea"}])
    data = config.Data(training="train.jsonl", scored={"dev": "unscored.jsonl"})
    with pytest.raises(DataError, match="need a score"):
        held_out_pairs(data, tmp_path, 7, 0.9)


def test_mining_leaves_held_out_pairs_out_in_either_order_and_keeps_their_texts() -> None:
    held_out = ScoredPair("the tide is high", "the sea is at its highest", 4.0)
    guard = HeldOut.of([held_out.identity], 0.9)
    swapped = Example(held_out.first, query=held_out.second, score=4.0, symmetric=True)
    other = Example("a calm sea", query=held_out.first, score=2.0, symmetric=True)
    kept, dropped, leakage = usable_examples([swapped, other], guard.collides)
    assert kept == [other]
    assert dropped == {PAIR_HELD_OUT: 1}
    assert leakage == {}


# -- the verdict ----------------------------------------------------------------------------------


def change(delta: float, low: float, high: float, p: float) -> CorrelationChange:
    before, after = Interval(0.7, 0.6, 0.8), Interval(0.7 + delta, 0.6 + delta, 0.8 + delta)
    return CorrelationChange(before, after, delta, low, high, p, 500)


@pytest.mark.parametrize(
    ("changed", "status", "verdict"),
    [
        (change(0.05, 0.02, 0.08, 0.001), "pass", "ship"),
        (change(0.05, 0.02, 0.08, 0.001), "fail", "do_not_ship"),
        (change(0.05, 0.02, 0.08, 0.001), "inconclusive", "inconclusive"),
        (change(0.05, -0.01, 0.11, 0.08), "pass", "inconclusive"),
        (change(0.009, 0.002, 0.016, 0.01), "pass", "inconclusive"),  # shown, and not useful
        (change(-0.05, -0.08, -0.02, 0.001), "pass", "do_not_ship"),
    ],
)
def test_a_model_ships_where_a_useful_gain_is_shown_and_nothing_is_lost(
    changed: CorrelationChange, status: Any, verdict: str
) -> None:
    model: Any = object()
    evidence = PairsEvidence((), model, model, None, config.Config(), looks=1)
    found, why = _verdict(evidence, changed, [Row(name="general ability", status=status)])
    assert found == verdict
    assert why
    untrained = PairsEvidence((), model, None, None, config.Config(), looks=1)
    assert _verdict(untrained, changed, ())[0] == "do_not_ship"


def test_without_a_search_every_guardrail_says_why_it_was_not_measured() -> None:
    """What somebody asked for holds the release back; what runs by default does not."""
    model: Any = object()
    settings = config.build({"decide": {"guardrails": {"general": None}}})
    evidence = PairsEvidence((), model, model, None, settings, looks=1)
    rows = {row.name: row for row in _guardrails(evidence, model)}
    assert set(rows) == {guardrail.name for guardrail in load_guardrails()}
    assert rows.pop("general ability").status == "not measured"
    assert {row.status for row in rows.values()} == {"does not apply"}
    better = change(0.05, 0.02, 0.08, 0.001)
    found, why = _verdict(evidence, better, _guardrails(evidence, model))
    assert found == "ship"
    assert why.endswith("no guardrail was measured (not measured: general ability)")

    asked = {"guardrails": {"general": None, "latency_ratio": 1.1}, "must_pass": ["q1"]}
    settings = config.build({"decide": asked})
    evidence = PairsEvidence((), model, model, None, settings, looks=1)
    found, why = _verdict(evidence, better, _guardrails(evidence, model))
    assert found == "inconclusive"
    assert why.endswith("latency, named queries could not be checked")


def test_a_handful_of_pairs_proves_nothing() -> None:
    rng = np.random.default_rng(2)
    scores = np.arange(5.0)
    shown = compare_correlations(scores, scores[::-1].copy(), scores, rng)
    assert shown.p < 0.05
    assert shown.low > 0
    model: Any = object()
    evidence = PairsEvidence((), model, model, None, config.Config(), looks=1)
    found, why = _verdict(evidence, shown, ())
    assert found == "inconclusive"
    assert "5 are fewer than the 20" in why


# -- from the file to the decision ----------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over scored pairs alone: check, mine, train, decide and report."""
    root = tmp_path_factory.mktemp("scored")
    write(root / "train.jsonl", scored_lines(400))
    settings: dict[str, Any] = {
        "data": {"training": "train.jsonl"},
        "model": {"name": str(tiny_model), "precision": "fp32"},
        "train": {
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 3e-4,
            "anchor_texts": 2,
            "general": None,
        },
        "decide": {"guardrails": {"general": None}},
    }
    (root / "nearer.yaml").write_text(json.dumps(settings))
    for command in ("check", "mine", "train", "decide", "report"):
        done = CliRunner().invoke(app, [command, "-c", str(root / "nearer.yaml"), "-q"])
        assert done.exit_code == 0, (command, done.output)
    return root / "runs" / "default"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_dev_pairs_choose_the_model_and_the_summary_tells_both(folder: Path) -> None:
    summary = read(folder / "train/summary.json")
    dev = summary["dev"]
    assert dev["measure"] == "Spearman"
    assert dev["pairs"] == 40
    assert dev["after"] > dev["before"]
    assert dev["gain"]["delta"] == pytest.approx(dev["after"] - dev["before"], abs=1e-6)
    assert dev["interval"][0] < dev["after"] < dev["interval"][1]
    assert summary["merge"]["curve"]
    history = [json.loads(line) for line in (folder / "train/history.jsonl").open()]
    looks = [line["Spearman"] for line in history if "Spearman" in line]
    assert looks[0] == pytest.approx(dev["before"])
    assert len(looks) > 1
    mined = read(folder / "mine/summary.json")
    assert mined["dropped"][PAIR_HELD_OUT] == 40 + 120
    card = (folder / "train/model/README.md").read_text()
    assert "dev (40 scored pairs) | Spearman" in card
    table = read(folder / "train/candidates.json")
    assert [row["name"] for row in table["candidates"]] == ["full"]
    assert {row["name"] for row in table["not_tried"]} == {"linear", "nudge"}


def test_the_decision_compares_both_models_on_the_test_pairs(folder: Path) -> None:
    decision = read(folder / "decide/decision.json")
    assert decision["verdict"] in ("ship", "inconclusive")
    assert decision["primary"] == "Spearman"
    assert decision["n_queries"] == 120
    (comparison,) = decision["comparisons"]
    assert comparison["delta"] > 0
    shown = comparison["ci"][0] > 0 and comparison["p"] <= 0.05 and comparison["delta"] >= 0.01
    assert (decision["verdict"] == "ship") == shown  # what 120 pairs can tell
    means = {row["name"]: row["measures"]["Spearman"]["mean"] for row in decision["candidates"]}
    assert means["fine-tuned"] - means["today"] == pytest.approx(comparison["delta"])
    look = read(folder / "test_looks.jsonl")
    assert look["n_pairs"] == 120
    assert "no search and no simpler fix was compared" in " ".join(decision["reasons"])
    text = (folder / "report/report.md").read_text()
    assert decision["sentence"].split(":")[0] in text
    assert "Spearman" in text
    assert "Spearman on dev by step" in (folder / "report/report.html").read_text()


def test_test_pairs_are_closed_to_all_but_decide(folder: Path) -> None:
    settings = config.load(folder.parents[1] / "nearer.yaml")
    project = nearer.project.Project.at(folder.parents[1], settings)
    assert len(project.scored_pairs("dev")) == 40
    with pytest.raises(HeldOutError):
        project.scored_pairs("test")
