"""Hard negatives that are really negative.

Positive-aware selection (NV-Retriever, arXiv 2407.15831, "TopK-PercPos" and "TopK-MarginPos"): a
candidate counts as a negative only when the model scores it below `margin` × the score of the
positive, and by `absolute_margin` below it, so that unlabelled relevant documents, which fill the
top of the list, are left alone.  Documents that somebody judged not relevant need no such guess:
they come first, whatever the model scores them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nearer.config import Mine
from nearer.training.material import UsableDocuments
from nearer.training.mining.category import CATEGORY
from nearer.types import Passage, Query, Run

#: (query id, document ids) → similarity of each under a model, float32 (n_documents,)
Similarity = Callable[[str, Sequence[str]], np.ndarray]
#: (query, document or passage) as texts → score of each by a reader of both, float32 (n_pairs,)
Reader = Callable[[Sequence[tuple[str, str]]], np.ndarray]
#: Source of a negative that somebody judged not relevant.
JUDGED_NEGATIVE = "judged 0"
TOO_CLOSE = "candidate scores too close to the positive"
TOO_CLOSE_FOR_SECOND = "candidate scores too close to the positive under mine.model"
NOT_BELOW = "the reranker does not score it below the positive"
OVER_QUOTA = "the quota of its source is used up"
#: How many candidates a reader gets per negative that is wanted.
_READ_PER_NEGATIVE = 3


class Passages(Protocol):
    """Says which part of a document stands for it, where chunks are searched."""

    def nearest(self, query_id: str, doc_id: str) -> Passage | None:
        """The chunk that finds the document for a query; None: the whole document."""

    def answering(self, query: Query, doc_id: str) -> Sequence[tuple[Passage | None, float, str]]:
        """The chunks that a positive stands for, with weights that sum to 1 and how they were chosen."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What search systems say of the training queries: everything that negatives are drawn by.

    `runs` are ranked lists; `similarity` is that of today's model and `second` that of
    `mine.model`; `reader` scores (query, text) pairs; without `passages` whole documents are taken.
    """

    runs: Sequence[Run] = ()
    similarity: Similarity | None = None
    second: Similarity | None = None
    reader: Reader | None = None
    passages: Passages | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """The documents that negatives of one query are taken from."""

    judged: list[str]  # judged 0
    mined: dict[str, str]  # document id → where it was found
    similar: dict[str, float]  # to the query, its positives included
    second: dict[str, float]  # the same under mine.model; empty without one


@dataclass(slots=True)
class Choice:
    """The negatives of one example while they are chosen.

    `pool` are mined candidates in the order of the draw; `refused` those that the reader turned
    down, None before it has read them.
    """

    judged: list[str]
    pool: list[str]
    wanted: int  # further ones
    sources: Mapping[str, str]
    similar: Mapping[str, float]
    refused: set[str] = field(default_factory=set)

    def to_read(self) -> list[str]:
        """The candidates that are worth reading."""
        return self.pool[: _READ_PER_NEGATIVE * self.wanted]


class Chooser:
    """Chooses negatives by the settings; counts what each rule turns down in `rejected`."""

    def __init__(self, evidence: Evidence, settings: Mine, rng: np.random.Generator) -> None:
        self.considered = 0
        self.rejected: Counter[str] = Counter()
        self._evidence = evidence
        self._settings = settings
        self._rng = rng

    def candidates(
        self, query_id: str, positives: Sequence[str], usable: UsableDocuments
    ) -> Candidates:
        """What may be a negative of a query with these positives."""
        judged: list[str] = []
        mined: dict[str, str] = {}
        if self._settings.negatives:
            judged = usable.judged_negatives(query_id)
            mined = self._mined(query_id, len(positives), usable)
        for doc_id in judged:
            mined.pop(doc_id, None)
        doc_ids = [*positives, *judged, *mined]
        similar = dict.fromkeys(doc_ids, 0.0)
        second: dict[str, float] = {}
        if len(doc_ids) > len(positives):
            similar = _scored(self._evidence.similarity, query_id, doc_ids) or similar
            second = _scored(self._evidence.second, query_id, doc_ids)
        return Candidates(judged, mined, similar, second)

    def _mined(self, query_id: str, n_positives: int, usable: UsableDocuments) -> dict[str, str]:
        """Candidates of a query; each counts once per positive, since each example looks at it."""
        settings = self._settings
        before = Counter(usable.dropped)
        mined = usable.candidates(
            query_id, self._evidence.runs, settings.candidates, settings.first_rank
        )
        refused = Counter(usable.dropped) - before
        self.considered += n_positives * (len(mined) + refused.total())
        for rule, count in refused.items():
            self.rejected[rule] += n_positives * count
        return mined

    def choice(self, positive: str, candidates: Candidates) -> Choice:
        """The draw for one positive, before anybody reads the candidates."""
        wanted = self._settings.negatives
        judged = self._hardest([candidates.judged], candidates.similar)[:wanted]
        searched: list[str] = []
        drawn: list[str] = []
        for doc_id in self._below(positive, candidates):
            of_category = _source(candidates.mined[doc_id]) == CATEGORY
            (drawn if of_category else searched).append(doc_id)
        # What was drawn from a category is less like the query than what was searched for, and
        # would never be among the hardest of both.
        pool = self._hardest([searched, drawn], candidates.similar)
        return Choice(
            _by_hardness(judged, candidates.similar),
            pool,
            wanted - len(judged),
            candidates.mined,
            candidates.similar,
        )

    def _below(self, positive: str, candidates: Candidates) -> list[str]:
        """The mined candidates that score clearly below the positive."""
        below = self._under(positive, list(candidates.mined), candidates.similar)
        self.rejected[TOO_CLOSE] += len(candidates.mined) - len(below)
        if not candidates.second:
            return below
        kept = self._under(positive, below, candidates.second)
        self.rejected[TOO_CLOSE_FOR_SECOND] += len(below) - len(kept)
        return kept

    def _under(
        self, positive: str, doc_ids: Sequence[str], similar: Mapping[str, float]
    ) -> list[str]:
        similarity = similar[positive]
        # margin × positive, also where that is below zero
        ceiling = similarity - (1.0 - self._settings.margin) * abs(similarity)
        ceiling = min(ceiling, similarity - self._settings.absolute_margin)
        return [doc_id for doc_id in doc_ids if similar[doc_id] < ceiling]

    def _hardest(self, groups: Sequence[Sequence[str]], similar: Mapping[str, float]) -> list[str]:
        """The `mine.pool` of each group that are most similar to the query, all in random order."""
        hardest: list[str] = []
        for doc_ids in groups:
            hardest += _by_hardness(doc_ids, similar)[: self._settings.pool]
        return [hardest[row] for row in self._rng.permutation(len(hardest))]

    def chosen(self, choice: Choice) -> tuple[list[str], list[str]]:
        """The negatives of an example, judged ones first, and where each came from."""
        drawn: list[str] = []
        spent: Counter[str] = Counter()
        for doc_id in choice.pool:
            if len(drawn) == choice.wanted:
                break
            if doc_id in choice.refused:
                continue
            source = _source(choice.sources[doc_id])
            quota = self._settings.quota.get(source)  # type: ignore[call-overload]
            if quota is not None and spent[source] >= quota:
                self.rejected[OVER_QUOTA] += 1
                continue
            spent[source] += 1
            drawn.append(doc_id)
        drawn = _by_hardness(drawn, choice.similar)
        sources = [JUDGED_NEGATIVE] * len(choice.judged)
        sources += [choice.sources[doc_id] for doc_id in drawn]
        return [*choice.judged, *drawn], sources


def _scored(
    similarity: Similarity | None, query_id: str, doc_ids: Sequence[str]
) -> dict[str, float]:
    """Document id → similarity; empty without a model."""
    if similarity is None:
        return {}
    return dict(zip(doc_ids, map(float, similarity(query_id, doc_ids)), strict=True))


def _source(found: str) -> str:
    """`dense` of `dense#4`."""
    return found.partition("#")[0]


def _by_hardness(doc_ids: Sequence[str], similar: Mapping[str, float]) -> list[str]:
    return sorted(doc_ids, key=lambda doc_id: (-similar[doc_id], doc_id))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader is asked about one example: its positive's text, and those of candidates."""

    query: str
    positive: str
    candidates: Mapping[str, str]  # document id → text

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The positive first."""
        yield self.query, self.positive
        for text in self.candidates.values():
            yield self.query, text


def read_candidates(reader: Reader, readings: Sequence[Reading], choices: Sequence[Choice]) -> int:
    """Mark the candidates that a reader does not score below the positive; returns how many.

    All pairs go to the reader at once, which sorts them into batches.
    """
    pairs: list[tuple[str, str]] = []
    for reading in readings:
        pairs.extend(reading.pairs())
    scores = reader(pairs).tolist() if pairs else []
    start = 0
    refused = 0
    for reading, choice in zip(readings, choices, strict=True):
        positive = scores[start]
        for offset, doc_id in enumerate(reading.candidates, start=start + 1):
            if scores[offset] >= positive and doc_id not in choice.refused:
                choice.refused.add(doc_id)
                refused += 1
        start += 1 + len(reading.candidates)
    return refused
