"""Rows → documents, queries and judgments: column names, types, and errors that name the place.

A column that keeps its default name in `data.columns` may also go by the aliases below, where only
one of them is there.  A column that was named is looked for under that name alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from nearer.config import Columns
from nearer.data import cells, records
from nearer.data.records import Row
from nearer.data.sources import SPLIT_NAMES, bad
from nearer.types import MAX_GRADE, Document, Query

Aliases = Mapping[str, tuple[str, ...]]
DOCUMENT_ALIASES: Aliases = {
    "id": (
        "_id",
        "id",
        "doc_id",
        "docid",
        "doc-id",
        "document_id",
        "corpus-id",
        "corpus_id",
        "pid",
    ),
    "title": ("title",),
    "text": ("text", "contents", "content", "body", "passage", "document"),
}
QUERY_ALIASES: Aliases = {
    "id": ("_id", "id", "query_id", "query-id", "qid"),
    "text": ("text", "query", "question"),
}
JUDGMENT_ALIASES: Aliases = {
    "query_id": ("query-id", "query_id", "qid", "query"),
    "doc_id": ("corpus-id", "corpus_id", "doc_id", "doc-id", "docid", "document_id", "pid"),
    "score": ("score", "relevance", "rel", "grade", "label"),
}
#: Fields of queries with reference answers: a text, a number, or a list of them.
ANSWERS = ("answers", "answer")
DEFAULT = Columns()
_TRUTHS = {"true": "1", "false": "0"}
_DEEPEST = 100  # levels of lists and objects in each other


def column_of(name: str, columns: Columns, aliases: Aliases, row: Row) -> str | None:
    """The column of `row` that plays the part `name` (a key of data.columns); None when it has none.

    Raises DataError when several columns could play it.
    """
    column: str = getattr(columns, name)
    if column in row.values:
        return column
    if column != getattr(DEFAULT, name):
        return None
    present = [alias for alias in aliases[name] if alias in row.values]
    if len(present) > 1:
        what = f"{' and '.join(present)} could both be the {name}"
        raise row.bad(what, f"set data.columns.{name}")
    return next(iter(present), None)


def _need(name: str, columns: Columns, aliases: Aliases, row: Row) -> tuple[str, Any]:
    column = column_of(name, columns, aliases, row)
    if column is None:
        present = ", ".join(row.values) or "none"
        what = f"no column {getattr(columns, name)!r}; the columns here: {present}"
        part = name.replace("_", " ")
        raise row.bad(what, f"set data.columns.{name} to the one that holds the {part}")
    return column, row.values[column]


def as_id(value: Any, row: Row, what: str) -> str:
    """An id as text; whole numbers are taken as they are written.  Raises DataError."""
    value = _whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise row.bad(f"the {what} id is {value!r}; text or a whole number is needed")
    if not value.strip():
        raise row.bad(f"the {what} id is empty")
    return _encodable(value)


def _whole(value: Any) -> Any:
    """5 for 5.0: pandas makes floats of whole numbers where a column has gaps; else the value."""
    if not isinstance(value, float | Decimal) or not math.isfinite(value):
        return value
    number = int(value)
    if number == value and abs(number) < 2**53:
        return number
    return value


def _as_text(column: str, row: Row) -> str:
    value = row.values[column]
    if not isinstance(value, str | None):
        raise row.bad(f"{column!r} is {type(value).__name__}, not text")
    return _encodable(value or "")


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold: JSON may carry half a surrogate pair, which no file or tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it: other types as text, NaN and infinity as null.

    Raises ValueError for lists and objects inside each other beyond every use.
    """
    if depth > _DEEPEST:
        raise ValueError(f"a value is nested more than {_DEEPEST} levels deep")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, float | int):
        return value
    if isinstance(value, Mapping):
        return {_encodable(str(key)): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, depth + 1) for inner in value]
    if hasattr(value, "item"):  # a number of NumPy
        return plain(value.item())
    return _encodable(str(value))


def document(row: Row, columns: Columns) -> Document:
    """The document that a row holds; columns without a part become metadata.  Raises DataError."""
    id_column, doc_id = _need("id", columns, DOCUMENT_ALIASES, row)
    text_column, _ = _need("text", columns, DOCUMENT_ALIASES, row)
    title_column = column_of("title", columns, DOCUMENT_ALIASES, row)
    if title_column is None and columns.title != DEFAULT.title:
        _need("title", columns, DOCUMENT_ALIASES, row)
    metadata = _metadata(row, id_column, text_column, title_column)
    title = ""
    if title_column:
        title = _as_text(title_column, row)
    return Document(
        id=as_id(doc_id, row, "document"),
        text=_as_text(text_column, row),
        title=title,
        metadata=metadata,
    )


def _metadata(row: Row, *columns: str | None) -> dict[str, Any]:
    """The values of a row without those of the columns.  Raises DataError."""
    return {name: as_plain(value, row) for name, value in row.values.items() if name not in columns}


def as_plain(value: Any, row: Row) -> Any:
    """`plain`, with the place of the row in its error.  Raises DataError."""
    try:
        return plain(value)
    except ValueError as error:
        raise row.bad(str(error), "flatten that value, or drop it") from None


def query(row: Row, columns: Columns) -> Query:
    """The query that a row holds; columns without a part become metadata.  Raises DataError."""
    id_column, query_id = _need("id", columns, QUERY_ALIASES, row)
    text_column, _ = _need("text", columns, QUERY_ALIASES, row)
    filters = structured("filter", row)
    tags = structured("tags", row) or []
    spans = structured("gold_spans", row) or []
    if isinstance(tags, str):
        words = [word.strip() for word in tags.split(",")]
        tags = [word for word in words if word]
    if not isinstance(filters, Mapping | None):
        raise row.bad("`filter` must be {field: value, …}")
    if not isinstance(tags, list):
        raise row.bad("`tags` must be a list of words")
    if not _is_list_of_objects(spans):
        raise row.bad("`gold_spans` must be a list of objects")
    metadata = _metadata(row, id_column, text_column, "filter", "tags", "gold_spans")
    for name in ANSWERS:
        if name in metadata:
            metadata[name] = as_plain(answers_in(name, row), row)
    return Query(
        id=as_id(query_id, row, "query"),
        text=_as_text(text_column, row),
        filter=as_plain(filters or None, row),
        tags=tuple(map(str, tags)),
        gold_spans=tuple(as_plain(spans, row)),
        metadata=metadata,
    )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(member, Mapping) for member in value)


def answers_in(name: str, row: Row) -> Any:
    """The answers in a field: what stands there, or the list that a cell of a CSV holds as JSON.

    A cell may also hold SQuAD's `{"text": […]}`.  Other text that looks like JSON is text.
    """
    value = row.values.get(name)
    if not row.holds_cells or not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        held = json.loads(value)
    except (ValueError, RecursionError):
        return value
    if isinstance(held, Mapping):
        held = held.get("text")
    if isinstance(held, list) and all(isinstance(item, str | int | float) for item in held):
        return held
    return held if isinstance(held, str) else value


def structured(name: str, row: Row) -> Any:
    """The list or object in a cell, which CSV holds as JSON; None for an empty cell.  Raises DataError."""
    value = row.values.get(name)
    if value == "":
        return None
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise row.bad(f"`{name}` is not valid JSON") from None


def grade(value: Any, where: str) -> int:
    """A relevance grade; below zero (TREC: junk) counts as 0, true and false as 1 and 0.

    Raises DataError unless it is a whole number that is small enough to be a grade.
    """
    text = str(value).strip().lower()
    number = cells.as_float(_TRUTHS.get(text, text))
    if math.isnan(number) or (math.isfinite(number) and not number.is_integer()):
        raise bad(
            f"the grade {value!r} is not a whole number",
            where,
            "use 0 for not relevant and 1, 2, … for relevant",
        )
    if abs(number) > MAX_GRADE:
        raise bad(
            f"the grade {value!r} is too large to be one: grades go up to {MAX_GRADE:,}",
            where,
            "set data.columns.score to the column that holds the grade, or use smaller grades",
        )
    return max(0, int(number))


def judgment(row: Row, columns: Columns) -> tuple[str, str, int]:
    """Query id, document id and grade of a row.  Raises DataError.

    Rows with two ids and nothing that could be a grade are positives (grade 1).
    """
    query_column, query_id = _need("query_id", columns, JUDGMENT_ALIASES, row)
    doc_column, doc_id = _need("doc_id", columns, JUDGMENT_ALIASES, row)
    ids = as_id(query_id, row, "query"), as_id(doc_id, row, "document")
    no_grades = {query_column, doc_column, columns.split, columns.timestamp}
    if columns.score == DEFAULT.score and row.values.keys() <= no_grades:
        return *ids, 1
    _, value = _need("score", columns, JUDGMENT_ALIASES, row)
    return *ids, grade(value, row.where)


def split_name(value: Any, where: str) -> str:
    """train, dev or test, also from names such as `validation`.  Raises DataError."""
    split = SPLIT_NAMES.get(str(value).strip().lower())
    if split is None:
        raise bad(
            f"{value!r} is no split",
            where,
            "use train, dev or test; or set data.columns.split to null (nearer init: --columns split=null)",
        )
    return split


def read_queries(path: Path, columns: Columns = DEFAULT) -> dict[str, Query]:
    """All queries of a file, by id, in its order.  Raises DataError for duplicate ids and an empty file."""
    queries: dict[str, Query] = {}
    numbers: dict[str, int] = {}
    for row in records.read(path, "queries"):
        parsed = query(row, columns)
        first = numbers.setdefault(parsed.id, row.number)
        if parsed.id in queries:
            what = f"query id {parsed.id!r} stands on lines {first} and {row.number}"
            raise row.bad(what, "keep one of them")
        queries[parsed.id] = parsed
    if not queries:
        raise bad("the file holds no queries", path, "correct data.queries or data.folder")
    return queries


def query_line(query: Query) -> dict[str, Any]:
    """The line of a `queries.jsonl`, as `read_queries` reads it back."""
    line: dict[str, Any] = {"_id": query.id, "text": query.text}
    if query.filter:
        line["filter"] = dict(query.filter)
    if query.tags:
        line["tags"] = list(query.tags)
    if query.gold_spans:
        line["gold_spans"] = [dict(span) for span in query.gold_spans]
    for name, value in query.metadata.items():
        line.setdefault(name, value)
    return line
