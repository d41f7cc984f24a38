"""What is a clean example: which documents may never be a negative of a query, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.errors import DataError
from nearer.files import read_json, read_jsonl
from nearer.training.passages import negative_passages, positive_passage
from nearer.types import Example, Judgments, Passage, Query


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of near-identical documents and of near-identical training queries, by id."""

    documents: Mapping[str, frozenset[str]] = field(default_factory=dict)
    queries: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, documents: Iterable[Iterable[str]], queries: Iterable[Iterable[str]] = ()
    ) -> Duplicates:
        return cls(_by_member(documents), _by_member(queries))

    @classmethod
    def read(cls, path: Path) -> Duplicates:
        """From `check/near_duplicates.json`."""
        groups = read_json(path)
        return cls.of(groups["documents"], groups["queries"])


def _by_member(groups: Iterable[Iterable[str]]) -> dict[str, frozenset[str]]:
    by_member: dict[str, frozenset[str]] = {}
    for group in groups:
        members = frozenset(group)
        by_member.update(dict.fromkeys(members, members))
    return by_member


def known_positives(judgments: Judgments, duplicates: Duplicates) -> dict[str, frozenset[str]]:
    """Query id → documents that must never be its negative.

    Its own relevant documents, those of near-identical training queries, and every near-duplicate
    of any of them.  Relevant is every grade from 1 on, as the measures count: what is graded below
    `data.min_grade` is no positive of training, and no negative either.
    """
    relevant = {query_id: _relevant(judged) for query_id, judged in judgments.items()}
    known = {}
    for query_id in relevant:
        own: set[str] = set()
        for twin in duplicates.queries.get(query_id, {query_id}):
            own |= relevant.get(twin, set())
        near = [duplicates.documents.get(doc_id, frozenset()) for doc_id in own]
        known[query_id] = frozenset(own.union(*near))
    return known


def _relevant(judged: Mapping[str, int]) -> set[str]:
    return {doc_id for doc_id, grade in judged.items() if grade > 0}


#: Positions of a query, of its positive, and of its hard negatives.
TrainingRow = tuple[int, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Examples as positions into two lists of distinct texts: what sampler, collator and loss need.

    `rows` are (query, positive, negatives); `blocked[q]` are the documents that are never a
    negative of query q; `scores` are those of the rows, where the examples have scores.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    rows: tuple[TrainingRow, ...]
    blocked: tuple[frozenset[int], ...]
    scores: tuple[float | None, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def score(self, row: int) -> float:
        """The score of a row; NaN where none is known."""
        score = self.scores[row] if self.scores else None
        return math.nan if score is None else score


def build_training_set(
    examples: Sequence[Example],
    corpus: Any,
    queries: Mapping[str, Query],
    judgments: Judgments,
    duplicates: Duplicates,
) -> TrainingSet:
    """Resolve ids to texts.  Examples with `query_id` name ids, those with `query` carry texts.

    `corpus` is a Corpus.  Raises DataError for an id that neither the corpus nor the training
    queries know, naming the line of the example.
    """
    builder = _Builder(corpus, queries)
    for line, example in enumerate(examples, start=1):
        builder.add(example, f"examples.jsonl:{line}")
    return builder.build(known_positives(judgments, duplicates))


class _Builder:
    """Collects examples as positions of distinct texts."""

    def __init__(self, corpus: Any, queries: Mapping[str, Query]) -> None:
        self._corpus = corpus
        self._queries = queries
        self._query_texts: dict[str, int] = {}
        self._document_texts: dict[str, int] = {}
        #: Per document id: the positions of its text, or of the parts of it that are used.
        self._document_ids: dict[str, dict[Passage | str | None, int]] = {}
        #: Per position of a query: the ids of documents that texts were taken from as its positives.
        self._origins: dict[int, set[str]] = {}
        self._rows: list[TrainingRow] = []
        self._scores: list[float | None] = []
        #: Per position of a query: the ids that its text has, and the positives of its examples.
        self._query_ids: dict[int, set[str]] = {}
        self._positives: dict[int, set[int]] = {}

    def add(self, example: Example, where: str) -> None:
        query = self._query(example, where)
        by_id = example.query_id is not None
        positive = self._document(example.positive, example.positive_passage, by_id, where)
        if example.document is not None:
            self._origins.setdefault(query, set()).add(example.document)
            self._document_ids.setdefault(example.document, {})[example.positive] = positive
        negatives = []
        passages = example.negative_passages or (None,) * len(example.negatives)
        for name, passage in zip(example.negatives, passages, strict=True):
            negatives.append(self._document(name, passage, by_id, where))
        self._positives.setdefault(query, set()).add(positive)
        self._rows.append((query, positive, tuple(negatives)))
        self._scores.append(example.score)

    def build(self, known: Mapping[str, frozenset[str]]) -> TrainingSet:
        """`known` are the documents that must never be a negative, by query id."""
        blocked = [self._blocked(query, known) for query in range(len(self._query_texts))]
        return TrainingSet(
            tuple(self._query_texts),
            tuple(self._document_texts),
            tuple(self._rows),
            tuple(blocked),
            tuple(self._scores),
        )

    def _query(self, example: Example, where: str) -> int:
        if example.query_id is None:
            return self._query_texts.setdefault(str(example.query), len(self._query_texts))
        query = self._queries.get(example.query_id)
        if query is None:
            raise DataError(
                f"query {example.query_id!r} is not a training query",
                where=where,
                next_step="nearer mine --force",
            )
        position = self._query_texts.setdefault(query.text, len(self._query_texts))
        self._query_ids.setdefault(position, set()).add(example.query_id)
        return position

    def _document(self, name: str, passage: Passage | None, by_id: bool, where: str) -> int:
        """Position of a document, or of a passage of it, that is given by its id or by its text."""
        if not by_id:
            return self._document_texts.setdefault(name, len(self._document_texts))
        positions = self._document_ids.setdefault(name, {})
        if passage not in positions:
            text = self._text(name, passage, where)
            positions[passage] = self._document_texts.setdefault(text, len(self._document_texts))
        return positions[passage]

    def _text(self, doc_id: str, passage: Passage | None, where: str) -> str:
        if doc_id not in self._corpus:
            raise DataError(
                f"document {doc_id!r} is not in the corpus",
                where=where,
                next_step="nearer mine --force",
            )
        if passage is not None and passage.text is not None:
            return passage.text
        content: str = self._corpus.get(doc_id).content
        if passage is None:
            return content
        text = content[passage.start : passage.end]
        if not text.strip():
            raise DataError(
                f"document {doc_id!r} has no text from {passage.start} to {passage.end}",
                where=where,
                next_step="nearer mine --force",
            )
        return text

    def _blocked(self, query: int, known: Mapping[str, frozenset[str]]) -> frozenset[int]:
        never = set(self._positives[query])
        doc_ids = set(self._origins.get(query, ()))
        for query_id in self._query_ids.get(query, ()):
            doc_ids |= known.get(query_id, frozenset())
        for doc_id in doc_ids:
            never.update(self._document_ids.get(doc_id, {}).values())
        return frozenset(never)


def refuse_low_scores(examples: Iterable[Example], min_score: float | None) -> None:
    """Raises DataError for an example that training would take as a positive against its score."""
    for line, example in enumerate(examples, start=1):
        if example.score is None or (min_score is not None and example.score >= min_score):
            continue
        reason = "and mine.min_score is not set"
        if min_score is not None:
            reason = f"below mine.min_score {min_score:g}"
        raise DataError(
            f"the example has the score {example.score:g}, {reason}: "
            "training would pull its texts together",
            where=f"examples.jsonl:{line}",
            next_step="remove the line, or declare which scores make a positive: "
            "nearer run --set mine.min_score=0.5",
        )


def refuse_missing_scores(examples: Iterable[Example], loss: str) -> None:
    """Raises DataError for an example without a score; `loss` is the one that needs scores."""
    for line, example in enumerate(examples, start=1):
        if example.score is None:
            raise DataError(
                f"the loss {loss} learns from scores, and the example has none",
                where=f"examples.jsonl:{line}",
                next_step="give it a `score`, or set train.loss=auto",
            )


def read_examples(path: Path) -> list[Example]:
    """`mine/examples.jsonl`, ours or somebody else's.  Raises DataError with the line."""
    return [_parse(value, f"{path}:{line}") for line, value in enumerate(read_jsonl(path), start=1)]


def _parse(value: dict[str, Any], where: str) -> Example:
    if "positive" not in value or ("query_id" in value) == ("query" in value):
        raise DataError(
            "an example needs `positive` and one of `query_id` and `query`",
            where=where,
            next_step="mend the line",
        )
    negatives, source = value.get("negatives", []), value.get("source", [])
    if not isinstance(negatives, list) or not isinstance(source, list):
        raise DataError(
            "`negatives` and `source` are lists", where=where, next_step="mend the line"
        )
    weight = _number(value, "weight", where)
    if weight is not None and not 0 < weight <= 1:
        raise DataError(
            f"the weight {weight!r} is not above 0 and at most 1",
            where=where,
            next_step="mend the line",
        )
    return Example(
        positive=str(value["positive"]),
        query_id=_text(value, "query_id"),
        query=_text(value, "query"),
        negatives=tuple(map(str, negatives)),
        score=_number(value, "score", where),
        source=tuple(map(str, source)),
        weight=1.0 if weight is None else weight,
        positive_passage=positive_passage(value, where),
        negative_passages=negative_passages(value, len(negatives), where),
        document=_text(value, "document"),
    )


def _text(value: Mapping[str, Any], key: str) -> str | None:
    return str(value[key]) if key in value else None


def _number(value: Mapping[str, Any], key: str, where: str) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number):
        raise DataError(
            f"the {key} {number!r} is not a finite number", where=where, next_step="mend the line"
        )
    return float(number)
