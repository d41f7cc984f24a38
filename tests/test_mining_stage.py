"""`nearer mine` on whole projects: chunks, odd sizes of data, leakage, and what people are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nearer
from conftest import WriteProject
from nearer.cli import app
from nearer.data.near import normalise
from nearer.files import read_jsonl
from nearer.training.mining.result import NO_HARD_NEGATIVES
from nearer.types import Example

PARTS = ("bread", "volcano", "bicycle", "glacier", "violin", "harbour", "camel", "orchid")
SENTENCE = "The chapter on {0} says that {0} number {1} was found in the {2} near the old town. "


def write_chunked(folder: Path) -> Path:
    """Documents of three parts; the query asks for the last one, and some name it by a gold span."""
    documents, queries, judgments = [], [], []
    for number, part in enumerate(PARTS):
        others = [PARTS[(number + step) % len(PARTS)] for step in (3, 5)]
        names = [*others, part]
        sentences = [SENTENCE.format(name, number, "yard") * 3 for name in names]
        documents.append(
            {"_id": f"d{number}", "title": f"Book {number}", "text": "".join(sentences)}
        )
        answer = f"{part} number {number} was found"
        query = {"_id": f"q{number}", "text": f"where was {part} {number} found"}
        if number % 2:
            query["gold_spans"] = [{"doc_id": f"d{number}", "text": answer}]
        queries.append(query)
        judgments.append(f"q{number}\td{number}\t1\n")
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_text(header + "".join(judgments[:6]))
    (folder / "qrels" / "dev.tsv").write_text(header + judgments[6])
    (folder / "qrels" / "test.tsv").write_text(header + judgments[7])
    return folder


def test_where_chunks_are_searched_examples_are_about_chunks(
    tmp_path: Path, tiny_model: Path
) -> None:
    project = nearer.load(
        write_chunked(tmp_path / "data"),
        model=str(tiny_model),
        search={"chunker": "tokens:40:0+title"},
        mine={"negatives": 2, "margin": 1.0},
    )
    examples = nearer.mine(project).examples
    contents = {document.id: document.content for document in project.corpus}
    by_query: dict[str, list[Example]] = {}
    for example in examples:
        by_query.setdefault(str(example.query_id), []).append(example)
        assert example.positive_passage is not None
        assert all(example.negative_passages)
        assert len(example.negative_passages) == len(example.negatives)
        start, end = example.positive_passage.start, example.positive_passage.end
        assert end - start < len(contents[example.positive]) / 2
    for number in (1, 3, 5):
        (example,) = by_query[f"q{number}"]
        assert example.source[0] == "gold span"
        start, end = example.positive_passage.start, example.positive_passage.end  # type: ignore[union-attr]
        assert f"{PARTS[number]} number {number}" in contents[f"d{number}"][start:end]
        assert example.positive_passage.text.startswith(f"Book {number}")  # type: ignore[union-attr]
    for own in by_query.values():
        assert sum(example.weight for example in own) == pytest.approx(1, abs=1e-4)


def project_with(
    folder: Path, data: Path, tiny_model: Path, pairs: Sequence[tuple[str, str]]
) -> nearer.Project:
    """The small data with other training judgments."""
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/dev.tsv", "qrels/test.tsv"):
        (folder / name).write_bytes((data / name).read_bytes())
    lines = [f"{query_id}\t{doc_id}\t1\n" for query_id, doc_id in pairs]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return nearer.load(folder, model=str(tiny_model))


def training_pairs(data: Path) -> list[tuple[str, str]]:
    rows = (data / "qrels" / "train.tsv").read_text().splitlines()[1:]
    return [(row.split("\t")[0], row.split("\t")[1]) for row in rows]


@pytest.mark.parametrize("count", [1, 40])
def test_few_pairs_are_mined_and_what_was_not_tried_is_said(
    count: int, tmp_path: Path, small_data: Path, tiny_model: Path
) -> None:
    pairs = training_pairs(small_data)[:count]
    mined = nearer.mine(project_with(tmp_path / "data", small_data, tiny_model, pairs))
    summary = mined.summary()
    assert summary["examples"] == count
    assert summary["suspects"] == 0
    assert "fewer than" in summary["noise"]["judged"]["not_tried"]


def test_shuffled_labels_are_told_and_do_not_end_the_run(
    tmp_path: Path, small_data: Path, tiny_model: Path
) -> None:
    pairs = training_pairs(small_data)
    order = np.random.default_rng(3).permutation(len(pairs)).tolist()
    shuffled = [(pairs[row][0], pairs[other][1]) for row, other in enumerate(order)]
    mined = nearer.mine(project_with(tmp_path / "data", small_data, tiny_model, shuffled))
    assert len(mined.examples) == len(set(shuffled))
    share = mined.account.noise["judged"]["share"]
    assert share >= 0.5
    assert any(f"{share:.0%} of the positives" in text for text in mined.account.warnings)


def with_leak(write_project: WriteProject, small_data: Path, folder: Path) -> Path:
    """A project whose training file holds a dev query."""
    query_id = (small_data / "qrels" / "dev.tsv").read_text().splitlines()[1].split("\t")[0]
    texts = {line["_id"]: line["text"] for line in read_jsonl(small_data / "queries.jsonl")}
    path = write_project(
        folder,
        data={"folder": str(small_data), "training": "pairs.jsonl"},
        mine={"negatives": 0},
    )
    leaked = {"query": "short words", "positive": normalise(texts[query_id])}
    clean = {"query": "other words", "positive": "a text of its own"}
    lines = "".join(json.dumps(row) + "\n" for row in (leaked, clean))
    (folder / "pairs.jsonl").write_text(lines)
    return path


def test_strict_refuses_what_is_otherwise_left_out_and_counted(
    tmp_path: Path, write_project: WriteProject, small_data: Path
) -> None:
    path = with_leak(write_project, small_data, tmp_path / "project")
    command = ["-c", str(path)]
    assert CliRunner().invoke(app, ["check", *command]).exit_code == 0
    refused = CliRunner().invoke(app, ["mine", *command, "--strict"])
    assert refused.exit_code == 2
    assert "1 texts of the training data are also dev or test queries" in " ".join(
        refused.output.split()
    )
    mined = CliRunner().invoke(app, ["mine", *command])
    assert mined.exit_code == 0, mined.output
    assert NO_HARD_NEGATIVES in " ".join(mined.output.split())
    folder = path.parent / "runs" / "default" / "mine"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["leakage"] == {"exact": 1}
    assert summary["dropped"]["positive is also a held-out query"] == 1
    assert [text for text in summary["warnings"] if text.startswith(NO_HARD_NEGATIVES)]
    assert (folder / "suspects.jsonl").is_file()


def test_a_window_without_ranks_is_refused(tmp_path: Path, small_data: Path) -> None:
    project = nearer.load(small_data, mine={"first_rank": 31, "candidates": 30})
    with pytest.raises(nearer.NearerError, match=r"mine\.first_rank"):
        nearer.mine(project)
