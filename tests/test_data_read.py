"""Formats in, the same values out."""

from __future__ import annotations

import bz2
import csv
import gc
import gzip
import io
import json
import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.config import Columns, Data, build
from nearer.data import inspect, load
from nearer.data.clicks import read_clicks
from nearer.data.corpus import Corpus
from nearer.data.fields import read_queries
from nearer.data.inputs import external_inputs
from nearer.data.pairs import read_training
from nearer.data.trec import read_qrels, read_run, write_run
from nearer.errors import DataError
from nearer.types import Document, Run

ROWS: list[dict[str, Any]] = [
    {"_id": "a", "title": "Éclair", "text": "a pastry, with cream\nand more", "kind": "food"},
    {"_id": "b", "title": "", "text": 'says "hello"', "kind": "talk"},
    {"_id": "7", "title": "Seven", "text": "a number", "kind": None},
]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


@pytest.mark.parametrize("packing", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "parquet"])
def test_every_format_and_packing_gives_the_same_documents(
    tmp_path: Path, kind: str, packing: str
) -> None:
    data = {
        "json": json.dumps(ROWS).encode(),
        "csv": table(ROWS, ","),
        "parquet": parquet(ROWS),
    }.get(kind, jsonl(ROWS))
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[packing]
    path = tmp_path / f"corpus.{kind}{packing}"
    path.write_bytes(pack(data))
    corpus = Corpus.open(path)
    assert corpus.ids == ["a", "b", "7"]
    assert [one.text for one in corpus] == [row["text"] for row in ROWS]
    assert corpus[0].title == "Éclair"
    assert corpus[0].metadata == {"kind": "food"}
    assert list(corpus.contents([2, 0])) == [
        "Seven a number",
        "Éclair a pastry, with cream\nand more",
    ]


def test_a_datasets_folder_is_read(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "corpus"))
    corpus = load.load_corpus(Data(corpus="corpus"), tmp_path)
    assert [one.id for one in corpus] == ["a", "b", "7"]
    assert corpus[1].text == 'says "hello"'


def test_a_corpus_answers_by_id_and_position(tmp_path: Path) -> None:
    corpus = Corpus.from_documents(
        Document(str(i), f"text {i}", metadata={"_id": "trap", "n": i}) for i in range(50)
    )
    assert len(corpus) == 50
    assert corpus.position("31") == 31
    assert corpus[-1].id == "49"
    assert "31" in corpus
    assert "50" not in corpus
    assert corpus.get("50") is None
    assert corpus[5].metadata["n"] == 5
    with pytest.raises(KeyError):
        corpus.position("50")
    with pytest.raises(IndexError):
        corpus[50]


def test_threads_read_one_corpus_at_once() -> None:
    corpus = Corpus.from_documents(
        Document(str(i), f"text {i} " + "x" * (i % 97)) for i in range(500)
    )
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda i: corpus[i % 500].text, range(4000)))
    assert texts == [f"text {i % 500} " + "x" * (i % 500 % 97) for i in range(4000)]


def test_a_corpus_gives_its_file_back_when_it_goes() -> None:
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the folder of open files
    for _ in range(5):
        corpus = Corpus.from_documents([Document("a", "b")])
        del corpus
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_file_that_changed_under_a_corpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(jsonl(ROWS))
    corpus = Corpus.open(path)
    path.write_bytes(b"x" * 500)
    with pytest.raises(DataError, match="changed while it was read"):
        corpus[1]


def test_integer_ids_and_a_byte_order_mark_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 5, "text": "five"}\n\n{"doc_id": 6, "text": "six"}\n')
    corpus = Corpus.open(path)
    assert [(one.id, one.text) for one in corpus] == [("5", "five"), ("6", "six")]


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "a", "text": "x \\ud800 y"}\n')
    assert Corpus.open(path)[0].text == "x ? y"


def test_named_columns_are_used(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("sku,name,body,price\nA1,Lamp,bright,9\n")
    data = Data(corpus="items.csv", columns=Columns(id="sku", title="name", text="body"))
    one = load.load_corpus(data, tmp_path)[0]
    assert (one.id, one.content, one.metadata) == ("A1", "Lamp bright", {"price": "9"})


def test_queries_keep_filter_tags_spans_and_fields(tmp_path: Path) -> None:
    line = {
        "_id": 1,
        "text": "q",
        "filter": {"lang": "en"},
        "tags": ["hard"],
        "gold_spans": [{"doc_id": "a", "start": 0, "end": 3}],
        "year": 2,
    }
    (tmp_path / "queries.jsonl").write_bytes(jsonl([line]))
    (query,) = read_queries(tmp_path / "queries.jsonl").values()
    assert (query.id, query.filter, query.tags, query.metadata) == (
        "1",
        {"lang": "en"},
        ("hard",),
        {"year": 2},
    )
    assert query.gold_spans == ({"doc_id": "a", "start": 0, "end": 3},)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n"),
        ("q.tsv", "q1\td1\t2\nq1\td2\t0\n"),
        ("q.qrels", "q1 0 d1 2\nq1 0 d2 -1\n"),
        ("q.txt", "q1 Q0 d1 2\nq1 Q0 d2 0\n"),
        ("q.csv", "qid,docid,relevance\nq1,d1,2.0\nq1,d2,0\n"),
        (
            "q.jsonl",
            '{"query_id": "q1", "doc_id": "d1", "grade": 2}\n{"query_id": "q1", "doc_id": "d2", "grade": 0}\n',
        ),
    ],
)
def test_judgments_of_every_shape_are_alike(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_qrels(tmp_path / name) == {"q1": {"d1": 2, "d2": 0}}


def test_judgments_without_grades_are_positives(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("query_id,doc_id\nq1,d1\n")
    assert read_qrels(tmp_path / "q.csv") == {"q1": {"d1": 1}}


def test_splits_come_from_files_or_from_a_column(tmp_path: Path) -> None:
    folder = tmp_path / "beir" / "qrels"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (folder / "validation.tsv.gz").write_bytes(
        gzip.compress(b"query-id\tcorpus-id\tscore\nq2\td1\t1\n")
    )
    (folder.parent / "corpus.jsonl").write_bytes(jsonl(ROWS))
    (folder.parent / "queries.csv").write_text("id,text,part\nq1,x,train\nq2,y,dev\n")
    expected = {"train": {"q1": {"d1": 1}}, "dev": {"q2": {"d1": 1}}}
    assert load.load(Data(folder="beir"), tmp_path).judgments == expected
    (tmp_path / "all.csv").write_text("query-id,corpus-id,score,part\nq1,d1,1,train\nq2,d1,1,val\n")
    by_column = Data(folder="beir", judgments="all.csv", columns=Columns(split="part"))
    assert load.load(by_column, tmp_path).judgments == expected
    one_file = by_column.model_copy(update={"judgments": {"train": "all.csv"}})
    assert load.load(one_file, tmp_path).judgments["train"].keys() == {"q1", "q2"}
    (tmp_path / "plain.tsv").write_text("q1\td1\t1\nq2\td1\t1\n")
    assert (
        load.load(by_column.model_copy(update={"judgments": "plain.tsv"}), tmp_path).judgments
        == expected
    )


def test_a_run_keeps_its_float32_scores_through_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate(
        [rng.normal(size=500), rng.normal(size=500) * 1e-20, [0.1, 0.1, 1 / 3, 1e30]]
    ).astype(np.float32)
    run = Run("my run", {"q": [(f"d{i}", float(score)) for i, score in enumerate(scores)]})
    write_run(tmp_path / "run.trec", run)
    back = read_run(tmp_path / "run.trec")
    assert back.name == "my_run"
    assert dict(back.results["q"]) == dict(run.results["q"])
    assert [line.split()[3] for line in (tmp_path / "run.trec").read_text().splitlines()[:3]] == [
        "1",
        "2",
        "3",
    ]
    assert back.results["q"] == sorted(
        back.results["q"], key=lambda hit: (hit[1], hit[0]), reverse=True
    )


def click(query: str, results: list[str], clicks: list[str], session: str) -> dict[str, Any]:
    return {
        "time": "2026-01-01T00:00:00",
        "query": query,
        "session": session,
        "results": [{"id": d} for d in results],
        "clicks": clicks,
    }


def test_clicks_below_a_skipped_result_in_two_sessions_become_judgments(tmp_path: Path) -> None:
    log = [
        click("Red shoes", ["a", "b"], ["b"], "s1"),
        click("red  shoes!", ["a", "b"], ["b"], "s2"),
        click("once", ["a", "c"], ["c"], "s3"),
        click("same", ["a", "c"], ["c"], "s4"),
        click("same", ["a", "c"], ["c"], "s4"),
    ]
    (tmp_path / "clicks.jsonl").write_bytes(jsonl(log))
    found = read_clicks(tmp_path / "clicks.jsonl")
    (query_id,) = found.judgments
    assert found.judgments[query_id] == {"b": 1}
    assert (found.queries[query_id].text, found.queries[query_id].metadata) == (
        "Red shoes",
        {"time": "2026-01-01T00:00:00"},
    )
    assert found.dropped == {
        "documents clicked in one session only": 2,
        "queries without a judgment": 2,
    }
    (tmp_path / "corpus.jsonl").write_bytes(jsonl(ROWS))
    loaded = load.load(Data(corpus="corpus.jsonl", clicks="clicks.jsonl"), tmp_path)
    assert loaded.judgments == {"all": found.judgments}
    assert (loaded.queries, loaded.dropped) == (found.queries, found.dropped)


def test_clicks_that_their_position_explains_are_dropped(tmp_path: Path) -> None:
    top = [click(f"q{i // 2}", ["a", "b"], ["a"], f"s{i}") for i in range(10)]
    (tmp_path / "clicks.jsonl").write_bytes(jsonl(top))
    with pytest.raises(DataError, match="5 documents clicked no more than their position explains"):
        read_clicks(tmp_path / "clicks.jsonl")


def test_feedback_of_the_traffic_log_counts_as_clicks(tmp_path: Path) -> None:
    lines = [
        {
            "time": 1,
            "request_id": f"r{i}",
            "query": "x",
            "results": [{"id": "a", "rank": 1}, {"id": "b", "rank": 2}],
            "feedback": given,
        }
        for i, given in enumerate(
            [
                [{"id": "b", "type": "click"}],
                [{"id": "b", "type": "click"}, {"id": "a", "type": "not_relevant"}],
            ]
        )
    ]
    (tmp_path / "traffic.jsonl").write_bytes(jsonl(lines))
    assert list(read_clicks(tmp_path / "traffic.jsonl").judgments.values()) == [{"b": 1}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"anchor": "q", "positive": "p"}, ("q", "p", (), None)),
        ({"positive": "p", "question": "q"}, ("q", "p", (), None)),
        (
            {"query": "q", "answer": "p", "negative_1": "n", "negative_2": "m"},
            ("q", "p", ("n", "m"), None),
        ),
        ({"query": "q", "pos": ["p"], "neg": ["n", "m"]}, ("q", "p", ("n", "m"), None)),
        (
            {"sentence1": "q", "sentence2": "p", "score": 4.5, "entailment": "NEUTRAL"},
            ("q", "p", (), 4.5),
        ),
        ({"sentence1": "q", "sentence2": "p", "score": "4.5", "label": "x"}, ("q", "p", (), 4.5)),
    ],
)
def test_training_columns_are_found_by_name(
    tmp_path: Path, row: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(jsonl([row]))
    (one,) = load.load_training(Data(training="pairs.jsonl"), tmp_path)
    assert (one.query, one.positive, one.negatives, one.score) == expected
    assert one.source == ("pairs.jsonl:1",)


def test_swapped_training_columns_are_refused_and_neutral_names_accepted(tmp_path: Path) -> None:
    long, short = "word " * 60, "two words"
    (tmp_path / "swapped.jsonl").write_bytes(jsonl([{"query": long, "positive": short}]))
    (tmp_path / "meant.jsonl").write_bytes(jsonl([{"anchor": long, "positive": short}]))
    with pytest.raises(DataError, match="look swapped"):
        read_training(tmp_path / "swapped.jsonl")
    assert len(read_training(tmp_path / "meant.jsonl")) == 1


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(jsonl(ROWS))
    (folder / "queries.jsonl").write_bytes(jsonl([{"_id": "q1", "text": "cream"}]))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\n")
    return folder


def test_the_inputs_of_stages_are_named(tmp_path: Path) -> None:
    folder = beir(tmp_path / "data")
    (tmp_path / "model").mkdir()
    (tmp_path / "mine.py").write_text("")
    config = build(
        {
            "data": {"folder": "data"},
            "model": {"name": "model"},
            "search": {"system": "function", "function": "mine:search"},
        }
    )
    assert external_inputs("data", config, tmp_path) == {
        "corpus": folder / "corpus.jsonl",
        "queries": folder / "queries.jsonl",
        "judgments.test": folder / "qrels" / "test.tsv",
    }
    assert external_inputs("corpus", config, tmp_path) == {"corpus": folder / "corpus.jsonl"}
    assert external_inputs("training", config, tmp_path) == {}
    assert external_inputs("model", config, tmp_path) == {"model": tmp_path / "model"}
    assert external_inputs("model", build({"model": {"name": "org/name"}}), tmp_path) == {
        "model": "org/name"
    }
    assert external_inputs("system", config, tmp_path) == {"function": tmp_path / "mine.py"}
    assert external_inputs("guard", config, tmp_path) == {"guard": "builtin"}
    own = build({"decide": {"guardrails": {"general": "data"}}})
    assert set(external_inputs("guard", own, tmp_path) or ()) == {
        "corpus",
        "queries",
        "judgments.test",
    }
    assert external_inputs("check/split", config, tmp_path) is None


def test_a_first_look_guesses_columns_and_reports_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(
        "id,title,body,lang\nd1,T,some words,en\nd2,U,more words here,de\n"
    )
    (tmp_path / "q.csv").write_text("qid,question\nq1,what is it\n")
    (tmp_path / "j.csv").write_text("qid,docid,relevance\nq1,d1,1\n")
    data = inspect.guess(
        corpus=tmp_path / "c.csv", queries=tmp_path / "q.csv", judgments=tmp_path / "j.csv"
    )
    assert (data.columns.query_id, data.columns.doc_id, data.columns.score) == (
        "qid",
        "docid",
        "relevance",
    )
    seen = inspect.inspect(data, tmp_path)
    assert seen.facts["documents"] == 2
    assert seen.facts["splits"] == {"all": 1}
    assert seen.facts["metadata"] == ["lang"]
    assert "no split in the data" in "\n".join(seen.lines)
