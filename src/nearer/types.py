"""The values that stages hand to each other.  All frozen, none does I/O."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

Metadata = Mapping[str, Any]
#: query id → document id → grade (0 = judged not relevant, 1.. = relevant, higher is better)
Judgments = Mapping[str, Mapping[str, int]]
#: The largest grade there is.  trec_eval's memory grows with the grade; what is larger is a time or a key.
MAX_GRADE = 1000

NO_METADATA: Metadata = MappingProxyType({})
SPLITS = ("train", "dev", "test")


#: Characters that leave no mark although Unicode counts them as letters, marks or symbols.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_VARIATION_SELECTORS = ("\u180b", "\u180f"), ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef")


def is_blank(text: str) -> bool:
    """Whether nothing in a text can be seen: blanks, controls, zero-width and filler characters only."""
    return all(_is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    if category[0] == "Z" or category in ("Cc", "Cf") or character in _FILLERS:
        return True
    return any(first <= character <= last for first, last in _VARIATION_SELECTORS)


def field_name(name: str) -> str:
    """The name of a metadata field in the one form in which names are compared: Unicode NFC.

    Some systems (macOS) write an accented letter as two characters; both mean one field.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def by_field_name(values: Metadata) -> Metadata:
    """Fields under their names in NFC; the same object where they are in it already."""
    if all(field_name(str(name)) == name for name in values):
        return values
    return {field_name(str(name)): value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Document:
    """One item that can be found."""

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", by_field_name(self.metadata))

    @property
    def content(self) -> str:
        """Title and text as one string: what encoders and BM25 see (the BEIR convention)."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """One question.  `filter` is what the application declares (field → value), `tags` name slices."""

    id: str
    text: str
    filter: Metadata | None = None
    tags: tuple[str, ...] = ()
    gold_spans: tuple[Mapping[str, Any], ...] = ()
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", by_field_name(self.metadata))
        if self.filter:
            object.__setattr__(self, "filter", by_field_name(self.filter))


#: Begins the ids of queries that people typed; drawn anew by every process, so that no document has it.
_TYPED = f"typed-{uuid.uuid4().hex}"


def typed_query(text: str, filter: Metadata | None = None, number: int = 0) -> Query:
    """A query that somebody typed: never an item, whatever the ids of the documents are.

    In item-to-item data a document with the id of the query is left out of its results.  Queries
    of one search need different numbers.
    """
    return Query(f"{_TYPED}-{number}", text, filter)


@dataclass(frozen=True, slots=True)
class Split:
    """Queries and their judgments: `train`, `dev` or (in `decide` alone) `test`."""

    name: str
    queries: tuple[Query, ...]
    judgments: Judgments

    def __len__(self) -> int:
        return len(self.queries)

    def relevant(self, query_id: str, min_grade: int = 1) -> dict[str, int]:
        """Documents judged at least `min_grade` for the query, with their grades."""
        judged = self.judgments.get(query_id, {})
        return {doc_id: grade for doc_id, grade in judged.items() if grade >= min_grade}


Hit = tuple[str, float]  # (document id, score)


@dataclass(frozen=True, slots=True)
class Run:
    """Ranked results of one system: query id → hits, best first.

    Scores are float32 values and ties stand in descending order of document id, which is how
    trec_eval breaks them (it reads scores as C floats and sorts by score, then `docno`, both
    descending), so that the ranks shown here and the ranks measured there are the same ranks.
    """

    name: str
    results: Mapping[str, Sequence[Hit]]
    seconds: float = 0.0
    #: seconds per query, in the order of `results`, where the system was timed one query at a time
    latencies: tuple[float, ...] = ()

    def top(self, query_id: str, k: int) -> list[str]:
        return [doc_id for doc_id, _ in self.results.get(query_id, ())[:k]]

    def rank(self, query_id: str, doc_id: str) -> int | None:
        """1-based rank of a document, or None when it was not returned."""
        for rank, (hit_id, _) in enumerate(self.results.get(query_id, ()), start=1):
            if hit_id == doc_id:
                return rank
        return None


def rank_hits(hits: Iterable[Hit], k: int | None = None) -> list[Hit]:
    """Hits in canonical order (float32 score, then id, both descending), at most `k` of them."""
    rounded = [(doc_id, float(np.float32(score))) for doc_id, score in hits]
    rounded.sort(key=lambda hit: (hit[1], hit[0]), reverse=True)
    return rounded if k is None else rounded[:k]


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a document that is searched as one: characters `start` to `end` of its content.

    `text` is what the model reads where that is not the plain slice (a title stands before it, or a
    chunker of the user's own made it).
    """

    start: int
    end: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One training example.

    With `query_id`, `positive` and `negatives` are document ids; with `query` (plain training
    files) they are texts.  `source` names where each part came from, e.g. `judged`, `dense#4`.
    `weight` (0 to 1) is how much the example counts beside the others.
    Where chunks are searched, `positive_passage` and `negative_passages` (one per negative) say
    which part of each document is meant; without them it is the whole document.
    `document` is the id of the document that a positive given as a text was taken from: no part of
    it is ever a negative of the query.
    """

    positive: str
    query_id: str | None = None
    query: str | None = None
    negatives: tuple[str, ...] = ()
    score: float | None = None
    source: tuple[str, ...] = ()
    weight: float = 1.0
    positive_passage: Passage | None = None
    negative_passages: tuple[Passage | None, ...] = ()
    document: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The line of `mine/examples.jsonl`."""
        line: dict[str, Any] = {}
        if self.query_id is not None:
            line["query_id"] = self.query_id
        else:
            line["query"] = self.query
        line["positive"] = self.positive
        line["negatives"] = list(self.negatives)
        if self.score is not None:
            line["score"] = self.score
        if self.weight != 1.0:
            line["weight"] = self.weight
        if self.positive_passage is not None:
            line["positive_span"] = _span(self.positive_passage)
            if self.positive_passage.text is not None:
                line["positive_text"] = self.positive_passage.text
        if any(self.negative_passages):
            line["negative_spans"] = [_span(passage) for passage in self.negative_passages]
            texts = [passage and passage.text for passage in self.negative_passages]
            if any(texts):
                line["negative_texts"] = texts
        if self.document is not None:
            line["document"] = self.document
        line["source"] = list(self.source)
        return line


def _span(passage: Passage | None) -> list[int] | None:
    """A passage in `examples.jsonl`; None is the whole document."""
    return None if passage is None else [passage.start, passage.end]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci": [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `check` noticed.  `fatal` stops the run; `examples` are short readable lines."""

    code: str
    message: str
    count: int = 0
    fatal: bool = False
    examples: tuple[str, ...] = ()
    where: str | None = None
    next_step: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "count": self.count,
            "fatal": self.fatal,
            "examples": list(self.examples),
            "where": self.where,
            "next": self.next_step,
            "figures": dict(self.figures),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Finding:
        """What `as_dict` wrote."""
        return cls(
            value["code"],
            value["message"],
            value["count"],
            value["fatal"],
            tuple(value["examples"]),
            value["where"],
            value["next"],
            value["figures"],
        )
