"""Rows → documents, queries and judgments: column names, types, and errors that name the place.

A column that keeps its default name in `data.columns` may also go by the aliases below, where only
one of them is there.  A column that was named is looked for under that name alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nearer.config import Columns
from nearer.data import records
from nearer.data.records import Row
from nearer.data.sources import SPLIT_NAMES
from nearer.errors import DataError
from nearer.types import Document, Query

DOCUMENT_ALIASES = {
    "id": ("_id", "id", "doc_id", "docid", "doc-id", "document_id", "corpus-id", "corpus_id", "pid"),
    "title": ("title",),
    "text": ("text", "contents", "content", "body", "passage", "document"),
}
QUERY_ALIASES = {
    "id": ("_id", "id", "query_id", "query-id", "qid"),
    "text": ("text", "query", "question"),
}
JUDGMENT_ALIASES = {
    "query_id": ("query-id", "query_id", "qid", "query"),
    "doc_id": ("corpus-id", "corpus_id", "doc_id", "doc-id", "docid", "document_id", "pid"),
    "score": ("score", "relevance", "rel", "grade", "label"),
}
_DEFAULT = Columns()
_QUERY_FIELDS = ("filter", "tags", "gold_spans")


def column_of(name: str, columns: Columns, aliases: Mapping[str, tuple[str, ...]], row: Row) -> str | None:
    """The column of `row` that plays the part `name` (a key of data.columns); None when it has none.

    Raises DataError when several columns could play it.
    """
    wanted: str = getattr(columns, name)
    if wanted in row.values or wanted != getattr(_DEFAULT, name):
        return wanted if wanted in row.values else None
    found = [alias for alias in aliases[name] if alias in row.values]
    if len(found) > 1:
        raise DataError(f"{' and '.join(found)} could both be the {name}", where=row.where, next_step=f"set data.columns.{name}")
    return found[0] if found else None


def _need(name: str, columns: Columns, aliases: Mapping[str, tuple[str, ...]], row: Row) -> tuple[str, Any]:
    column = column_of(name, columns, aliases, row)
    if column is None:
        raise DataError(
            f"no column {getattr(columns, name)!r}; the columns here: {', '.join(row.values) or 'none'}",
            where=row.where,
            next_step=f"set data.columns.{name} to the one that holds the {name.replace('_', ' ')}",
        )
    return column, row.values[column]


def as_id(value: Any, row: Row, what: str) -> str:
    """An id as text; whole numbers are taken as they are written.  Raises DataError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"the {what} id is {value!r}; text or a whole number is needed", where=row.where, next_step="mend that line")
    if not value.strip():
        raise DataError(f"the {what} id is empty", where=row.where, next_step="mend that line")
    return _encodable(value)


def _as_text(value: Any, row: Row, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{column!r} is {type(value).__name__}, not text", where=row.where, next_step="mend that line")
    return _encodable(value)


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold: JSON may carry half a surrogate pair, which no file or tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def plain(value: Any) -> Any:
    """A value as JSON can hold it: other types as text, NaN and infinity as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, Mapping):
        return {_encodable(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain(value.item()) if hasattr(value, "item") else str(value)


def document(row: Row, columns: Columns) -> Document:
    """The document that a row holds; columns without a part become metadata.  Raises DataError."""
    id_column, doc_id = _need("id", columns, DOCUMENT_ALIASES, row)
    text_column, text = _need("text", columns, DOCUMENT_ALIASES, row)
    title_column = column_of("title", columns, DOCUMENT_ALIASES, row)
    if title_column is None and columns.title != _DEFAULT.title:
        _need("title", columns, DOCUMENT_ALIASES, row)
    used = (id_column, text_column, title_column)
    return Document(
        as_id(doc_id, row, "document"),
        _as_text(text, row, text_column),
        _as_text(row.values[title_column], row, title_column) if title_column else "",
        {key: plain(value) for key, value in row.values.items() if key not in used},
    )


def query(row: Row, columns: Columns) -> Query:
    """The query that a row holds; columns without a part become metadata.  Raises DataError."""
    id_column, query_id = _need("id", columns, QUERY_ALIASES, row)
    text_column, text = _need("text", columns, QUERY_ALIASES, row)
    special = {name: _structured(row.values.get(name), row, name) for name in _QUERY_FIELDS}
    chosen, tags, spans = special["filter"], special["tags"], special["gold_spans"]
    if isinstance(tags, str):
        tags = [tag.strip() for tag in tags.split(",") if tag.strip()]
    if chosen is not None and not isinstance(chosen, Mapping):
        raise DataError("`filter` must be {field: value, …}", where=row.where, next_step="mend that line")
    if not isinstance(tags or [], list):
        raise DataError("`tags` must be a list of words", where=row.where, next_step="mend that line")
    if not isinstance(spans or [], list) or any(not isinstance(span, Mapping) for span in spans or []):
        raise DataError("`gold_spans` must be a list of objects", where=row.where, next_step="mend that line")
    used = (id_column, text_column, *_QUERY_FIELDS)
    return Query(
        as_id(query_id, row, "query"),
        _as_text(text, row, text_column),
        filter=plain(chosen) if chosen else None,
        tags=tuple(str(tag) for tag in tags or ()),
        gold_spans=tuple(plain(span) for span in spans or ()),
        metadata={key: plain(value) for key, value in row.values.items() if key not in used},
    )


def _structured(value: Any, row: Row, name: str) -> Any:
    """CSV cells hold lists and objects as JSON."""
    if not isinstance(value, str):
        return value
    if value[:1] not in ("{", "["):
        return value or None
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise DataError(f"`{name}` is not valid JSON", where=row.where, next_step="mend that line") from None


def grade(value: Any, where: str) -> int:
    """A relevance grade; below zero (TREC: junk) counts as 0.  Raises DataError unless a whole number."""
    try:
        number = float(value)
        if math.isfinite(number) and number == int(number) and not isinstance(value, bool):
            return max(0, int(number))
    except (TypeError, ValueError):
        pass
    raise DataError(
        f"the grade {value!r} is not a whole number", where=where, next_step="use 0 for not relevant and 1, 2, … for relevant"
    ) from None


def judgment(row: Row, columns: Columns) -> tuple[str, str, int]:
    """Query id, document id and grade of a row.  Raises DataError.

    Rows with two ids and nothing that could be a grade are positives (grade 1).
    """
    query_column, query_id = _need("query_id", columns, JUDGMENT_ALIASES, row)
    doc_column, doc_id = _need("doc_id", columns, JUDGMENT_ALIASES, row)
    ids = as_id(query_id, row, "query"), as_id(doc_id, row, "document")
    rest = set(row.values) - {query_column, doc_column, columns.split, columns.timestamp}
    if not rest and columns.score == _DEFAULT.score:
        return *ids, 1
    _, value = _need("score", columns, JUDGMENT_ALIASES, row)
    return *ids, grade(value, row.where)


def split_name(value: Any, where: str) -> str:
    """train, dev or test, also from names such as `validation`.  Raises DataError."""
    split = SPLIT_NAMES.get(str(value).strip().lower())
    if split is None:
        raise DataError(f"{value!r} is no split", where=where, next_step="use train, dev or test; or set data.columns.split to null")
    return split


def read_queries(path: Path, columns: Columns = _DEFAULT) -> dict[str, Query]:
    """All queries of a file, by id, in its order.  Raises DataError for duplicate ids and an empty file."""
    found: dict[str, Query] = {}
    places: dict[str, int] = {}
    for row in records.read(path):
        one = query(row, columns)
        if one.id in found:
            raise DataError(
                f"query id {one.id!r} stands on lines {places[one.id]} and {row.number}", where=row.where, next_step="keep one of them"
            )
        found[one.id] = one
        places[one.id] = row.number
    if not found:
        raise DataError("the file holds no queries", where=str(path), next_step="correct data.queries or data.folder")
    return found


def query_line(one: Query) -> dict[str, Any]:
    """The line of a `queries.jsonl`, as `read_queries` reads it back."""
    line: dict[str, Any] = {"_id": one.id, "text": one.text}
    if one.filter:
        line["filter"] = dict(one.filter)
    if one.tags:
        line["tags"] = list(one.tags)
    if one.gold_spans:
        line["gold_spans"] = [dict(span) for span in one.gold_spans]
    return line | {key: value for key, value in one.metadata.items() if key not in line}


def rows_of(path: Path, columns: Columns) -> Iterator[tuple[Row, str | None]]:
    """Rows of a file with the split that `columns.split` gives them (None without such a column)."""
    for row in records.read(path):
        value = row.values.get(columns.split) if columns.split else None
        yield row, None if value is None else split_name(value, row.where)
