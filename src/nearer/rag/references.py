"""Reference answers of queries, and answers that people graded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer.data import records
from nearer.data.fields import ANSWERS, answers_in
from nearer.data.records import Row
from nearer.data.sources import named
from nearer.types import Query

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Graded:
    """An answer that a person graded."""

    question: str
    answer: str
    references: tuple[str, ...]
    correct: bool


def references_of(query: Query) -> tuple[str, ...]:
    """The reference answers of a query; none where it has no such field."""
    texts: list[str] = []
    for name in ANSWERS:
        texts += _texts(query.metadata.get(name))
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def _texts(value: Any) -> list[str]:
    """The answers in a field, also in SQuAD's `{"text": […]}`; a text is one whatever it looks like."""
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, list | tuple):
        return [str(item) for item in value if isinstance(item, str | int | float)]
    if isinstance(value, str | int | float):
        return [str(value)]
    return []


def read_graded(name: str, root: Path) -> list[Graded]:
    """The answers of `rag.graded`.  Raises DataError for a line that cannot be used.

    Lines without `correct` were not graded and are left out, so that decide/answers.jsonl can be
    graded where it is most interesting.
    """
    path = named(root, name, "rag.graded")
    graded = []
    for row in records.read(path):
        if row.values.get("correct") not in (None, ""):
            graded.append(_graded(row))
    return graded


def _graded(row: Row) -> Graded:
    question, answer = row.values.get("question"), row.values.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise row.bad("a graded answer needs the texts `question` and `answer`")
    references = _texts(answers_in("references", row))
    if not references:
        raise row.bad("a graded answer needs `references`, the answers that are correct")
    correct = _TRUTHS.get(str(row.values["correct"]).strip().lower())
    if correct is None:
        raise row.bad("`correct` must be true or false")
    return Graded(question, answer, tuple(references), correct)
