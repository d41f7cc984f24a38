"""Test queries among the training examples: a gain on them is memory, not search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nearer.data.heldout import HeldOut
from nearer.data.near import Shingler, jaccard, normalise
from nearer.types import Example, Query, Split


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """A test query that training examples hold, and how: `exact` or `near-duplicate`."""

    query_id: str
    text: str
    kind: str
    examples: int  # texts of the training examples that repeat it

    def as_dict(self) -> dict[str, Any]:
        """A row of `leakage.queries` in decision.json."""
        return {
            "query_id": self.query_id,
            "kind": self.kind,
            "examples": self.examples,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Leakage:
    """What comparing the training examples with the test queries gave."""

    examples: int  # that were compared
    queries: tuple[TrainedOn, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """`leakage` in decision.json."""
        return {
            "examples": self.examples,
            "queries": [query.as_dict() for query in self.queries],
        }


def find_leakage(
    examples: Iterable[Example],
    training: Mapping[str, str],
    test: Split,
    near_duplicate: float,
) -> Leakage:
    """Test queries that are the query or the positive of a training example.

    `training` is query id → text of the training queries; an example that names a query by an id
    which only test has is an exact repeat.  `near_duplicate` as in `check.near_duplicate`.
    """
    finder = _Finder(test, near_duplicate)
    count = 0
    for example in examples:
        count += 1
        if example.query_id in finder.by_id and example.query_id not in training:
            finder.note(finder.by_id[str(example.query_id)], "exact")
        for text in _texts(example, training):
            finder.look_at(text)
    return Leakage(count, tuple(finder.found()))


def _texts(example: Example, training: Mapping[str, str]) -> Iterator[str]:
    """What an example says in words: its query, and the positive where that is no document id."""
    if example.query is not None:
        yield example.query
        yield example.positive
    elif example.query_id in training:
        yield training[str(example.query_id)]


class _Finder:
    """Remembers which test queries were met, each text being looked at once."""

    def __init__(self, test: Split, near_duplicate: float) -> None:
        self.by_id = {query.id: query for query in test.queries}
        self._queries = test.queries
        self._guard = HeldOut.of((query.text for query in test.queries), near_duplicate)
        self._shingle = Shingler()
        self._known: dict[str, tuple[Query, str] | None] = {}
        self._counts: Counter[str] = Counter()
        self._kinds: dict[str, str] = {}

    def look_at(self, text: str) -> None:
        if text not in self._known:
            kind = self._guard.collides(text)
            self._known[text] = None if kind is None else (self._nearest(text), kind)
        match = self._known[text]
        if match is not None:
            self.note(*match)

    def note(self, query: Query, kind: str) -> None:
        self._counts[query.id] += 1
        if self._kinds.get(query.id) != "exact":
            self._kinds[query.id] = kind

    def found(self) -> Iterator[TrainedOn]:
        """In the order of the split."""
        for query in self._queries:
            if query.id in self._counts:
                kind = self._kinds[query.id]
                yield TrainedOn(query.id, query.text, kind, self._counts[query.id])

    def _nearest(self, text: str) -> Query:
        """The test query that a text repeats."""
        own = self._shingle(normalise(text))

        def likeness(query: Query) -> float:
            normal = normalise(query.text)
            if normal == normalise(text):
                return 2.0
            return jaccard(own, self._shingle(normal))

        return max(self._queries, key=likeness)
