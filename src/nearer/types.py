"""The values that stages hand to each other.  All frozen, none does I/O."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Document:
    """One item that can be found."""

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)

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
        return {d: g for d, g in self.judgments.get(query_id, {}).items() if g >= min_grade}


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
    #: seconds a query, in the order of `results`, where the system was timed a query at a time
    latencies: tuple[float, ...] = ()

    def top(self, query_id: str, k: int) -> list[str]:
        return [doc_id for doc_id, _ in self.results.get(query_id, ())[:k]]

    def rank(self, query_id: str, doc_id: str) -> int | None:
        """1-based rank of a document, or None when it was not returned."""
        for rank, (found, _) in enumerate(self.results.get(query_id, ()), start=1):
            if found == doc_id:
                return rank
        return None


def rank_hits(hits: Iterable[Hit], k: int | None = None) -> list[Hit]:
    """Hits in canonical order (float32 score, then id, both descending), at most `k` of them."""
    rounded = [(doc_id, float(np.float32(score))) for doc_id, score in hits]
    rounded.sort(key=lambda hit: (hit[1], hit[0]), reverse=True)
    return rounded if k is None else rounded[:k]


@dataclass(frozen=True, slots=True)
class Example:
    """One training example.

    With `query_id`, `positive` and `negatives` are document ids; with `query` (plain training
    files) they are texts.  `source` names where each part came from, e.g. `judged`, `dense#4`.
    """

    positive: str
    query_id: str | None = None
    query: str | None = None
    negatives: tuple[str, ...] = ()
    score: float | None = None
    source: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The line of `mine/examples.jsonl`."""
        line: dict[str, Any] = (
            {"query_id": self.query_id} if self.query_id is not None else {"query": self.query}
        )
        line |= {"positive": self.positive, "negatives": list(self.negatives)}
        if self.score is not None:
            line["score"] = self.score
        return line | {"source": list(self.source)}


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
    """Something `check` noticed.  `fatal` stops the run; `examples` are short readable lines."""

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
