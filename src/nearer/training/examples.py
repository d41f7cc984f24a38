"""What is a clean example: which documents may never be a negative of a query, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.errors import DataError
from nearer.files import read_json, read_jsonl
from nearer.types import Example, Judgments, Query


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
    return {
        member: frozen for group in groups for frozen in (frozenset(group),) for member in frozen
    }


def known_positives(judgments: Judgments, duplicates: Duplicates) -> dict[str, frozenset[str]]:
    """Query id → documents that must never be its negative.

    Its own relevant documents, those of near-identical training queries, and every near-duplicate
    of any of them.  Relevant is every grade from 1 on, as the measures count: what is graded below
    `data.min_grade` is no positive of training, and no negative either.
    """
    relevant = {
        query_id: {d for d, grade in judged.items() if grade > 0}
        for query_id, judged in judgments.items()
    }
    known = {}
    for query_id in relevant:
        own = set().union(
            *(relevant.get(twin, set()) for twin in duplicates.queries.get(query_id, {query_id}))
        )
        known[query_id] = frozenset(
            own.union(*(duplicates.documents.get(doc_id, frozenset()) for doc_id in own))
        )
    return known


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Examples as positions into two lists of distinct texts: what sampler, collator and loss need.

    `rows` are (query, positive, negatives); `blocked[q]` are the documents that are never a
    negative of query q.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    rows: tuple[tuple[int, int, tuple[int, ...]], ...]
    blocked: tuple[frozenset[int], ...]

    def __len__(self) -> int:
        return len(self.rows)


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
    known = known_positives(judgments, duplicates)
    texts: dict[str, int] = {}
    by_query: dict[str, int] = {}
    doc_ids: dict[str, int] = {}
    positives: dict[int, set[int]] = {}
    query_ids: dict[int, set[str]] = {}
    rows = []

    def document(value: str, is_id: bool, line: int) -> int:
        if is_id:
            if value not in doc_ids:
                if value not in corpus:
                    where = f"examples.jsonl:{line}"
                    raise DataError(
                        f"document {value!r} is not in the corpus",
                        where=where,
                        next_step="nearer mine --force",
                    )
                doc_ids[value] = texts.setdefault(corpus.get(value).content, len(texts))
            return doc_ids[value]
        return texts.setdefault(value, len(texts))

    for line, example in enumerate(examples, start=1):
        is_id = example.query_id is not None
        if is_id and example.query_id not in queries:
            raise DataError(
                f"query {example.query_id!r} is not a training query",
                where=f"examples.jsonl:{line}",
                next_step="nearer mine --force",
            )
        text = (
            queries[example.query_id].text if example.query_id is not None else str(example.query)
        )
        query = by_query.setdefault(text, len(by_query))
        if example.query_id is not None:
            query_ids.setdefault(query, set()).add(example.query_id)
        positive = document(example.positive, is_id, line)
        positives.setdefault(query, set()).add(positive)
        rows.append(
            (
                query,
                positive,
                tuple(document(negative, is_id, line) for negative in example.negatives),
            )
        )
    blocked = []
    for query in range(len(by_query)):
        never = set(positives[query])
        for query_id in query_ids.get(query, ()):
            never.update(doc_ids[d] for d in known.get(query_id, ()) if d in doc_ids)
        blocked.append(frozenset(never))
    return TrainingSet(tuple(by_query), tuple(texts), tuple(rows), tuple(blocked))


def refuse_low_scores(examples: Iterable[Example], min_score: float | None) -> None:
    """Raises DataError for an example that training would take as a positive against its score."""
    for line, example in enumerate(examples, start=1):
        if example.score is None or (min_score is not None and example.score >= min_score):
            continue
        what = f"the example has the score {example.score:g}, and mine.min_score is not set"
        if min_score is not None:
            what = (
                f"the example has the score {example.score:g}, below mine.min_score {min_score:g}"
            )
        raise DataError(
            f"{what}: training would pull its texts together",
            where=f"examples.jsonl:{line}",
            next_step="remove the line, or declare which scores make a positive: "
            "nearer run --set mine.min_score=0.5",
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
    score = value.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        raise DataError(
            f"the score {score!r} is not a finite number", where=where, next_step="mend the line"
        )
    return Example(
        positive=str(value["positive"]),
        query_id=str(value["query_id"]) if "query_id" in value else None,
        query=str(value["query"]) if "query" in value else None,
        negatives=tuple(str(negative) for negative in negatives),
        score=score,
        source=tuple(str(part) for part in source),
    )
