"""Diagnosis and the ladder on a small run: what the files say, what the stories tell, what stays untouched."""

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
from nearer.diagnosis.causes import causes, classify
from nearer.diagnosis.totals import freshness, promote, waterfall
from nearer.diagnosis.values import Facts, Probe, best
from nearer.search.pipeline import Pipeline
from nearer.types import Query, Run, Split

CAUSES = [cause.name for cause in causes()]
EVERY = ["metadata", "rewriting", "hybrid", "reranking", "chunking", "base_model"]


def call(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, write_project: Any) -> Path:
    """nearer.yaml of a project that was run from check to fix."""
    chunkers = ["tokens:32:8", "late:tokens:32:8", "recursive:32+title"]
    path: Path = write_project(
        tmp_path_factory.mktemp("fixed"),
        diagnose={"chunkers": chunkers[:1]},
        fix={"fixes": EVERY, "chunkers": chunkers, "compressions": ["int8", "binary@128"]},
    )
    result = call("run", "--to", "fix", "-c", path, "--json")
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def run_dir(fixed: Path) -> Path:
    return fixed.parent / "runs" / "default"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.long
def test_every_failure_has_a_cause_and_every_probe_its_rank(run_dir: Path) -> None:
    failures = lines(run_dir / "diagnose" / "failures.jsonl")
    summary = json.loads((run_dir / "diagnose" / "summary.json").read_text())
    assert len(failures) == summary["n_failures"] > 10
    assert sum(summary["causes"].values()) == len(failures)
    for line in failures:
        assert line["cause"] in CAUSES
        assert {"today", "exact", "chunking", "exact_match"} <= set(line["probes"])
        assert line["probes"]["today"]["rank"] > 10
        assert line["evidence"]


def test_diagnosis_and_fixes_never_look_at_test(run_dir: Path) -> None:
    held_out = {
        line["_id"] for line in lines(run_dir / "check" / "split" / "test" / "queries.jsonl")
    }
    assert held_out
    assert not held_out & {
        line["query_id"] for line in lines(run_dir / "diagnose" / "failures.jsonl")
    }
    assert not (run_dir / "test_looks.jsonl").exists()


def test_the_waterfall_ends_where_nothing_fails(run_dir: Path) -> None:
    steps = json.loads((run_dir / "diagnose" / "summary.json").read_text())["steps"]
    assert steps[-1]["failing_queries_left"] == 0
    assert [step["measure"] for step in steps] == sorted(step["measure"] for step in steps)


def test_every_kind_of_fix_is_tried_with_its_cost(run_dir: Path) -> None:
    trials = lines(run_dir / "fix" / "trials.jsonl")
    tried = {trial["label"] for trial in trials}
    assert {
        "rrf",
        "convex",
        "dense + tokens:32:8",
        "dense + late:tokens:32:8",
        "dense + int8",
        "dense + binary@128",
    } <= tried
    for trial in trials:
        assert {"p50_ms", "p95_ms", "index_bytes", "build_seconds"} <= set(trial["cost"])
        assert trial["delta"]["ci"][0] <= trial["delta"]["mean"] <= trial["delta"]["ci"][1]
        assert trial["needs"]
    sizes = {trial["label"]: trial["cost"]["index_bytes"] for trial in trials}
    assert sizes["dense + binary@128"] < sizes["dense + int8"] < sizes["dense + tokens:32:8"]


def test_the_ladder_keeps_only_rungs_that_really_help(run_dir: Path) -> None:
    ladder = json.loads((run_dir / "fix" / "summary.json").read_text())
    assert [rung["fix"] for rung in ladder["rungs"]] == EVERY
    for rung in ladder["rungs"]:
        if rung["delta"]:
            delta = rung["delta"]
            real = delta["ci"][0] > 0 and delta["p"] <= 0.05
            assert real or not rung["kept"]
            assert rung["kept"] <= (delta["mean"] >= 0.005)
    kept = [rung for rung in ladder["rungs"] if rung["kept"]]
    assert Pipeline.from_dict(ladder["best"]).label == (
        kept[-1]["label"] if kept else ladder["today_label"]
    )


def test_what_was_not_tried_is_told_with_its_command_and_is_never_semantic(run_dir: Path) -> None:
    ladder = json.loads((run_dir / "fix" / "summary.json").read_text())
    rungs = {rung["fix"]: rung for rung in ladder["rungs"]}
    assert rungs["reranking"]["tried"] is False
    assert rungs["reranking"]["label"].startswith("not tried: no reranker is at hand")
    untried = {one["fix"]: one["next"] for one in ladder["not_tried"]}
    assert untried["reranking"] == "nearer fix --set rerank.model=train"
    assert "fix.models" in untried["base_model"]
    summary = json.loads((run_dir / "diagnose" / "summary.json").read_text())
    assert "semantic" not in summary["causes"]
    probes = {row["probe"]: row for row in summary["not_tried"]}
    assert probes["base_model"]["next"].startswith("nearer diagnose --set")
    for line in lines(run_dir / "diagnose" / "failures.jsonl"):
        assert line["probes"].get("base_model", {}).get("found", False) is False


def test_the_story_of_a_pair_reads_well_and_agrees_with_the_file(
    fixed: Path, run_dir: Path
) -> None:
    line = lines(run_dir / "diagnose" / "failures.jsonl")[0]
    settings = ("--set", "diagnose.chunkers=[tokens:32:8]")
    told = call("why", line["query_id"], line["doc_id"], "-c", fixed, *settings)
    assert told.exit_code == 0, told.output
    assert line["doc_id"] in told.output
    story = json.loads(
        call("diagnose", "--query", line["query_id"], "-c", fixed, "--json", *settings).stdout
    )
    same = next(one for one in story if one["doc_id"] == line["doc_id"])
    assert same["cause"] == line["cause"]
    assert same["probes"]["today"] == line["probes"]["today"]


def test_unknown_queries_and_documents_are_named(fixed: Path, run_dir: Path) -> None:
    held_out = lines(run_dir / "check" / "split" / "test" / "queries.jsonl")[0]["_id"]
    for words in (("why", held_out, "CWE-79"), ("why", "a text of words", "no-such-document")):
        result = call(*words, "-c", fixed)
        assert result.exit_code == 2
        assert "error" in result.output


@pytest.mark.long
def test_the_same_through_python(
    small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: Mapping[str, Any] = {
        "diagnose": {"chunkers": ["tokens:32:8"]},
        "fix": {"fixes": ["hybrid"], "models": []},
        "rerank": {"model": None},
        "evaluate": {"resamples": 1000},
    }
    project = nearer.load(small_data, model=str(tiny_model), **settings)
    found = nearer.diagnose(project)
    assert "queries find nothing relevant" in str(found)
    fixes = nearer.fix(project, found)
    names = {one["fix"] for one in fixes.ladder["not_tried"]}
    assert names == {"metadata", "rewriting", "reranking", "chunking", "base_model"}
    record = nearer.decide(project, None, diagnoses=found, fixes=fixes).record
    assert {one["fix"] for one in record["not_tried"]} == names
    if record["verdict"] != "use_simpler_fix":
        assert "Simpler fixes not tried: metadata, rewriting" in record["sentence"]
    assert fixes.best.label in {candidate["name"] for candidate in record["candidates"]}
    assert record["checklist"][1]["answer"] in {"yes", "no", "unknown"}
    assert not list(tmp_path.iterdir())


# -- the rule ---------------------------------------------------------------------------------------------

AT_40 = {"today": Probe(40), "exact": Probe(40)}


@pytest.mark.parametrize(
    ("probes", "facts", "cause"),
    [
        ({}, Facts(missing="not in the corpus"), "missing_document"),
        ({}, Facts(excluded="metadata wrong: …", filters_apply=True), "ineligible"),
        ({"ineligible": Probe(3)}, Facts(excluded="metadata wrong: …"), "ineligible"),
        ({"needs_metadata": best({"declared": 9})}, Facts(declared=True), "needs_metadata"),
        ({"chunking": best({"tokens:128:32": 2})}, Facts(unread="cut off: …"), "chunking"),
        ({"chunking": best({"tokens:128:32": 2})}, Facts(overlap=0.5), "unknown"),
        ({"finer": best({"a": 2, "b": 3, "c": 30})}, Facts(overlap=0.5), "chunking"),
        ({"finer": best({"a": 2, "b": 30, "c": 30})}, Facts(unread="cut off: …"), "chunking"),
        ({"finer": best({"a": 2, "b": 30, "c": 30})}, Facts(overlap=0.5), "unknown"),
        ({"base_model": Probe(skipped="none named", next_step="name one")}, Facts(), "unknown"),
        ({"rewriting": best({"acronyms": 3})}, Facts(overlap=0.5), "unknown"),
        (
            {"exact_match": best({"bm25": 1}), "chunking": best({"a": 1})},
            Facts(identifiers=("QX-1",), identifier_share=1.0),
            "exact_match",
        ),
        (
            {"today": Probe(None), "exact": Probe(4), "exact_match": best({"bm25": 1})},
            Facts(),
            "index_loss",
        ),
        ({"ranking": Probe(1)}, Facts(), "ranking"),
        ({"ranking": Probe(11, at_least=True)}, Facts(overlap=0.5), "semantic"),
        ({"base_model": best({"other": 5})}, Facts(), "base_model"),
        ({"ranking": Probe(skipped="no reranker")}, Facts(), "unknown"),
        ({}, Facts(duplicates=("d9",)), "label_suspect"),
        ({}, Facts(), "semantic"),
    ],
)
def test_the_cheapest_repair_that_works_is_the_cause(
    probes: dict[str, Probe], facts: Facts, cause: str
) -> None:
    assert classify(AT_40 | probes, facts, 10).cause == cause


AT_6000 = {"today": Probe(6000), "exact": Probe(6000)}


@pytest.mark.parametrize(
    ("probes", "facts", "cause"),
    [
        ({"chunking": best({"a": 57, "b": 90})}, Facts(unread="cut off: …"), "chunking"),
        ({"chunking": best({"a": 57, "b": 90})}, Facts(overlap=0.5), "chunking"),
        ({"chunking": best({"a": 57, "b": 3000})}, Facts(overlap=0.5), "unknown"),
        ({"exact_match": best({"bm25": 40})}, Facts(identifiers=("QX-1",)), "exact_match"),
        ({"exact_match": best({"bm25": 40})}, Facts(overlap=0.5), "unknown"),
        ({"needs_metadata": best({"declared": 300})}, Facts(declared=True), "needs_metadata"),
        ({"base_model": best({"other": 200})}, Facts(), "base_model"),
        ({"combined": best({"a + bm25": 20})}, Facts(), "unknown"),
        ({"chunking": best({"a": 601, "b": 700})}, Facts(overlap=0.5), "semantic"),
    ],
)
def test_a_repair_that_takes_the_rank_down_tenfold_is_never_called_semantic(
    probes: dict[str, Probe], facts: Facts, cause: str
) -> None:
    told = classify(AT_6000 | probes, facts, 10)
    assert told.cause == cause
    if cause != "semantic":
        assert told.kind == "repaired in part"
        assert "which is not among the first 10" in told.evidence


def test_repairs_that_work_only_together_name_the_one_that_does_most() -> None:
    probes = AT_6000 | {
        "chunking": best({"a": 57, "b": 90}),
        "exact_match": best({"bm25": 500}),
        "combined": best({"a + bm25": 4}),
    }
    told = classify(probes, Facts(unread="cut off: …", identifiers=("QX-1",)), 10)
    assert (told.cause, told.kind) == ("chunking", "combination")
    assert "only together: a + bm25" in told.evidence


def test_a_probe_that_was_not_tried_says_why_and_which_command_would() -> None:
    skipped = Probe(skipped="no reranker is at hand", next_step="nearer diagnose --set x=y")
    told = classify(AT_40 | {"ranking": skipped}, Facts(), 10)
    assert told.cause == "unknown"
    assert "no reranker is at hand; nearer diagnose --set x=y" in told.evidence
    assert skipped.as_dict(10)["next"] == "nearer diagnose --set x=y"


def test_entering_the_first_page_by_a_little_is_no_repair() -> None:
    near = {"today": Probe(12), "exact": Probe(12), "exact_match": best({"bm25": 8})}
    assert classify(near, Facts(), 10).cause == "semantic"
    assert classify(near, Facts(identifiers=("CVE-2020-1",)), 10).cause == "exact_match"


def test_a_suspicious_judgment_stands_beside_any_other_cause() -> None:
    told = classify(AT_40 | {"exact_match": best({"bm25": 1})}, Facts(duplicates=("d9",)), 10)
    assert (told.cause, told.also) == ("exact_match", ("label_suspect",))
    assert "d9" in told.evidence


def test_the_ceiling_is_the_measure_with_semantic_failures_first() -> None:
    split = Split("dev", (Query("a", "a"), Query("b", "b")), {"a": {"x": 1}, "b": {"y": 1}})
    run = Run("today", {"a": [("z", 2.0), ("w", 1.0)], "b": [("z", 2.0), ("w", 1.0)]})
    failures = [
        {"query_id": "a", "doc_id": "x", "cause": "semantic"},
        {"query_id": "b", "doc_id": "y", "cause": "chunking"},
    ]
    told = waterfall(run, split, failures, "nDCG@10")
    assert told["fine_tuning_ceiling"]["today"] == 0
    assert told["fine_tuning_ceiling"]["if_found"] == 0.5
    assert [step["measure"] for step in told["steps"]] == [0.5, 1.0]
    assert promote(run, {"a": ["x"]}).top("a", 3) == ["x", "z", "w"]


def test_failures_on_new_documents_say_that_the_index_is_stale() -> None:
    rng = np.random.default_rng(0)
    old, new = list(rng.uniform(2000, 2020, 90)), list(rng.uniform(2021, 2024, 30))
    told = freshness("updated", failed=[*old[:9], *new[:20]], fine=[*old[9:], *new[20:]])
    assert told is not None
    assert told["failure_rate_newest"] > told["failure_rate_others"]
    assert freshness("updated", failed=[*old[:30], *new[:10]], fine=[*old[30:], *new[10:]]) is None
