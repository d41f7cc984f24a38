"""Files and settings as programs really write them: the right value, or an error that says what is wrong."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from generations_kit import WORDS, static_model, transformer_model
from nearer import config
from nearer.cli import app
from nearer.data.clicks import read_clicks
from nearer.data.corpus import Corpus
from nearer.data.fields import grade
from nearer.data.pairs import read_training
from nearer.data.times import read_time
from nearer.data.trec import read_qrels, read_run
from nearer.embed.loading import load_model
from nearer.errors import ConfigError, DataError
from nearer.types import Document

TWO = [Document("1", "b", "a"), Document("2", "d", "c")]
CSV = "_id,title,text\n1,a,b\n2,c,d\n"
JSONL = '{"_id": "1", "title": "a", "text": "b"}\n{"_id": "2", "title": "c", "text": "d"}\n'
MARK = "\ufeff"
DEEP = "[" * 600 + "]" * 600
LONG = "1" + "0" * 400

CORPORA: dict[str, tuple[str, str | bytes]] = {
    "separators at the end of every line": ("c.csv", CSV.replace("\n", ",,\n")),
    "separators that stop after some lines": (
        "c.csv",
        CSV.replace("text\n1,a,b", "text,,\n1,a,b,"),
    ),
    "semicolons": ("c.csv", CSV.replace(",", ";")),
    "tabs in a .csv": ("c.csv", CSV.replace(",", "\t")),
    "commas in a .tsv": ("c.tsv", CSV),
    "line ends of old Macs": ("c.csv", CSV.replace("\n", "\r")),
    "line ends of old Macs in JSON Lines": ("c.jsonl", JSONL.replace("\n", "\r")),
    "line ends of old Macs in UTF-16": ("c.csv", CSV.replace("\n", "\r").encode("utf-16")),
    "two byte order marks": ("c.csv", MARK * 2 + CSV),
    "two byte order marks in UTF-16": ("c.csv", (MARK + CSV).encode("utf-16")),
    "a byte order mark where files were joined": ("c.jsonl", JSONL.replace("\n{", f"\n{MARK}{{")),
}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("case", CORPORA)
def test_the_same_two_documents_however_they_are_written(case: str, tmp_path: Path) -> None:
    corpus = Corpus.open(write(tmp_path, *CORPORA[case]))
    assert list(corpus) == TWO


def test_a_column_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    """pandas writes its index so."""
    (first,) = Corpus.open(write(tmp_path, "c.csv", ",_id,text,\n0,1,b,x\n"))
    assert first.metadata == {"column 1": "0", "column 4": "x"}


def test_a_byte_order_mark_is_never_part_of_an_id(tmp_path: Path) -> None:
    joined = f"q1\td1\t1\n{MARK}q2\td2\t1\n"
    assert read_qrels(write(tmp_path, "q.tsv", joined)) == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    semicolons = "query-id;corpus-id;score\nq1;d1;2\n"
    assert read_qrels(write(tmp_path, "q.csv", semicolons)) == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("begins", "what", "mend"),
    [
        # Without a fixed time the bytes, and so the test's name, change every second.
        (gzip.compress(b"{}", mtime=0), "packed by gzip", r"\.gz"),
        (b"PK\x03\x04\x14\x00\x06\x00", "spreadsheet", "CSV"),
        (b"PAR1\x15\x04\x15\x10", "Parquet", r"\.parquet"),
        (b"SQLite format 3\x00", "SQLite", "export"),
    ],
    ids=["gzip", "spreadsheet", "parquet", "sqlite"],
)
@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.json"])
def test_what_is_no_text_is_called_what_it_is(
    begins: bytes, what: str, mend: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        Corpus.open(write(tmp_path, name, begins + bytes(range(256))))
    assert caught.match(mend)


def test_a_file_that_is_not_packed_may_lose_its_ending(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"if it is not packed, name it without \.gz"):
        Corpus.open(write(tmp_path, "c.jsonl.gz", JSONL))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2024.0, (2024, 1, 1)),  # pandas makes floats of years where one is missing
        ("2024.0", (2024, 1, 1)),
        (20240131.0, (2024, 1, 31)),
        ("２０２４", (2024, 1, 1)),
        ("٢٠٢٤-٠١-٣١", (2024, 1, 31)),
    ],
)
def test_years_and_days_that_look_like_other_numbers(value: Any, expected: Any) -> None:
    assert read_time(value) == datetime(*expected, tzinfo=UTC)


def test_numbers_with_underscores_are_pythons_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a time"):
        read_time("1_700_000_000")
    with pytest.raises(DataError, match="'1_0' is not a whole number"):
        grade("1_0", "here")
    with pytest.raises(DataError, match="not a finite number"):
        read_run(write(tmp_path, "r.trec", "q1 Q0 d1 1 1_0 x\n"))
    with pytest.raises(DataError, match="not a finite number"):
        read_training(write(tmp_path, "p.csv", "query,positive,score\na,b,1_0\n"))


@pytest.mark.parametrize(
    "content",
    [
        f'{{"query": "a", "positive": "b", "score": {LONG}}}\n',
        '{"query": "a", "positive": "b", "score": [1]}\n',
    ],
)
def test_scores_that_are_no_scores_are_refused_with_their_line(
    content: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"p\.jsonl:1: score .{1,80} is not a finite number"):
        read_training(write(tmp_path, "p.jsonl", content))


def test_values_in_values_without_end_are_refused_with_their_line(tmp_path: Path) -> None:
    deep = f'{{"_id": "1", "text": "b", "tree": {DEEP}}}\n'
    with pytest.raises(DataError, match=r"c\.jsonl:1: a value is nested more than 100 levels"):
        Corpus.open(write(tmp_path, "c.jsonl", deep))
    click = f'{{"query": "a", "session": {DEEP}, "results": ["d"], "clicks": ["d"]}}\n'
    with pytest.raises(DataError, match=r"l\.jsonl:1: a value is nested more than 100 levels"):
        read_clicks(write(tmp_path, "l.jsonl", click))


# -- nearer.yaml ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2024-02-30", "2024-01-31", "2024-01-31 12:00:00"])
def test_what_looks_like_a_date_is_text(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, "nearer.yaml", f"data: {{folder: {name}}}\n")
    assert config.load(path).data.folder == name
    assert config.load(path, ["run=2024-02-30"]).run == "2024-02-30"


WRONG: dict[str, tuple[str | bytes, str]] = {
    "a key twice": ("seed: 1\nseed: 2\n", r"nearer\.yaml:2: .*'seed' stands twice"),
    "a section twice": ("train: {epochs: 1}\ntrain: {seed: 2}\n", "'train' stands twice"),
    "a value inside itself": ("data: &a {folder: *a}\n", "data.folder: .*string"),
    "a list inside itself": ("data: &a [*a]\n", "data: "),
    "a list as a key": ("data:\n  ? [a]\n  : c\n", "unhashable"),
    "too deep": (f"data: {'[' * 3000}{']' * 3000}\n", "nested too deeply"),
    "too many digits": (f"seed: {'1' * 5000}\n", "too many digits"),
    "a seed that no generator takes": ("seed: 99999999999999999999\n", "seed: .*less than"),
    "a control character": ("data: {folder: 'a\x00b'}\n", "special characters"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "not UTF-8"),
    "a date as a key": ("data:\n  2024-01-01: x\n", "unknown key data.2024-01-01"),
    "yes as a key": ("on: x\n", "keys should be strings"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_be_read_are_errors_that_say_so(case: str, tmp_path: Path) -> None:
    content, said = WRONG[case]
    path = write(tmp_path, "nearer.yaml", content)
    with pytest.raises(ConfigError, match=said):
        config.load(path)
    assert CliRunner().invoke(app, ["check", "-c", str(path)]).exit_code == 2


def test_a_mark_before_settings_is_no_part_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "nearer.yaml", codecs.BOM_UTF8 + b"seed: 3\n")
    assert config.load(path).seed == 3


# -- models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of fourteen documents, each asked for by its first word."""
    folder = tmp_path_factory.mktemp("words") / "data"
    (folder / "qrels").mkdir(parents=True)
    documents = [f'{{"_id": "d{n}", "text": "{word} {n}"}}' for n, word in enumerate(WORDS)]
    queries = [f'{{"_id": "q{n}", "text": "{word}"}}' for n, word in enumerate(WORDS)]
    (folder / "corpus.jsonl").write_text("\n".join(documents))
    (folder / "queries.jsonl").write_text("\n".join(queries))
    for split, numbers in (("train", range(6)), ("dev", range(6, 10)), ("test", range(10, 14))):
        rows = "".join(f"q{number}\td{number}\t1\n" for number in numbers)
        (folder / "qrels" / f"{split}.tsv").write_text(rows)
    return folder


def run_to(stage: str, data: Path, model: Path, folder: Path) -> Any:
    settings: dict[str, Any] = {
        "data": {"folder": str(data)},
        "model": {"name": str(model), "precision": "fp32", "device": "cpu"},
        "evaluate": {"resamples": 1000},
        "diagnose": {"chunkers": [], "pieces": []},
        "rerank": {"model": None},
        "fix": {"models": []},
    }
    path = write(folder, "nearer.yaml", json.dumps(settings))
    return CliRunner().invoke(app, ["run", "--to", stage, "-c", str(path), "-q"])


def said(result: Any) -> str:
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def all_zeros(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    save_file(zeros, model / "model.safetensors", {"format": "pt"})


def no_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


def set_value(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (all_zeros, "14 different documents the same vector"),
        (no_tokenizer, "14 different documents the same vector"),
        (set_value("config.json", num_hidden_layers=3), "its files lack weights"),
        (set_value("sentence_bert_config.json", max_seq_length="64"), "'64', not a number"),
        (set_value("sentence_bert_config.json", max_seq_length=0), "0, not a number of tokens"),
    ],
)
def test_a_model_that_cannot_work_is_refused_before_it_is_judged(
    damage: Callable[[Path], None], what: str, words: Path, tmp_path: Path
) -> None:
    model = transformer_model(tmp_path / "model")
    damage(model)
    assert what in said(run_to("evaluate", words, model, tmp_path))


def test_a_model_whose_unused_weights_are_missing_is_taken(tmp_path: Path) -> None:
    """BERT's pooling layer, which most embedding models never ask."""
    model = transformer_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, model / "model.safetensors", {"format": "pt"})
    assert load_model(config.Model(name=str(model), device="cpu"), Path()) is not None


@pytest.mark.parametrize(("dimension", "tried"), [(20, ["int8", "binary@16"]), (4, ["int8"])])
def test_dimensions_that_fill_no_bytes_stop_no_run(
    dimension: int, tried: list[str], words: Path, tmp_path: Path
) -> None:
    """Word vectors have 50, 100 or 300; the defaults measure binary ones."""
    model = static_model(tmp_path / "model", dimension=dimension)
    result = run_to("fix", words, model, tmp_path)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "runs/default/fix/trials.jsonl").read_text().splitlines()
    trials = [json.loads(line) for line in lines]
    names = [trial["settings"]["compression"] for trial in trials if trial["fix"] == "base_model"]
    assert names == tried
