"""What is wrong, where, and what to do: one line of the table for each way data can be bad."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from nearer.config import Columns, Data, build
from nearer.data import load
from nearer.data.clicks import read_clicks
from nearer.data.inputs import external_inputs
from nearer.data.pairs import read_training
from nearer.data.trec import read_judgments, read_qrels, read_run, write_run
from nearer.errors import DataError, NearerError
from nearer.types import Run

LINE = '{{"_id": "d{}", "text": "t"}}\n'
GOOD = LINE.format(1)
LONG = "".join(LINE.format(i) for i in range(1, 40_017))


def corpus(folder: Path, name: str, **settings: Any) -> None:
    load.load_corpus(Data(corpus=name, **settings), folder)


CORPORA: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "malformed line 40,017": (
        "c.jsonl",
        LONG + '{"_id": \n',
        ("c.jsonl:40017", "not valid JSON", "mend that line"),
    ),
    "a list in a line": ("c.jsonl", GOOD + "[1]\n", ("c.jsonl:2", "object is needed, not list")),
    "malformed json list": ("c.json", "[\n{},\n{]\n", ("c.json:3", "not valid JSON")),
    "not UTF-8": (
        "c.jsonl",
        GOOD.encode() + b'{"_id": "x", "text": "caf\xe9"}\n',
        ("c.jsonl:2", "byte 26", "0xe9", "iconv"),
    ),
    "duplicate ids": (
        "c.jsonl",
        GOOD + LINE.format(2) + GOOD,
        ("c.jsonl:3", "'d1' stands on lines 1 and 3"),
    ),
    "wrong text column": (
        "c.csv",
        "id,words\n1,x\n",
        ("c.csv:2", "no column 'text'", "id, words", "data.columns.text"),
    ),
    "wrong id column": (
        "c.jsonl",
        '{"key": 1, "text": "x"}\n',
        ("c.jsonl:1", "no column '_id'", "key, text", "data.columns.id"),
    ),
    "two id columns": (
        "c.jsonl",
        '{"id": 1, "doc_id": 2, "text": "x"}\n',
        ("c.jsonl:1", "id and doc_id could both be the id"),
    ),
    "an empty id": ("c.jsonl", '{"_id": " ", "text": "x"}\n', ("c.jsonl:1", "id is empty")),
    "an id that is a fraction": (
        "c.jsonl",
        '{"_id": 1.5, "text": "x"}\n',
        ("c.jsonl:1", "1.5; text or a whole number"),
    ),
    "text that is a number": (
        "c.jsonl",
        '{"_id": 1, "text": 5}\n',
        ("c.jsonl:1", "'text' is int, not text"),
    ),
    "an empty corpus": ("c.jsonl", "", ("c.jsonl", "holds no documents", "data.corpus")),
    "an empty packed corpus": (
        "c.jsonl.gz",
        gzip.compress(b""),
        ("c.jsonl.gz", "holds no documents"),
    ),
    "a cut-off packed file": (
        "c.jsonl.gz",
        gzip.compress(LONG.encode())[:-5000],
        ("c.jsonl.gz:", "cannot be read"),
    ),
    "not packed at all": ("c.jsonl.gz", GOOD, ("c.jsonl.gz:1", "cannot be read")),
    "a cell too many": (
        "c.csv",
        "id,text\n1,x\n2,y,z\n",
        ("c.csv:3", "3 cells", "2 columns: id, text"),
    ),
    "an open quote": ("c.csv", 'id,text\n1,"x\n2,y\n', ("c.csv:2", "not valid CSV")),
    "a column twice": ("c.csv", "id,text,text\n1,x,y\n", ("c.csv:1", "'text' appears twice")),
    "no parquet": ("c.parquet", b"PAR1 nonsense", ("c.parquet", "not a readable parquet file")),
    "an unknown format": ("c.docx", "x", ("c.docx", ".docx is not known", ".jsonl")),
}


@pytest.mark.parametrize("case", CORPORA)
def test_a_bad_corpus_is_named_with_file_and_line(tmp_path: Path, case: str) -> None:
    name, content, expected = CORPORA[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        corpus(tmp_path, name)
    message = str(caught.value)
    assert all(part in message for part in expected), message
    assert "→" in message
    assert [path.name for path in tmp_path.iterdir()] == [name]


QRELS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a grade that is NaN": (
        "q.tsv",
        "query-id\tcorpus-id\tscore\na\tb\t1\na\tc\tnan\n",
        ("q.tsv:3", "'nan' is not a whole number"),
    ),
    "a grade that is a fraction": (
        "q.qrels",
        "a 0 b 1\na 0 c 0.5\n",
        ("q.qrels:2", "'0.5' is not a whole number"),
    ),
    "a missing grade": (
        "q.csv",
        "query-id,corpus-id,weight\na,b,1\n",
        ("q.csv:2", "no column 'score'", "data.columns.score"),
    ),
    "wrong columns": (
        "q.tsv",
        "user\titem\tscore\na\tb\t1\n",
        ("q.tsv:2", "no column 'query-id'", "user, item, score"),
    ),
    "too few columns": (
        "q.qrels",
        "a 0 b 1\na b\n",
        ("q.qrels:2", "2 columns, where the first line has 4"),
    ),
    "two grades for a pair": ("q.qrels", "a 0 b 1\na 0 b 2\n", ("q.qrels:2", "graded 1 and 2")),
    "no judgments": ("q.tsv", "query-id\tcorpus-id\tscore\n", ("q.tsv", "holds no judgments")),
}


@pytest.mark.parametrize("case", QRELS)
def test_bad_judgments_are_named_with_file_and_line(tmp_path: Path, case: str) -> None:
    name, content, expected = QRELS[case]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_qrels(tmp_path / name)
    assert all(part in str(caught.value) for part in expected), str(caught.value)


RUNS = {
    "NaN": ("q Q0 d 1 0.5 t\nq Q0 e 2 nan t\n", ("r.trec:2", "'nan' is not a finite number")),
    "infinity": ("q Q0 d 1 inf t\n", ("r.trec:1", "'inf'")),
    "too large for float32": ("q Q0 d 1 1e300 t\n", ("r.trec:1", "'1e300'")),
    "a word": ("q Q0 d 1 high t\n", ("r.trec:1", "'high'")),
    "a document twice": (
        "q Q0 d 1 2 t\nq Q0 d 2 1 t\n",
        ("r.trec:2", "ranks document 'd' twice", "chunks"),
    ),
    "five columns": ("q Q0 d 1 2\n", ("r.trec:1", "6 columns", "this line 5")),
    "nothing": ("", ("r.trec", "no results")),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_bad_run_is_named_with_file_and_line(tmp_path: Path, case: str) -> None:
    content, expected = RUNS[case]
    (tmp_path / "r.trec").write_text(content)
    with pytest.raises(DataError) as caught:
        read_run(tmp_path / "r.trec")
    assert all(part in str(caught.value) for part in expected), str(caught.value)


@pytest.mark.parametrize("hit", [("d", float("nan")), ("d\te", 1.0), ("d\n", 1.0)])
def test_a_run_that_the_format_cannot_hold_leaves_no_file(
    tmp_path: Path, hit: tuple[str, float]
) -> None:
    with pytest.raises(DataError):
        write_run(tmp_path / "r.trec", Run("r", {"q": [("ok", 2.0), hit]}))
    assert list(tmp_path.iterdir()) == []


TRAINING = {
    "no positive": (
        '{"query": "x", "other": "y"}\n',
        ("t.jsonl:1", "no positive column", "query, other"),
    ),
    "two queries": (
        '{"query": "x", "anchor": "y", "positive": "z"}\n',
        ("t.jsonl:1", "query and anchor could both be the query"),
    ),
    "triplets with scores": (
        '{"query": "x", "positive": "z", "negative": "n", "score": 1}\n',
        ("t.jsonl:1", "triplets or scored pairs"),
    ),
    "a score that is a word": (
        '{"query": "x", "positive": "z", "score": "good"}\n',
        ("t.jsonl:1", "'good' is not a finite number"),
    ),
    "a NaN score": (
        '{"query": "x", "positive": "z", "score": NaN}\n',
        ("t.jsonl:1", "not a finite number"),
    ),
    "an empty positive": (
        '{"query": "x", "positive": "z"}\n{"query": "x", "positive": " "}\n',
        ("t.jsonl:2", "positive is empty"),
    ),
    "nothing": ("", ("t.jsonl", "no training examples")),
}


@pytest.mark.parametrize("case", TRAINING)
def test_a_bad_training_file_is_named_with_file_and_line(tmp_path: Path, case: str) -> None:
    content, expected = TRAINING[case]
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        read_training(tmp_path / "t.jsonl")
    assert all(part in str(caught.value) for part in expected), str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"query": "x"}', "a line needs `results`"),
        ('{"results": []}', "a line needs `query`"),
        ('{"query": "x", "results": [{"id": "a", "rank": 0}]}', "the rank 0"),
        ('{"query": "x", "results": ["a"], "clicks": "a"}', "`clicks` must be a list"),
        ('{"query": "x", "results": ["a"], "clicks": []}', "no judgment can be drawn"),
    ],
)
def test_a_bad_click_log_is_named(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "c.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=expected):
        read_clicks(tmp_path / "c.jsonl")


MISSING: dict[str, dict[str, Any]] = {
    "data.folder": {"data": {"folder": "gone"}},
    "data.corpus": {"data": {"corpus": "gone.jsonl"}},
    "data.queries": {"data": {"corpus": "c.jsonl", "queries": "gone.jsonl"}},
    "data.judgments": {
        "data": {"corpus": "c.jsonl", "queries": "c.jsonl", "judgments": "gone.tsv"}
    },
    "data.judgments.dev": {
        "data": {"corpus": "c.jsonl", "queries": "c.jsonl", "judgments": {"dev": "gone.tsv"}}
    },
    "data.clicks": {"data": {"corpus": "c.jsonl", "clicks": "gone.jsonl"}},
    "data.training": {"data": {"corpus": "c.jsonl", "clicks": "c.jsonl", "training": "gone.jsonl"}},
}


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_file_is_named_with_its_key(tmp_path: Path, key: str) -> None:
    (tmp_path / "c.jsonl").write_text(GOOD)
    with pytest.raises(DataError, match=f"{key} names a file that is not there") as caught:
        external_inputs("data", build(MISSING[key]), tmp_path)
    assert "gone" in str(caught.value)


def test_data_that_is_not_named_at_all_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no corpus is named") as caught:
        load.load_corpus(Data(), tmp_path)
    assert "data.folder or data.corpus" in str(caught.value)
    with pytest.raises(DataError, match=r"no corpus.jsonl .* here: it is empty"):
        load.load_corpus(Data(folder="."), tmp_path)
    (tmp_path / "corpus.jsonl").write_text(GOOD)
    (tmp_path / "corpus.csv").write_text("id,text\n")
    with pytest.raises(DataError, match="which one counts"):
        load.load_corpus(Data(folder="."), tmp_path)
    (tmp_path / "corpus.csv").unlink()
    with pytest.raises(DataError, match="no judgments"):
        load.load(Data(folder="."), tmp_path)


def test_a_named_column_that_is_not_there_is_never_replaced_by_an_alias(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(GOOD)
    with pytest.raises(DataError, match="no column 'sku'"):
        corpus(tmp_path, "c.jsonl", columns=Columns(id="sku"))


def test_an_unknown_split_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("query-id,corpus-id,score,split\na,b,1,holdout\n")
    with pytest.raises(NearerError, match="'holdout' is no split"):
        read_judgments(tmp_path / "q.csv", Columns(split="split"))
