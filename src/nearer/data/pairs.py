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
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from nearer.data import records
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
    queries, positives, scores = (
        [name for name in row.values if name.lower() in known] for known in (QUERY, POSITIVE, SCORE)
    )
    negatives = tuple(name for name in row.values if _NEGATIVE.fullmatch(name.lower()))
    parts = {"query": queries, "positive": positives}
    if missing := [part for part, found in parts.items() if not found]:
        what = f"no {' and no '.join(missing)} column; the columns here: {', '.join(row.values)}"
        raise row.bad(
            what, "name the columns query, positive, and optionally negative_1, … or score"
        )
    for part, found in parts.items():
        if len(found) > 1:
            raise row.bad(
                f"{' and '.join(found)} could both be the {part}", "rename or drop one of them"
            )
    if len(scores) > 1:  # `label` beside a score is usually a class
        scores = [name for name in scores if name.lower() != "label"]
    if len(scores) > 1 or (scores and negatives):  # a score beside negatives has no meaning
        raise row.bad(
            f"triplets or scored pairs? {' and '.join([*scores, *negatives])} are both here",
            "drop one of them",
        )
    return Layout(queries[0], positives[0], negatives, scores[0] if scores else None)


def read_training(path: Path) -> list[Example]:
    """Examples of texts; scores are kept as they stand (SICK's go from 1 to 5).

    Raises DataError, with file and line, for unclear or swapped-looking columns, empty texts,
    scores that are not finite numbers, and a file without rows.
    """
    found: list[Example] = []
    parts: Layout | None = None
    for row in records.read(path):
        parts = parts or layout(row)
        found.extend(_examples(row, parts))
    if parts is None or not found:
        raise bad("the file holds no training examples", path, "correct data.training")
    queries = median(count_words(one.query or "") for one in found[:_SAMPLE])
    positives = median(count_words(one.positive) for one in found[:_SAMPLE])
    if parts.query.lower() in _ASYMMETRIC and queries >= 20 and queries > 3 * positives:
        what = f"look swapped: the median {parts.query} has {queries:g} words, the {parts.positive} {positives:g}"
        mend = f"swap the two names; if it is meant so, call them anchor and {parts.positive}"
        raise bad(f"{parts.query} and {parts.positive} {what}", path, mend)
    return found


def _examples(row: Row, parts: Layout) -> Iterable[Example]:
    (query,) = _texts(row, parts.query, single=True)
    negatives = tuple(
        text for name in parts.negatives if row.values.get(name) for text in _texts(row, name)
    )
    score = None
    if parts.score:
        try:
            score = float(row.values.get(parts.score, ""))
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            what = f"{parts.score} {row.values.get(parts.score)!r} is not a finite number"
            raise row.bad(what, "mend that line, or rename the column if it is no score")
    source = (f"{row.path.name}:{row.number}",)
    return [
        Example(text, query=query, negatives=negatives, score=score, source=source)
        for text in _texts(row, parts.positive)
    ]


def _texts(row: Row, column: str, single: bool = False) -> list[str]:
    value: Any = row.values.get(column)
    texts = value if isinstance(value, list) and not single else [value]
    if not texts or any(not isinstance(text, str) or not text.strip() for text in texts):
        raise row.bad(f"{column} is empty or no text", "mend or drop that line")
    return texts
