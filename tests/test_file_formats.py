"""Text in any encoding, JSON in any shape, and Arrow's values that Python cannot hold."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nearer.cli import app
from nearer.config import Data
from nearer.data import inspect, load
from nearer.data.corpus import Corpus
from nearer.data.fields import read_queries
from nearer.data.pairs import read_training
from nearer.data.trec import read_qrels
from nearer.errors import DataError

PACK: dict[str, Any] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
DOCUMENTS = [{"_id": "a", "text": "Käse\u2028und Brot 🍞"}, {"_id": "b", "text": "zwei"}]


def corpus_text(kind: str) -> str:
    if kind == "json":
        return json.dumps(DOCUMENTS, ensure_ascii=False, indent=1)
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in DOCUMENTS)
    separator = {"csv": ",", "tsv": "\t"}[kind]
    rows = ["_id text", *(f"{row['_id']} {row['text']}" for row in DOCUMENTS)]
    return "\r\n".join(row.replace(" ", separator, 1) for row in rows)


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", "\ufeff"),
        ("utf-16-le", "\ufeff"),
        ("utf-16-be", "\ufeff"),
        ("utf-32-le", "\ufeff"),
        ("utf-32-be", "\ufeff"),
        ("utf-16-le", ""),
        ("utf-16-be", ""),
        ("utf-32-le", ""),
        ("utf-32-be", ""),
    ],
)
def test_a_corpus_is_read_in_any_encoding(
    tmp_path: Path, encoding: str, mark: str, kind: str, packing: str
) -> None:
    path = tmp_path / f"corpus.{kind}{packing}"
    path.write_bytes(PACK[packing]((mark + corpus_text(kind)).encode(encoding)))
    corpus = Corpus.open(path)
    assert [(one.id, one.text) for one in corpus] == [
        (row["_id"], row["text"]) for row in DOCUMENTS
    ]


def test_text_that_only_begins_as_utf_16_is_named_with_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(corpus_text("jsonl").encode("utf-16")[:-1])
    with pytest.raises(DataError, match="begins as UTF-16 text, but cannot be read") as caught:
        read_queries(tmp_path / "q.jsonl")
    assert "iconv -f utf-16 -t utf-8 q.jsonl" in str(caught.value)
    assert "latin1" not in str(caught.value)


LLAMA = {
    "queries": {"q1": "bread", "q2": "lava"},
    "corpus": {"d1": "about bread", "d2": "about lava"},
    "relevant_docs": {"q1": ["d1"], "q2": ["d2", "d1"]},
    "mode": "text",
}


@pytest.mark.parametrize("indent", [None, 4])
def test_an_evaluation_set_of_llamaindex_is_corpus_queries_and_judgments(
    tmp_path: Path, indent: int | None
) -> None:
    (tmp_path / "val.json").write_text(json.dumps(LLAMA, indent=indent))
    data = Data(corpus="val.json", queries="val.json", judgments="val.json")
    loaded = load.load(data, tmp_path)
    assert [(one.id, one.text) for one in loaded.corpus] == list(LLAMA["corpus"].items())
    assert {one.id: one.text for one in loaded.queries.values()} == LLAMA["queries"]
    assert loaded.judgments == {"all": {"q1": {"d1": 1}, "q2": {"d2": 1, "d1": 1}}}


def test_grades_of_an_evaluation_set_are_kept(tmp_path: Path) -> None:
    graded = LLAMA | {"relevant_docs": {"q1": {"d1": 2, "d2": 0}}}
    (tmp_path / "val.json").write_text(json.dumps(graded))
    assert read_qrels(tmp_path / "val.json") == {"q1": {"d1": 2, "d2": 0}}


JSON: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "an object around the rows": (
        "c.json",
        json.dumps({"version": 1, "data": DOCUMENTS}, indent=1),
        ("one JSON object (keys: version, data)", "jq -c '.[\"data\"][]' c.json > NEW.jsonl"),
    ),
    "an object of columns, as pandas writes it": (
        "c.json",
        json.dumps({"_id": {"0": "a"}, "text": {"0": "x"}}),
        ("one JSON object (keys: _id, text)", "list of objects"),
    ),
    "one row on several lines": (
        "c.json",
        json.dumps(DOCUMENTS[0], indent=1),
        ("one JSON object (keys: _id, text)", "jq -c . c.json"),
    ),
    "rows on several lines each": (
        "c.json",
        "\n".join(json.dumps(row, indent=1) for row in DOCUMENTS),
        ("an object stands on several lines", "jq -c . c.json"),
    ),
    "rows on several lines each, called .jsonl": (
        "c.jsonl",
        "\n".join(json.dumps(row, indent=1) for row in DOCUMENTS),
        ("an object stands on several lines", "jq -c . c.jsonl"),
    ),
    "a list, called .jsonl": (
        "c.jsonl",
        json.dumps(DOCUMENTS, indent=1),
        ("one JSON list", "name the file .json"),
    ),
    "a broken object": ("c.json", '{\n"a": 1,\n}', ("c.json:3", "not valid JSON")),
    "a number of too many digits": (
        "c.jsonl",
        '{"_id": "a", "text": "x", "n": ' + "9" * 5000 + "}\n",
        ("c.jsonl:1", "too many digits"),
    ),
    "a number of too many digits in a list": (
        "c.json",
        '[{"_id": "a", "text": "x", "n": ' + "9" * 5000 + "}]",
        ("c.json", "too many digits"),
    ),
    "an empty file": ("c.json", "\n", ("c.json", "holds no documents")),
    "a list of lists": ("c.json", "[[1]]", ("c.json, item 1", "object is needed, not list")),
}


@pytest.mark.parametrize("case", JSON)
def test_json_of_another_shape_is_named_as_what_it_is(tmp_path: Path, case: str) -> None:
    name, text, expected = JSON[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        Corpus.open(tmp_path / name)
    message = str(caught.value)
    assert all(part in message for part in expected), message
    assert len(message) < 400


def test_an_evaluation_set_is_no_training_file(tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text(json.dumps(LLAMA))
    with pytest.raises(DataError, match=r"one JSON object .*") as caught:
        read_training(tmp_path / "val.json")
    assert "data.corpus, data.queries and data.judgments" in str(caught.value)


def test_json_lines_called_json_are_read(tmp_path: Path) -> None:
    for rows in (DOCUMENTS, DOCUMENTS[:1]):
        lines = [json.dumps(row) for row in rows]
        (tmp_path / "c.json").write_text("\n".join(lines))
        assert Corpus.open(tmp_path / "c.json").ids == [row["_id"] for row in rows]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_comments_and_blank_lines_before_a_header_are_left_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"c.{kind}"
    path.write_text("\ufeff# exported by hand\n\n" + corpus_text(kind))
    assert Corpus.open(path).ids == ["a", "b"]
    path.write_text("# exported by hand\n" + corpus_text(kind).replace("b", "a"))
    with pytest.raises(DataError, match=f"c.{kind}:4: document id 'a' stands on lines 3 and 4"):
        Corpus.open(path)


def arrow_columns() -> dict[str, Any]:
    import pyarrow as pa

    def ticks(kind: Any, *values: int | None) -> Any:
        integers = pa.int32() if kind in (pa.date32(), pa.time32("s")) else pa.int64()
        return pa.array(values, integers).view(kind)

    nested = pa.array([0, 2_932_897], pa.int32()).view(pa.date32())
    largest = 2**63 - 1
    return {
        "day": ticks(pa.date32(), 0, 2_932_897),
        "bc": ticks(pa.date32(), None, -735_538),
        "ms_day": ticks(pa.date64(), 0, 253_402_300_800_000),
        "year_10000": ticks(pa.timestamp("s"), 0, 253_402_300_800),
        "infinity": ticks(pa.timestamp("us"), 0, largest),
        "fine": ticks(pa.timestamp("ns"), 1_000, 1),
        "whole_ns": ticks(pa.timestamp("ns", "UTC"), 0, 1_000),
        "mars": ticks(pa.timestamp("ms", "Mars/Phobos"), 1_700_000_000_000, None),
        "edge": ticks(pa.timestamp("s", "+14:00"), 0, 253_402_300_799),
        "long": ticks(pa.duration("s"), 1, largest),
        "clock": ticks(pa.time64("ns"), 1_000, 1),
        "list": pa.array([None, None]),
        "dates": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), nested),
        "struct": pa.StructArray.from_arrays([nested], ["at"]),
    }


EXPECTED = [
    {
        "day": "1970-01-01",
        "bc": None,
        "ms_day": "1970-01-01",
        "year_10000": "1970-01-01 00:00:00",
        "infinity": "1970-01-01 00:00:00",
        "fine": "1970-01-01 00:00:00.000001",
        "whole_ns": "1970-01-01 00:00:00+00:00",
        "mars": "2023-11-14 22:13:20+00:00",
        "edge": "1970-01-01 14:00:00+14:00",
        "long": "0:00:01",
        "clock": "00:00:00.000001",
        "list": None,
        "dates": ["1970-01-01"],
        "struct": {"at": "1970-01-01"},
    },
    {
        "day": "10000-01-01",
        "bc": "-0044-03-02",
        "ms_day": "10000-01-01",
        "year_10000": "10000-01-01 00:00:00",
        "infinity": "294247-01-10 04:00:54.775807",
        "fine": "1970-01-01 00:00:00.000000001",
        "whole_ns": "1970-01-01 00:00:00.000001+00:00",
        "mars": None,
        "edge": "9999-12-31 23:59:59+00:00",
        "long": f"{2**63 - 1} s",
        "clock": "1 ns",
        "list": None,
        "dates": ["10000-01-01"],
        "struct": {"at": "10000-01-01"},
    },
]


def test_dates_that_python_cannot_hold_are_metadata_as_text_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = arrow_columns()
    del columns["ms_day"], columns["year_10000"], columns["edge"], columns["long"]
    table = pa.table({"_id": ["a", "b"], "text": ["x", "y"]} | columns)
    pq.write_table(table, tmp_path / "corpus.parquet")
    found = [dict(one.metadata) for one in Corpus.open(tmp_path / "corpus.parquet")]
    assert found == [{name: row[name] for name in columns} for row in EXPECTED]


def test_dates_that_python_cannot_hold_are_metadata_as_text_in_a_datasets_folder(
    tmp_path: Path,
) -> None:
    import datasets
    import pyarrow as pa

    columns = arrow_columns()
    del columns["edge"]
    table = pa.table({"_id": ["a", "b"], "text": ["x", "y"]} | columns)
    stored = datasets.Dataset(datasets.table.InMemoryTable(table))
    stored.select([1, 0]).save_to_disk(str(tmp_path / "corpus"))
    found = [dict(one.metadata) for one in Corpus.open(tmp_path / "corpus")]
    assert found == [{name: row[name] for name in columns} for row in reversed(EXPECTED)]


def test_all_arrow_values_are_told_as_text_where_python_has_none() -> None:
    import pyarrow as pa

    from nearer.data.columnar import _rows
    from nearer.data.fields import plain

    found = list(_rows(pa.table(arrow_columns()), Path("t")))
    assert [plain(row) for row in found] == EXPECTED


def test_a_damaged_datasets_folder_is_named(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "corpus"
    datasets.Dataset.from_list(DOCUMENTS).save_to_disk(str(folder))
    for path in folder.glob("*.arrow"):
        path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a readable `datasets` folder"):
        Corpus.open(folder)
    for path in folder.glob("*.arrow"):
        path.unlink()
    with pytest.raises(DataError, match="not a readable `datasets` folder"):
        Corpus.open(folder)


def test_text_of_parquet_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"_id": ["a"], "text": text}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="column 'text' holds text that is not UTF-8"):
        Corpus.open(tmp_path / "c.parquet")


def test_whole_numbers_are_ids_whatever_type_holds_them(tmp_path: Path) -> None:
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    for ids in ([1, 2], [1.0, 2.0], ["1", "2"], [Decimal(1), Decimal(2)]):
        pq.write_table(pa.table({"_id": ids, "text": ["x", "y"]}), tmp_path / "c.parquet")
        assert Corpus.open(tmp_path / "c.parquet").ids == ["1", "2"]
    pq.write_table(pa.table({"_id": [1e300], "text": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"1e\+300; text or a whole number"):
        Corpus.open(tmp_path / "c.parquet")


def split_data(folder: Path, corpus: list[str], queries: list[str]) -> Path:
    """Documents and queries whose column `split` holds these values."""
    rows = {"corpus": corpus, "queries": queries}
    for name, values in rows.items():
        lines = [
            {"_id": f"{name[0]}{i}", "text": f"word{i}", "split": value}
            for i, value in enumerate(values)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    judged = [f"q{i}\tc{i}\t1\n" for i in range(len(queries))]
    (folder / "qrels.tsv").write_text("".join(judged))
    return folder


SPLITS: dict[str, tuple[list[str], list[str], dict[str, int]]] = {
    "of documents": (["part-1", "part-1"], ["x", "y"], {"all": 2}),
    "of documents, called like splits": (["train", "test"], ["x", "y"], {"all": 2}),
    "of queries": (["part-1", "part-2"], ["train", "val"], {"train": 1, "dev": 1}),
}


@pytest.mark.parametrize("case", SPLITS)
def test_a_column_split_counts_where_it_says_which_split(tmp_path: Path, case: str) -> None:
    documents, queries, expected = SPLITS[case]
    data = inspect.guess(split_data(tmp_path, documents, queries))
    seen = inspect.inspect(data, tmp_path)
    assert seen.facts["splits"] == expected
    assert seen.facts["metadata"] == ["split"]


def test_a_value_that_is_no_split_among_splits_is_refused_with_what_to_say_to_init(
    tmp_path: Path,
) -> None:
    folder = split_data(tmp_path, ["a", "b"], ["train", "holdout"])
    command = ["init", str(tmp_path / "p"), "--data", str(folder), "--model", "m"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    told = " ".join(refused.output.split())
    assert "'holdout' is no split" in told
    assert "--columns split=null" in told
    done = CliRunner().invoke(app, [*command, "--columns", "split=null"])
    assert done.exit_code == 0, done.output
    written = yaml.safe_load((tmp_path / "p" / "nearer.yaml").read_text())
    assert written.get("data", {}).get("columns", {}).get("split") is None


def test_a_column_that_must_be_there_cannot_be_null(tmp_path: Path) -> None:
    folder = split_data(tmp_path, ["a"], ["b"])
    command = ["init", str(tmp_path / "p"), "--data", str(folder), "--columns", "id=null"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "there is no data without that column" in " ".join(refused.output.split())
