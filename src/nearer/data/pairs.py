"""Plain training files: pairs, triplets and scored pairs of texts.

Columns are found by name, never by order, so that query and document cannot change places:

    query       anchor, query, question, sentence1, text1
    positive    positive, pos, answer, response, document, passage, sentence2, text2
    negatives   negative, negatives, neg, negative_1, negative_2, …   (text, or a list of texts)
    score       score, similarity, label
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from nearer.data import cells, records
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.text import count_words
from nearer.types import Example

QUERY = ("anchor", "query", "question", "sentence1", "text1")
POSITIVE = ("positive", "pos", "answer", "response", "document", "passage", "sentence2", "text2")
SCORE = ("score", "similarity", "label")
_NEGATIVE = re.compile(r"(neg|negative|negatives|hard_negatives|(neg|negative)_?\d+)")
_ASYMMETRIC = ("query", "question")  # names that promise a short text against a longer one
_SAMPLE = 2000


class Layout(NamedTuple):
    """Which column plays which part."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    score: str | None


def layout(row: Row) -> Layout:
    """Parts of a training file from the columns of its first row.  Raises DataError when they are unclear."""
    parts = {"query": _named(row, QUERY), "positive": _named(row, POSITIVE)}
    missing = [part for part, columns in parts.items() if not columns]
    if missing:
        what = f"no {' and no '.join(missing)} column; the columns here: {', '.join(row.values)}"
        raise row.bad(
            what, "name the columns query, positive, and optionally negative_1, … or score"
        )
    for part, columns in parts.items():
        if len(columns) > 1:
            what = f"{' and '.join(columns)} could both be the {part}"
            raise row.bad(what, "rename or drop one of them")
    scores = _named(row, SCORE)
    if len(scores) > 1:  # `label` beside a score is usually a class
        scores = [name for name in scores if name.lower() != "label"]
    negatives = tuple(name for name in row.values if _NEGATIVE.fullmatch(name.lower()))
    if len(scores) > 1 or (scores and negatives):  # a score beside negatives has no meaning
        both = " and ".join([*scores, *negatives])
        raise row.bad(f"triplets or scored pairs? {both} are both here", "drop one of them")
    (query,), (positive,) = parts.values()
    return Layout(query, positive, negatives, next(iter(scores), None))


def _named(row: Row, names: Collection[str]) -> list[str]:
    """The columns of a row that go by one of the names."""
    return [column for column in row.values if column.lower() in names]


def read_training(path: Path) -> list[Example]:
    """Examples of texts; scores are kept as they stand (SICK's go from 1 to 5).

    Raises DataError, with file and line, for unclear or swapped-looking columns, empty texts,
    scores that are not finite numbers, and a file without rows.
    """
    examples: list[Example] = []
    columns: Layout | None = None
    for row in records.read(path):
        columns = columns or layout(row)
        examples.extend(_examples(row, columns))
    if columns is None or not examples:
        raise bad("the file holds no training examples", path, "correct data.training")
    _refuse_swapped(examples[:_SAMPLE], columns, path)
    return examples


def _refuse_swapped(examples: Sequence[Example], columns: Layout, path: Path) -> None:
    """Raises DataError where what should be queries is much longer than what should be documents."""
    queries = median(count_words(example.query or "") for example in examples)
    positives = median(count_words(example.positive) for example in examples)
    promises_short = columns.query.lower() in _ASYMMETRIC
    if promises_short and queries >= 20 and queries > 3 * positives:
        query, positive = columns.query, columns.positive
        what = (
            f"look swapped: the median {query} has {queries:g} words, the {positive} {positives:g}"
        )
        mend = f"swap the two names; if it is meant so, call them anchor and {positive}"
        raise bad(f"{query} and {positive} {what}", path, mend)


def _examples(row: Row, columns: Layout) -> Iterator[Example]:
    """One example per positive text of a row."""
    query = _text(row, columns.query, row.values.get(columns.query))
    negatives: list[str] = []
    for column in columns.negatives:
        if row.values.get(column):
            negatives.extend(_texts(row, column))
    score = None
    if columns.score:
        score = _score(row, columns.score)
    for text in _texts(row, columns.positive):
        yield Example(
            text,
            query=query,
            negatives=tuple(negatives),
            score=score,
            source=(f"{row.path.name}:{row.number}",),
        )


def _score(row: Row, column: str) -> float:
    value = row.values.get(column)
    score = cells.as_float(value)
    if not math.isfinite(score):
        what = f"{column} {cells.shown(value)} is not a finite number"
        raise row.bad(what, "mend that line, or rename the column if it is no score")
    return score


def _texts(row: Row, column: str) -> list[str]:
    """The texts of a cell that holds one text or a list of them.  Raises DataError for no text."""
    value = row.values.get(column)
    if isinstance(value, list) and value:
        return [_text(row, column, text) for text in value]
    return [_text(row, column, value)]


def _text(row: Row, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise row.bad(f"{column} is empty or no text", "mend or drop that line")
    return value
