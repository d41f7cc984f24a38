"""Two systems side by side: compare and gate, from values, from runs and from TREC files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nearer.cli import app
from nearer.data.clusters import QueryClusters
from nearer.decision.contrast import Contrast, Side, Terms, contrast
from nearer.decision.sides import read_scores, read_source
from nearer.errors import ConfigError, DataError
from nearer.measure.metrics import Scores
from nearer.report import contrasted
from nearer.results import in_text

MEASURE = "nDCG@10"


def nearer(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def side(name: str, values: np.ndarray, first: int = 0, **described: Any) -> Side:
    ids = tuple(f"q{number + first:03d}" for number in range(len(values)))
    return Side(name, Scores(ids, {MEASURE: values, "R@10": values}), described)


def of(before: np.ndarray, after: np.ndarray, **terms: Any) -> Contrast:
    rng = np.random.default_rng(1)
    sides = (side("main", before), side("pr", after))
    return contrast(*sides, Terms(MEASURE, resamples=1000, **terms), rng)


def spread(n: int = 120) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.2, 0.8, n)


# -- values ----------------------------------------------------------------------------------------


def test_a_real_loss_is_a_regression_and_a_small_one_is_not() -> None:
    before = spread()
    noise = np.random.default_rng(4).normal(0, 0.05, len(before))
    worse = of(before, np.clip(before - 0.1 + noise, 0, 1))
    assert worse.regressed
    assert worse.sentence().startswith("Regression: nDCG@10")
    unclear = of(before, np.clip(before - 0.004 + noise - noise.mean(), 0, 1))
    assert unclear.primary.change.delta < 0
    assert not unclear.regressed
    assert "A loss of up to" in unclear.sentence()
    better = of(before, np.clip(before + 0.1 + noise, 0, 1))
    assert better.sentence().startswith("Better")
    assert not better.regressed


def test_without_a_difference_few_comparisons_are_called_a_regression() -> None:
    """Each side is the other with noise: at most alpha / 2 = 2.5% may say no (here 40 draws)."""
    rng = np.random.default_rng(5)
    says_no = 0
    for _ in range(40):
        before = rng.uniform(0.2, 0.8, 60)
        after = np.clip(before + rng.normal(0, 0.1, 60), 0, 1)
        sides = (side("a", before), side("b", after))
        terms = Terms(MEASURE, resamples=1000)
        says_no += contrast(*sides, terms, np.random.default_rng(6)).regressed
    assert says_no <= 4  # one expected of a test that uses its whole error rate


def test_queries_that_hang_together_are_one_loss_and_not_forty() -> None:
    before = spread()
    after = before.copy()
    after[:40] = np.clip(after[:40] - 0.15, 0, 1)  # one template, which lost
    rest = np.random.default_rng(8).normal(0, 0.01, 80)
    after[40:] = np.clip(after[40:] + rest, 0, 1)
    assert of(before, after).regressed
    one = {f"q{number:03d}": "q000" if number < 40 else f"q{number:03d}" for number in range(120)}
    found = of(before, after, clusters=QueryClusters(one, "template"))
    assert not found.regressed
    assert found.as_dict()["clusters"] | {"noticed": []} == {
        "unit": "template",
        "n": 81,
        "queries": 120,
        "largest": 40,
        "noticed": [],
    }
    assert "120 queries are 81 clusters (template; the largest has 40)" in in_text(found.blocks())


def test_queries_that_flip_are_told_with_their_texts() -> None:
    before, after = spread(), spread()
    before[3], after[3] = 0.9, 0.0
    before[7], after[7] = 0.0, 0.5
    found = of(before, after, texts={"q003": "lost one"})
    assert [(flip.query_id, flip.text) for flip in found.lost] == [("q003", "lost one")]
    assert [flip.query_id for flip in found.won] == ["q007"]
    assert "1 query lost" in in_text(found.blocks())
    assert "lost one" in contrasted.render(found, failed=False)


def test_a_slice_that_is_really_worse_is_named_even_where_the_mean_is_not() -> None:
    before = spread(400)
    after = before.copy()
    inside = {f"q{number:03d}" for number in range(40)}
    after[:40] = np.clip(after[:40] - 0.2, 0, 1)
    after[40:] = np.clip(after[40:] + 0.03, 0, 1)
    found = of(before, after, slices={"identifier": inside})
    assert not found.regressed
    assert found.worse_slices == ("identifier",)
    assert "identifier" in contrasted.render(found, failed=True)


def test_only_common_queries_are_compared_and_the_others_are_counted() -> None:
    rng = np.random.default_rng(1)
    terms = Terms(MEASURE, resamples=1000)
    found = contrast(side("a", spread(50)), side("b", spread(50), first=10), terms, rng)
    assert found.primary.change.n == 40
    assert (found.only_baseline, found.only_candidate) == (10, 10)
    assert "only the 40 queries" in found.warnings()[0]
    with pytest.raises(DataError, match="no judged query in common"):
        contrast(side("a", spread(50)), side("b", spread(50), first=60), terms, rng)


def test_a_measure_that_one_side_lacks_is_refused() -> None:
    lacking = Side("b", Scores(("q000",), {"R@10": np.array([1.0])}))
    with pytest.raises(ConfigError, match="was not measured"):
        contrast(side("a", spread(5)), lacking, Terms(MEASURE), np.random.default_rng(1))


def test_what_differs_between_the_systems_is_told() -> None:
    before = side("a", spread(), model="minilm", system="dense")
    after = side("b", spread(), model="mpnet", system="dense")
    found = contrast(before, after, Terms(MEASURE, resamples=1000), np.random.default_rng(1))
    assert found.differences() == {"model": ("minilm", "mpnet")}
    assert "minilm → mpnet" in contrasted.render(found, failed=False)


def test_markdown_lets_no_text_of_users_act() -> None:
    before, after = spread(), spread()
    after[3] = 0.0
    found = of(before, after, texts={"q003": "<img src=x> @team | **x** </details>"})
    text = contrasted.render(found, failed=True)
    assert "<img" not in text
    assert "@team" not in text
    assert text.count("</details>") == text.count("<details>")


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "needs a query_id"),
        ('{"query_id": "a"}', "needs a measure"),
        ('{"query_id": "a", "nDCG@10": "high"}', "is no number"),
        ('{"query_id": "a", "nDCG@10": NaN}', "is no number"),
        ('{"query_id": "a", "nDCG@10": 50.6}', "is 50.6, and measures lie between 0 and 1"),
        ('{"query_id": "a", "nDCG@10": -0.1}', "is -0.1, and measures lie between 0 and 1"),
        ('{"query_id": "a", "nDCG@10": 1' + "0" * 400 + "}", "is no number"),
        ('{"query_id": "a", "R@10": 1.0}', "not those of the lines above"),
        ('{"query_id": "z", "nDCG@10": 1.0}', "twice"),
    ],
)
def test_a_file_of_scores_that_is_none_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "scores.jsonl"
    first = "" if "needs" in problem else '{"query_id": "z", "nDCG@10": 0.5}\n'
    path.write_text(first + line + "\n")
    with pytest.raises(DataError, match=problem):
        read_scores(path)


def scores_of(folder: Path, value: float) -> None:
    folder.mkdir(parents=True)
    (folder / "scores.jsonl").write_text(json.dumps({"query_id": "a", "nDCG@10": value}))


def test_a_plain_name_means_the_run_and_not_a_folder_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores_of(tmp_path / "main", 0.1)
    scores_of(tmp_path / "runs" / "main" / "evaluate", 0.9)
    named, placed = read_source("main", tmp_path), read_source("./main", tmp_path)
    assert named.scores is not None
    assert placed.scores is not None
    assert named.scores.mean("nDCG@10") == 0.9
    assert placed.scores.mean("nDCG@10") == 0.1


@pytest.mark.parametrize("value", [None, 7, [], [3], "text", {"system": 3, "systems": [1, None]}])
def test_an_odd_summary_beside_scores_describes_nothing(tmp_path: Path, value: Any) -> None:
    folder = tmp_path / "runs" / "odd" / "evaluate"
    scores_of(folder, 0.5)
    scores_of(folder / "systems", 0.5)
    (folder / "systems" / "scores.jsonl").rename(folder / "systems" / "bm25.scores.jsonl")
    (folder / "summary.json").write_text(json.dumps(value))
    assert read_source("odd", tmp_path).described == {}
    assert read_source("odd", tmp_path, "bm25").described == {}


def test_what_is_not_there_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run or file called nothing") as caught:
        read_source("nothing", tmp_path)
    assert "nearer evaluate --run nothing" in str(caught.value)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, write_project: Any) -> Path:
    """nearer.yaml of a project whose run `main` is evaluated."""
    path: Path = write_project(tmp_path_factory.mktemp("evaluated"))
    result = nearer("run", "--to", "evaluate", "--run", "main", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    return path


def worsened(run: Path) -> None:
    """Turn the results of a run around, so that its last ones come first."""
    lines = [line.split() for line in (run / "evaluate/run.trec").read_text().splitlines()]
    turned = [f"{q} Q0 {d} {rank} {-float(score)} {tag}" for q, _, d, rank, score, tag in lines]
    (run / "evaluate/run.trec").write_text("\n".join(turned) + "\n")


def test_the_gate_passes_an_equal_run_and_stops_one_that_is_worse(
    evaluated: Path, tmp_path: Path
) -> None:
    equal = nearer("gate", "--against", "main", "--run", "pr", "-c", evaluated, "--json")
    assert equal.exit_code == 0, equal.output
    told = json.loads(equal.stdout)
    assert (told["gate"], told["regressed"]) == ("pass", False)
    assert told["comparisons"][0]["delta"] == 0
    comment = tmp_path / "comment.md"
    worsened(evaluated.parent / "runs" / "pr")
    words = ("gate", "--against", "main", "--run", "pr", "-c", evaluated)
    stopped = nearer(*words, "--markdown", comment)
    assert stopped.exit_code == 1, stopped.output
    assert "Regression" in stopped.output
    assert comment.read_text().startswith("## ❌ Search quality: a regression")
    shutil.rmtree(evaluated.parent / "runs" / "pr")


def test_a_baseline_may_be_a_folder_from_elsewhere_or_a_trec_file(
    evaluated: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated.parent / "runs" / "main" / "evaluate", tmp_path / "stored")
    words = ("--run", "pr", "-c", evaluated, "--json")
    for baseline in (
        tmp_path / "stored",
        tmp_path / "stored/run.trec",
        tmp_path / "stored/scores.jsonl",
    ):
        result = nearer("gate", "--against", baseline, *words)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["n_queries"] == 30
    other = nearer("gate", "--against", "main", "--system", "bm25", *words)
    assert json.loads(other.stdout)["baseline"]["name"] == "main bm25"


def test_the_gate_refuses_what_it_cannot_compare(evaluated: Path, tmp_path: Path) -> None:
    words = ("-c", evaluated, "--run", "main")
    itself = nearer("gate", "--against", "main", *words)
    assert itself.exit_code == 2
    assert "nothing would be compared" in itself.output.replace("\n", " ")
    assert nearer("gate", "--against", "nothing", *words).exit_code == 2
    (tmp_path / "broken.trec").write_text("no run\n")
    assert nearer("gate", "--against", tmp_path / "broken.trec", *words).exit_code == 2
    (tmp_path / "others.trec").write_text("x Q0 CWE-79 1 0.5 tag\n")
    others = nearer("gate", "--against", tmp_path / "others.trec", *words, "--set", "run=main")
    assert others.exit_code == 2


def test_two_runs_are_compared_with_slices_and_flips(evaluated: Path) -> None:
    second = nearer("evaluate", "--run", "words", "--set", "search.system=bm25", "-c", evaluated)
    assert second.exit_code == 2  # there is no split yet
    words = ("run", "--to", "evaluate", "--run", "words", "--set", "search.system=bm25")
    assert nearer(*words, "-c", evaluated).exit_code == 0
    result = nearer("compare", "main", "words", "-c", evaluated, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["baseline"]["system"]["system"] == "dense"
    assert told["candidate"]["system"]["system"] == "bm25"
    assert told["slices"]
    assert all(flip["text"] for flip in [*told["lost"], *told["won"]])
    assert "system: dense → bm25" in nearer("compare", "main", "words", "-c", evaluated).output


def test_trec_files_are_compared_without_a_project(
    evaluated: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    systems = evaluated.parent / "runs" / "main" / "evaluate" / "systems"
    files = (systems / "dense.trec", systems / "bm25.trec")
    qrels = small_data / "qrels" / "dev.tsv"
    queries = small_data / "queries.jsonl"
    result = nearer("compare", *files, "--qrels", qrels, "--queries", queries, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["n_queries"] == 30
    assert {row["slice"] for row in told["slices"]} & {"long query", "medium query"}
    alone = nearer("compare", *files)
    assert alone.exit_code == 2
    assert "--qrels" in alone.output


def test_new_queries_do_not_count_against_the_stored_baseline(
    evaluated: Path, tmp_path: Path
) -> None:
    """Queries that were judged later were never asked of the baseline: they are left out, and told."""
    stored = tmp_path / "stored"
    shutil.copytree(evaluated.parent / "runs" / "main" / "evaluate", stored)
    scores = (stored / "scores.jsonl").read_text().splitlines()
    gone = json.loads(scores[0])["query_id"]
    (stored / "scores.jsonl").write_text("\n".join(scores[1:]) + "\n")
    lines = (stored / "run.trec").read_text().splitlines()
    kept = [line for line in lines if line.split()[0] != gone]
    (stored / "run.trec").write_text("\n".join(kept) + "\n")
    result = nearer("gate", "--against", stored, "--run", "pr", "-c", evaluated, "--json")
    told = json.loads(result.stdout)
    assert (told["n_queries"], told["only_in_candidate"]) == (29, 1)
    assert told["comparisons"][0]["delta"] == 0


@pytest.mark.parametrize("command", ["compare", "gate", "sign-off", "mistakes"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: nearer {command}" in result.output
