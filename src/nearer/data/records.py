"""Rows of any file, one at a time, each with its place.

Read: .jsonl .ndjson .json .csv .tsv .parquet, plain or packed (.gz .bz2 .xz), and folders that
`datasets.load_from_disk` reads.  Only a .json file is ever held whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nearer.data import columnar, tables
from nearer.data.sources import bad
from nearer.data.texts import ending, lines
from nearer.errors import DataError
from nearer.types import by_field_name

#: Which values are wanted of a file that holds them all, as LlamaIndex's evaluation sets do.
Part = Literal["corpus", "queries", "relevant_docs"]
Values = dict[str, Any]  # column → value
_PARTS = ("corpus", "queries", "relevant_docs")


class Row(NamedTuple):
    """One row: `number` is the 1-based line (text files) or row (parquet, json lists, datasets)."""

    path: Path
    number: int
    values: Values
    span: tuple[int, int] = (0, 0)  # offset and length of its line in bytes, in unpacked .jsonl

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    @property
    def holds_cells(self) -> bool:
        """Whether its file knows no lists: a cell holds one as JSON, where other files hold text."""
        return ending(self.path) in (".csv", ".tsv")

    def bad(self, what: str, next_step: str = "mend that line") -> DataError:
        """The error for a row that cannot be used."""
        return bad(what, self.where, next_step)


def read(path: Path, part: Part | None = None) -> Iterator[Row]:
    """All rows of a file; `part` says which, where one .json object holds queries and documents.

    Raises DataError, with file and line, for anything that cannot be read.
    """
    return map(_with_field_names, _rows(path, part))


def _rows(path: Path, part: Part | None) -> Iterator[Row]:
    if path.is_dir():
        return _numbered(path, columnar.dataset_rows(path))
    match ending(path):
        case ".jsonl" | ".ndjson":
            return _jsonl(path)
        case ".json":
            return _json(path, part)
        case ".csv":
            return _delimited(path, ",")
        case ".tsv":
            return _delimited(path, "\t")
        case ".parquet":
            return _numbered(path, columnar.parquet_rows(path))
    mend = "use .jsonl, .json, .csv, .tsv or .parquet (also .gz, .bz2, .xz), or a `datasets` folder"
    raise bad(f"the format {ending(path) or 'without an ending'} is not known", path, mend)


def first(path: Path, part: Part | None = None) -> Row:
    """The first row of a file.  Raises DataError when there is none."""
    row = next(iter(read(path, part)), None)
    if row is None:
        raise bad("the file is empty", path, "name a file with data")
    return row


def _numbered(path: Path, rows: Iterator[Values]) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        yield Row(path, number, values)


def _delimited(path: Path, delimiter: str) -> Iterator[Row]:
    skipped, first_line = tables.leading(path, delimiter)
    dialect = tables.dialect_of(first_line, tables.delimiter_of(first_line, delimiter))
    header: list[str] = []
    unnamed: set[str] = set()
    for number, cells in tables.rows(path, dialect, skipped):
        where = f"{path}:{number}"
        if not header:
            header = tables.header(cells, where)
            unnamed = {name for name, cell in zip(header, cells, strict=True) if not cell.strip()}
            continue
        missing = header[len(cells) :]
        if len(cells) > len(header) or not unnamed.issuperset(missing):
            names = ", ".join(header)
            what = f"{len(cells)} cells, but the header names {len(header)} columns: {names}"
            raise bad(what, where, "mend that line (a stray separator or quote?)")
        values = dict(zip(header, cells, strict=False))
        for name in unnamed:
            if not values.get(name, "").strip():  # separators at the end of every line
                values.pop(name, None)
        yield Row(path, number, values)


def _with_field_names(row: Row) -> Row:
    """The row with its columns under the names in which fields are compared.  Raises DataError for two alike."""
    values = by_field_name(row.values)
    if len(values) != len(row.values):
        raise row.bad("two columns have the same name in different Unicode forms", "rename one")
    return row if values is row.values else row._replace(values=dict(values))


def _jsonl(path: Path) -> Iterator[Row]:
    start = 0
    is_first = True
    for number, line, length in lines(path):
        if line.strip():
            if is_first:
                _refuse_whole_json(line, path)
                is_first = False
            where = f"{path}:{number}"
            values = _object(_parse(line, where), where)
            yield Row(path, number, values, span=(start, length))
        start += length


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise bad(f"not valid JSON: {error.msg} at character {error.pos + 1}", where) from None
    except RecursionError:
        raise bad("the JSON is nested too deeply", where) from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise bad("a number has too many digits", where, "write it as text") from None


def _object(value: Any, where: str) -> Values:
    if not isinstance(value, dict):
        raise bad(f"a JSON object is needed, not {type(value).__name__}", where)
    return value


def _refuse_whole_json(line: str, path: Path) -> None:
    """Raises DataError when the first line opens a value that goes on below: no JSON Lines."""
    opening = line.strip()[:1]
    if opening == "[":
        what = "this is one JSON list, but JSON Lines has an object on each line"
        raise bad(what, path, f"jq -c '.[]' {path.name} > NEW.jsonl, or name the file .json")
    if line.strip() == "{":
        what = "an object stands on several lines, but JSON Lines has an object on each line"
        raise bad(what, path, f"jq -c . {path.name} > NEW.jsonl")


def _json(path: Path, part: Part | None) -> Iterator[Row]:
    """A list of objects, LlamaIndex's evaluation set, or JSON Lines, which many tools call .json."""
    text = "".join(line for _, line, _ in lines(path))
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("[") or error.msg != "Extra data":
            raise bad(f"not valid JSON: {error.msg}", f"{path}:{error.lineno}") from None
        yield from _jsonl(path)
        return
    except (RecursionError, ValueError):
        what = "the JSON is nested too deeply, or a number has too many digits"
        raise bad(what, path, "write the file as JSON Lines: an object on each line") from None
    if isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield Row(path, number, _object(item, f"{path}, item {number}"))
    elif not isinstance(value, dict) or _is_row(value, text):
        yield from _jsonl(path)
    elif part is not None and _is_evaluation_set(value):
        yield from _evaluation_set(path, value, part)
    else:
        raise _one_object(path, value)


def _is_row(value: Mapping[str, Any], text: str) -> bool:
    """Whether an object is JSON Lines of one line, and no container of rows."""
    if "\n" in text.strip() or _is_evaluation_set(value):
        return False
    return any(not isinstance(member, dict | list) for member in value.values())


def _is_evaluation_set(value: Mapping[str, Any]) -> bool:
    """Whether an object has the parts of LlamaIndex's evaluation sets."""
    return set(_PARTS) <= value.keys()


def _one_object(path: Path, value: Mapping[str, Any]) -> DataError:
    keys = ", ".join(list(value)[:6])
    what = f"the file holds one JSON object (keys: {keys}), where a list of objects is needed"
    lists = [key for key, member in value.items() if isinstance(member, list)]
    mend = "write it as a list of objects, or as JSON Lines: an object on each line"
    if _is_evaluation_set(value):
        mend = (
            "name it with data.corpus, data.queries and data.judgments; it holds no training pairs"
        )
    elif len(lists) == 1:
        mend = f"jq -c '.[\"{lists[0]}\"][]' {path.name} > NEW.jsonl"
    elif any(not isinstance(member, dict) for member in value.values()):
        mend = f"jq -c . {path.name} > NEW.jsonl, if that object is one row"
    return bad(what, path, mend)


def _evaluation_set(path: Path, value: Mapping[str, Any], part: Part) -> Iterator[Row]:
    """Rows of LlamaIndex's {queries: {id: text}, corpus: {id: text}, relevant_docs: {id: [id]}}."""
    entries = value[part]
    if not isinstance(entries, Mapping):
        kind = type(entries).__name__
        raise bad(f"{part!r} is {kind}, not an object", path, "write the file anew")
    if part == "relevant_docs":
        yield from _numbered(path, _relevant_docs(path, entries))
        return
    for number, (key, text) in enumerate(entries.items(), start=1):
        yield Row(path, number, {"_id": key, "text": text})


def _relevant_docs(path: Path, entries: Mapping[str, Any]) -> Iterator[Values]:
    """Judgments of an evaluation set: a list of relevant ids per query, or a grade per id."""
    for query_id, relevant in entries.items():
        if not isinstance(relevant, list | Mapping):
            what = f"the relevant_docs of query {query_id!r} are {type(relevant).__name__}"
            raise bad(what, path, "give a list of document ids")
        for doc_id in relevant:
            grade = 1
            if isinstance(relevant, Mapping):
                grade = relevant[doc_id]
            yield {"query-id": query_id, "corpus-id": doc_id, "score": grade}
