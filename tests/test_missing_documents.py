"""Relevant documents that the corpus lacks: a failure with a name, never a query that vanishes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytrec_eval
from typer.testing import CliRunner

import nearer
from nearer.cli import app
from nearer.data.trec import read_qrels

MEASURES = {"nDCG@10": "ndcg_cut_10", "R@10": "recall_10", "AP": "map", "Success@1": "success_1"}
GONE = "gone-from-the-corpus"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def holes(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data without two documents that dev and train ask for, and a half-answerable query."""
    folder = tmp_path_factory.mktemp("holes") / "data"
    shutil.copytree(small_data, folder)
    wanted = [row.split("\t")[1] for row in _rows(folder / "qrels" / "dev.tsv")]
    lost = set(list(dict.fromkeys(wanted))[:2])
    corpus = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in corpus if json.loads(line)["_id"] not in lost]
    (folder / "corpus.jsonl").write_text("".join(kept), encoding="utf-8")
    last = _rows(folder / "qrels" / "dev.tsv")[-1].split("\t")[0]
    with (folder / "qrels" / "dev.tsv").open("a", encoding="utf-8") as file:
        file.write(f"{last}\t{GONE}\t1\n")
    return folder


def _rows(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()[1:]


@pytest.fixture(scope="module")
def run_dir(holes: Path, tmp_path_factory: pytest.TempPathFactory, write_project: Any) -> Path:
    folder = tmp_path_factory.mktemp("project")
    path = write_project(folder, data={"folder": str(holes)}, diagnose={"splits": ["dev", "train"]})
    result = CliRunner().invoke(app, ["run", "--to", "mine", "-c", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return folder / "runs" / "default"


def absent(run_dir: Path, holes: Path, split: str) -> dict[str, list[str]]:
    """Query id → relevant documents that the corpus lacks, out of the data itself."""
    there = {line["_id"] for line in lines(holes / "corpus.jsonl")}
    frozen = {line["_id"] for line in lines(run_dir / "check" / "split" / split / "queries.jsonl")}
    judged = read_qrels(holes / "qrels" / f"{split}.tsv")
    found = {
        query_id: [doc_id for doc_id in documents if doc_id not in there]
        for query_id, documents in judged.items()
        if query_id in frozen
    }
    return {query_id: documents for query_id, documents in found.items() if documents}


def test_every_dev_query_of_the_data_is_measured_and_scored_as_trec_eval_does(
    run_dir: Path, holes: Path
) -> None:
    judged = read_qrels(holes / "qrels" / "dev.tsv")
    run: dict[str, dict[str, float]] = {}
    for row in (run_dir / "evaluate" / "run.trec").read_text(encoding="utf-8").splitlines():
        query_id, _, doc_id, _, value, _ = row.split()
        run.setdefault(query_id, {})[doc_id] = float(value)
    official = pytrec_eval.RelevanceEvaluator(judged, set(MEASURES.values())).evaluate(run)
    scores = {line["query_id"]: line for line in lines(run_dir / "evaluate" / "scores.jsonl")}
    assert set(scores) == set(judged)
    for query_id, line in scores.items():
        for name, trec in MEASURES.items():
            assert line[name] == pytest.approx(official[query_id][trec])
    frozen = read_qrels(run_dir / "check" / "split" / "dev" / "qrels.tsv")
    assert frozen == judged


def test_a_query_whose_only_document_is_missing_counts_0_in_every_measure(
    run_dir: Path, holes: Path
) -> None:
    judged = read_qrels(holes / "qrels" / "dev.tsv")
    lost = absent(run_dir, holes, "dev")
    without_any = [q for q, documents in lost.items() if len(documents) == len(judged[q])]
    assert without_any
    scores = {line["query_id"]: line for line in lines(run_dir / "evaluate" / "scores.jsonl")}
    for query_id in without_any:
        assert {value for name, value in scores[query_id].items() if name in MEASURES} == {0.0}
    summary = json.loads((run_dir / "evaluate" / "summary.json").read_text())
    assert summary["n_queries"] == len(judged)
    assert summary["missing"]["queries_without_any"] == len(without_any)
    assert summary["missing"]["queries"] == len(lost) == len(without_any) + 1
    beside = summary["without_missing"]
    assert beside["n_queries"] == len(judged) - len(without_any)
    assert beside["measures"]["R@10"]["mean"] > summary["measures"]["R@10"]["mean"]


def test_missing_documents_are_diagnosed_also_where_the_query_finds_another_one(
    run_dir: Path, holes: Path
) -> None:
    expected = {
        (query_id, doc_id)
        for split in ("dev", "train")
        for query_id, documents in absent(run_dir, holes, split).items()
        for doc_id in documents
    }
    failures = lines(run_dir / "diagnose" / "failures.jsonl")
    named = {
        (line["query_id"], line["doc_id"])
        for line in failures
        if line["cause"] == "missing_document"
    }
    assert named == expected
    summary = json.loads((run_dir / "diagnose" / "summary.json").read_text())
    assert summary["causes"]["missing_document"] == len(expected)
    assert next(iter(summary["causes"])) == "missing_document"
    assert summary["steps"][-1]["failing_queries_left"] == 0
    failing = {line["query_id"] for line in failures if line["query_fails"]}
    assert summary["n_failing_queries"] == len(failing)


def test_no_model_trains_on_a_missing_document_and_check_warns(run_dir: Path, holes: Path) -> None:
    lost = {d for documents in absent(run_dir, holes, "train").values() for d in documents}
    assert lost
    examples = lines(run_dir / "mine" / "examples.jsonl")
    assert examples
    used = {d for line in examples for d in (line["positive"], *line["negatives"])}
    assert not used & lost
    dropped = json.loads((run_dir / "mine" / "summary.json").read_text())["dropped"]
    assert dropped["positive not in the corpus"] > 0
    findings = json.loads((run_dir / "check" / "findings.json").read_text())["findings"]
    codes = {finding["code"]: finding for finding in findings}
    assert codes["missing_documents"]["next"]
    assert codes["queries_without_findable"]["count"] > 0


def test_the_decision_counts_unanswerable_test_queries(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    query_id, doc_id, _ = _rows(folder / "qrels" / "test.tsv")[0].split("\t")
    judgments = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8")
    replaced = judgments.replace(f"{query_id}\t{doc_id}\t", f"{query_id}\t{GONE}\t")
    (folder / "qrels" / "test.tsv").write_text(replaced, encoding="utf-8")
    settings: Any = {"evaluate": {"resamples": 1000, "baselines": ["bm25"]}}
    record = nearer.decide(nearer.load(folder, model=str(tiny_model), **settings), None).record
    assert record["n_queries"] == len(
        {row.split("\t")[0] for row in _rows(folder / "qrels" / "test.tsv")}
    )
    assert record["missing"] == {"documents": 1, "queries": 1, "queries_without_any": 1}
