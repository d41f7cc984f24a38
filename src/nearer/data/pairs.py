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
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nearer.data import records
from nearer.data.records import Row
from nearer.errors import DataError
from nearer.types import Example

QUERY = ("anchor", "query", "question", "sentence1", "text1")
POSITIVE = ("positive", "pos", "answer", "response", "document", "passage", "sentence2", "text2")
SCORE = ("score", "similarity", "label")
_NEGATIVE = re.compile(r"^(neg|negative|negatives|hard_negatives|(neg|negative)_?\d+)$")
_ASYMMETRIC = ("query", "question")  # names that promise a short text against a longer one
_SAMPLE = 2000


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column plays which part."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    score: str | None = None


def layout(row: Row) -> Layout:
    """Parts of a training file from the columns of its first row.  Raises DataError when they are unclear."""
    names = list(row.values)
    if missing := [part for part, known in (("query", QUERY), ("positive", POSITIVE)) if not any(n.lower() in known for n in names)]:
        raise DataError(
            f"no {' and no '.join(missing)} column; the columns here: {', '.join(names)}",
            where=row.where,
            next_step="name the columns query, positive, and optionally negative_1, … or score",
        )
    parts = {part: [n for n in names if n.lower() in known] for part, known in (("query", QUERY), ("positive", POSITIVE), ("score", SCORE))}
    negatives = tuple(name for name in names if _NEGATIVE.match(name.lower()))
    for part, found in parts.items():
        if len(found) > 1 and part != "score":
            raise DataError(f"{' and '.join(found)} could both be the {part}", where=row.where, next_step="rename or drop one of them")
    # `label` beside a score is usually a class; a score beside negatives has no meaning.
    scores = parts["score"] if len(parts["score"]) < 2 else [n for n in parts["score"] if n.lower() != "label"]
    if len(scores) > 1 or (scores and negatives):
        others = [*scores, *negatives]
        raise DataError(f"triplets or scored pairs? {' and '.join(others)} are both here", where=row.where, next_step="drop one of them")
    return Layout(parts["query"][0], parts["positive"][0], negatives, scores[0] if scores else None)


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
        raise DataError("the file holds no training examples", where=str(path), next_step="correct data.training")
    _refuse_swapped(found[:_SAMPLE], parts, path)
    return found


def _examples(row: Row, parts: Layout) -> Iterable[Example]:
    (query,) = _texts(row, parts.query, single=True)
    positives = _texts(row, parts.positive)
    negatives = tuple(text for name in parts.negatives for text in (_texts(row, name) if row.values.get(name) else ()))
    score = None
    if parts.score:
        try:
            score = float(row.values.get(parts.score, ""))
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{parts.score} {row.values.get(parts.score)!r} is not a finite number", where=row.where,
                            next_step="mend that line, or rename the column if it is no score")  # fmt: skip
    source = (f"{row.path.name}:{row.number}",)
    return (Example(positive, query=query, negatives=negatives, score=score, source=source) for positive in positives)


def _texts(row: Row, column: str, single: bool = False) -> list[str]:
    value: Any = row.values.get(column)
    texts = value if isinstance(value, list) and not single else [value]
    if not texts or any(not isinstance(text, str) or not text.strip() for text in texts):
        raise DataError(f"{column} is empty or no text", where=row.where, next_step="mend or drop that line")
    return list(texts)


def _refuse_swapped(sample: list[Example], parts: Layout, path: Path) -> None:
    if parts.query.lower() not in _ASYMMETRIC:
        return
    queries = median(len((one.query or "").split()) for one in sample)
    positives = median(len(one.positive.split()) for one in sample)
    if queries >= 20 and queries > 3 * positives:
        raise DataError(
            f"{parts.query} and {parts.positive} look swapped: the median {parts.query} has {queries:g} words, the {parts.positive} "
            f"{positives:g}",
            where=str(path),
            next_step=f"swap the two names; if it is meant so, call them anchor and {parts.positive}",
        )
