"""Judgments as tools and people write them: one reader, and the right value for each."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nearer.config import Columns
from nearer.data import fields, trec
from nearer.data.records import Row
from nearer.data.trec import read_judgments, read_qrels, read_run, write_run
from nearer.errors import DataError
from nearer.measure.metrics import score
from nearer.review import exchange
from nearer.types import MAX_GRADE, Query, Run, Split

HEADER = "query-id\tcorpus-id\tscore\n"
NBSP = "\u00a0"

READ: dict[str, tuple[str, str, dict[str, dict[str, int]]]] = {
    "an id with a blank between tabs": (
        "q.tsv",
        "q3\tmanual 3\t1\nq 4\tmanual 4\t0\n",
        {"q3": {"manual 3": 1}, "q 4": {"manual 4": 0}},
    ),
    "TREC's four columns between tabs, an id with a blank": (
        "q.qrels",
        "q3\t0\tmanual 3\t1\n",
        {"q3": {"manual 3": 1}},
    ),
    "an id with a blank below a header": (
        "q.tsv",
        HEADER + "q3\tmanual 3\t1\n",
        {"q3": {"manual 3": 1}},
    ),
    "a non-breaking blank in an id, between blanks": (
        "q.qrels",
        f"q3 0 manual{NBSP}3 1\n",
        {"q3": {f"manual{NBSP}3": 1}},
    ),
    "a non-breaking blank in an id, between tabs": (
        "q.tsv",
        f"q3\tmanual{NBSP}3\t1\n",
        {"q3": {f"manual{NBSP}3": 1}},
    ),
    "columns between several blanks": ("q.txt", "  q1   0   d1\t 2 \n", {"q1": {"d1": 2}}),
    "an empty second column": ("q.tsv", "q1\t\td1\t2\n", {"q1": {"d1": 2}}),
    "a tab at the end of lines": ("q.tsv", "q1\td1\t2\t\nq2\td1\t1\n", {"q1": {"d1": 2}, "q2": {"d1": 1}}),
    "a line between blanks among lines between tabs": (
        "q.tsv",
        "q1\td1\t2\nq2 d1 1\n",
        {"q1": {"d1": 2}, "q2": {"d1": 1}},
    ),
    "a comment first": ("q.tsv", "# comment here\nq1 0 d1 1\n", {"q1": {"d1": 1}}),
    "comments of as many words as columns": (
        "q.qrels",
        "# comment here now\n# of judgments: 1\nq1 0 d1 1\n# the 2\nq2 0 d1 1\n",
        {"q1": {"d1": 1}, "q2": {"d1": 1}},
    ),
    "a comment before a header": ("q.tsv", f"# made by hand\n\n{HEADER}q1\td1\t1\n", {"q1": {"d1": 1}}),
    "comments in a CSV": (
        "q.csv",
        "# made by X, 2024\nquery-id,corpus-id,score\nq1,d1,1\n# the rest\nq2,d1,1\n",
        {"q1": {"d1": 1}, "q2": {"d1": 1}},
    ),
    "comments below a header": (
        "q.tsv",
        f"{HEADER}# two words\nq1\td1\t1\n#\n",
        {"q1": {"d1": 1}},
    ),
    "an id that begins like a comment": (
        "q.tsv",
        "#python\td1\t1\n#java\td2\t1\n",
        {"#python": {"d1": 1}, "#java": {"d2": 1}},
    ),
    "blank lines first": ("q.tsv", "\n  \nq1\td1\t1\n\n", {"q1": {"d1": 1}}),
    "blank lines before a header": ("q.tsv", f"\n \n{HEADER}q1\td1\t1\n", {"q1": {"d1": 1}}),
    "line ends of Windows": ("q.qrels", "# c\r\nq1 0 d1 1\r\n\r\n", {"q1": {"d1": 1}}),
    "line ends of Windows between tabs": ("q.tsv", "q1\td 1\t1\r\n", {"q1": {"d 1": 1}}),
    "line ends of Windows in a CSV": ("q.csv", "qid,docid,rel\r\nq1,d1,1\r\n", {"q1": {"d1": 1}}),
    "a byte order mark before a comment": ("q.tsv", "\ufeff# c\nq1 0 d1 1\n", {"q1": {"d1": 1}}),
    "a byte order mark before a header": ("q.tsv", f"\ufeff{HEADER}q1\td1\t1\n", {"q1": {"d1": 1}}),
    "a header between blanks": ("q.txt", "query-id corpus-id score\nq1 d1 1\n", {"q1": {"d1": 1}}),
    "a header between blanks in a .tsv": ("q.tsv", "qid docid rel\nq1 d1 1\n", {"q1": {"d1": 1}}),
    "a header between tabs in a .qrels": ("q.qrels", HEADER + "q1\td1\t1\n", {"q1": {"d1": 1}}),
    "a header in another order": ("q.tsv", "score\tcorpus-id\tquery-id\n1\td1\tq1\n", {"q1": {"d1": 1}}),
    "a CSV without a header": ("q.csv", "q1,d1,1\nq2,d1,0\n", {"q1": {"d1": 1}, "q2": {"d1": 0}}),
    "TREC's columns in a CSV": ("q.csv", "q1,0,d1,1\n", {"q1": {"d1": 1}}),
    "an id that is called like a column": ("q.qrels", "query 0 doc_id 1\n", {"query": {"doc_id": 1}}),
    "quoted ids in a CSV": ("q.csv", 'query-id,corpus-id,score\n"q,1","d ""1""","1"\n', {"q,1": {'d "1"': 1}}),
    "quotes around all cells of a TSV": (
        "q.tsv",
        '"query-id"\t"corpus-id"\t"score"\n"q1"\t"d ""1"""\t"1"\n',
        {"q1": {'d "1"': 1}},
    ),
    "quotes around all cells of a TSV without a header": (
        "q.tsv",
        '"q1"\t"d1"\t"1"\n',
        {"q1": {"d1": 1}},
    ),
    "quotes that belong to the ids of a TSV": ("q.tsv", HEADER + '"q1"\t"d1\t1\n', {'"q1"': {'"d1': 1}}),
    "the same judgment twice": ("q.tsv", "q1\td1\t1\nq1\td1\t1.0\n", {"q1": {"d1": 1}}),
    "grades of many kinds": (
        "q.qrels",
        "q 0 a 1.0\nq 0 b -1\nq 0 c -2\nq 0 d 0\nq 0 e 1e2\nq 0 f +3\nq 0 g 1000\n",
        {"q": {"a": 1, "b": 0, "c": 0, "d": 0, "e": 100, "f": 3, "g": 1000}},
    ),
    "grades that are true or false": (
        "q.csv",
        "query-id,corpus-id,score\nq,a,True\nq,b,false\n",
        {"q": {"a": 1, "b": 0}},
    ),
    "grades of JSON": (
        "q.jsonl",
        "".join(
            json.dumps({"query_id": 1, "doc_id": doc_id, "score": grade}) + "\n"
            for doc_id, grade in {"a": 2, "b": 2.0, "c": "2", "d": True, "e": False}.items()
        ),
        {"1": {"a": 2, "b": 2, "c": 2, "d": 1, "e": 0}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_judgments_are_read_as_they_are_meant(tmp_path: Path, case: str) -> None:
    name, text, expected = READ[case]
    (tmp_path / name).write_bytes(text.encode())
    assert read_qrels(tmp_path / name) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("packing", ["", ".gz", ".bz2", ".xz"])
def test_judgments_are_read_in_any_encoding_and_packing(
    tmp_path: Path, encoding: str, packing: str
) -> None:
    pack: Any = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    path = tmp_path / f"q.tsv{packing}"
    path.write_bytes(pack[packing]("# über\nq1\td é\t1\nq2\td é\t2\n".encode(encoding)))
    assert read_qrels(path) == {"q1": {"d é": 1}, "q2": {"d é": 2}}


REFUSED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a time in the grade's place": (
        "q.tsv",
        HEADER + "q\td\t1\nq\te\t1732500000\n",
        ("q.tsv:3", "'1732500000' is too large to be one", "1,000", "data.columns.score"),
    ),
    "a grade just too large": ("q.qrels", "q 0 d 1001\n", ("q.qrels:1", "'1001' is too large")),
    "2**31": ("q.csv", "qid,docid,rel\nq,d,2147483648\n", ("q.csv:2", "too large")),
    "more than a float": ("q.jsonl", '{"qid": "q", "docid": "d", "rel": ' + "9" * 400 + "}\n", ("q.jsonl:1", "too large")),
    "infinity": ("q.qrels", "q 0 d inf\n", ("q.qrels:1", "'inf' is too large")),
    "a very negative number": ("q.qrels", "q 0 d -1732500000\n", ("q.qrels:1", "too large")),
    "NaN": ("q.jsonl", '{"qid": "q", "docid": "d", "rel": NaN}\n', ("q.jsonl:1", "nan is not a whole")),
    "null": ("q.jsonl", '{"qid": "q", "docid": "d", "rel": null}\n', ("q.jsonl:1", "None is not a whole")),
    "an empty grade": ("q.csv", "qid,docid,rel\nq,d,\n", ("q.csv:2", "'' is not a whole number")),
    "a fraction": ("q.csv", "qid,docid,rel\nq,d,0.99\n", ("q.csv:2", "'0.99' is not a whole number")),
    "a list": ("q.jsonl", '{"qid": "q", "docid": "d", "rel": [1]}\n', ("q.jsonl:1", "[1] is not a whole")),
    "two grades for a pair": ("q.tsv", "q\td\t1\nq\td\t2\n", ("q.tsv:2", "graded 1 and 2")),
    "blanks in ids between blanks": (
        "q.qrels",
        "q 0 d 1\nq 0 my d 1\n",
        ("q.qrels:2", "5 columns, where the first line has 4", "separate the columns by tabs"),
    ),
    "an empty id": ("q.tsv", "\td\t1\n", ("q.tsv:1", "the query id is empty")),
    "comments alone": ("q.qrels", "# a\n# b\n", ("q.qrels", "holds no judgments")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_judgment_is_refused_by_file_and_line(tmp_path: Path, case: str) -> None:
    name, text, expected = REFUSED[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_qrels(tmp_path / name)
    assert all(part in str(caught.value) for part in expected), str(caught.value)


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    "grades", [[2, 0], [2.0, 0.0], ["2", "0"], ["2.0", "-1"]], ids=["int", "float", "text", "mixed"]
)
def test_ids_and_grades_of_parquet_are_read_whatever_their_type(
    tmp_path: Path, grades: list[Any]
) -> None:
    columns = {"query-id": [1.0, 2.0], "corpus-id": [10, 20], "score": grades}
    write_parquet(tmp_path / "q.parquet", columns)
    assert read_qrels(tmp_path / "q.parquet") == {"1": {"10": 2}, "2": {"20": 0}}


def test_a_missing_id_in_parquet_is_refused(tmp_path: Path) -> None:
    columns = {"query-id": [1.0, None], "corpus-id": ["a", "b"], "score": [1, 1]}
    write_parquet(tmp_path / "q.parquet", columns)
    with pytest.raises(DataError, match=r"q\.parquet:2: the query id is None"):
        read_qrels(tmp_path / "q.parquet")


def test_an_id_with_decimals_in_a_csv_stays_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("query-id,corpus-id,score\n1,1.0,1\n01,1,1\n")
    assert read_qrels(tmp_path / "q.csv") == {"1": {"1.0": 1}, "01": {"1": 1}}


def test_named_columns_and_splits_are_found_in_every_table(tmp_path: Path) -> None:
    columns = Columns(query_id="ask", doc_id="sku", score="gain", split="part")
    for name, separator in (("q.csv", ","), ("q.tsv", "\t"), ("q.txt", " ")):
        rows = ["ask sku gain part", "q1 d1 2 train", "q2 d1 1 test"]
        text = "".join(row.replace(" ", separator) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        assert read_judgments(tmp_path / name, columns) == {
            "train": {"q1": {"d1": 2}},
            "test": {"q2": {"d1": 1}},
        }


@pytest.mark.parametrize("blank", [" ", NBSP, "  "])
def test_a_run_keeps_blanks_in_ids(tmp_path: Path, blank: str) -> None:
    run = Run("r", {f"q{blank}1": [(f"d{blank}1", 2.0), ("d", 1.0)], "q": [("d", 0.5)]})
    write_run(tmp_path / "r.trec", run)
    assert read_run(tmp_path / "r.trec").results == run.results


def test_a_run_without_blanks_in_ids_is_written_as_trec_eval_reads_it(tmp_path: Path) -> None:
    write_run(tmp_path / "r.trec", Run("r", {"q": [("d", 0.5)]}))
    assert (tmp_path / "r.trec").read_text() == "q Q0 d 1 0.5 r\n"


def test_grades_made_in_python_cannot_fill_memory_either() -> None:
    run = Run("r", {"q": [("d", 1.0)]})
    split = Split("dev", (Query("q", "x"),), {"q": {"d": MAX_GRADE + 1}})
    with pytest.raises(DataError, match="too large to be one"):
        score(run, split, ["nDCG@10"])
    split = Split("dev", (Query("q", "x"),), {"q": {"d": MAX_GRADE}})
    assert score(run, split, ["nDCG@10"]).mean("nDCG@10") == 1.0


def test_an_import_of_qrels_reads_its_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    reads: list[Path] = []
    rows_of = trec.judgment_rows

    def counted(source: Path, columns: Columns = fields.DEFAULT) -> Iterator[Row]:
        reads.append(source)
        return rows_of(source, columns)

    monkeypatch.setattr(trec, "judgment_rows", counted)
    known = exchange.Known("project", query=lambda _: True, document=lambda _: True)
    entries = exchange.read(path, "qrels", known, "anna")
    assert [(entry.doc_id, entry.grade) for entry in entries] == [("d1", 2), ("d2", 0)]
    assert reads == [path]
