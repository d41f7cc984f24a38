"""Held-out queries among the training examples: a gain on them is memory, not search.

Mining leaves such examples out.  A file that somebody else wrote, or examples that were mined for
other splits, may hold them: this looks at what training really read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearer.data.heldout import HeldOut
from nearer.data.near import digest, normalise
from nearer.types import Example, Split

#: How an example repeats a held-out query.
EXACT, NEAR = "exact", "near-duplicate"


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """A test query that training examples hold, and how: `exact` or `near-duplicate`."""

    query_id: str
    text: str
    kind: str
    examples: int  # training examples that repeat it

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
    """What comparing the training examples with the held-out queries gave."""

    examples: int  # that were compared
    queries: tuple[TrainedOn, ...] = ()  # of test, which judge the model
    held_out: Mapping[str, int] = field(default_factory=dict)  # examples by kind, dev included

    @property
    def total(self) -> int:
        """How many examples repeat a dev or a test query."""
        return sum(self.held_out.values())

    def as_dict(self) -> dict[str, Any]:
        """`leakage` in decision.json."""
        return {
            "examples": self.examples,
            "queries": [query.as_dict() for query in self.queries],
        }


def find_leakage(
    examples: Iterable[Example],
    training: Mapping[str, str],
    held_out: Sequence[Split],
    near_duplicate: float,
) -> Leakage:
    """Held-out queries that are the query, or a positive in words, of a training example.

    `training` is query id → text of the training queries; an example that names a query by an id
    which only a held-out split has is an exact repeat.  `held_out` are dev and test; the queries of
    the split called `test` are listed one by one.  `near_duplicate` as in `check.near_duplicate`.
    """
    finder = _Finder(held_out, near_duplicate)
    n_examples = 0
    by_kind: Counter[str] = Counter()
    by_query: Counter[str] = Counter()
    kind_of: dict[str, str] = {}
    for example in examples:
        n_examples += 1
        repeated = finder.repeated(example, training)
        if repeated:
            by_kind[EXACT if EXACT in repeated.values() else NEAR] += 1
        for query_id, kind in repeated.items():
            by_query[query_id] += 1
            if kind_of.get(query_id) != EXACT:
                kind_of[query_id] = kind
    rows = []
    for split in held_out:
        for query in split.queries:
            if split.name == "test" and query.id in by_query:
                row = TrainedOn(query.id, query.text, kind_of[query.id], by_query[query.id])
                rows.append(row)
    return Leakage(n_examples, tuple(rows), dict(sorted(by_kind.items())))


class _Finder:
    """Finds the held-out queries that an example repeats; each text is looked at once."""

    def __init__(self, held_out: Sequence[Split], near_duplicate: float) -> None:
        queries = [query for split in held_out for query in split.queries]
        self._guard = HeldOut.of((query.text for query in queries), near_duplicate)
        self._ids = {query.id for query in queries}
        self._by_text: dict[int, list[str]] = defaultdict(list)  # as the guard names texts
        for query in queries:
            self._by_text[digest(normalise(query.text))].append(query.id)
        self._known: dict[str, dict[str, str]] = {}

    def repeated(self, example: Example, training: Mapping[str, str]) -> dict[str, str]:
        """Id of each held-out query that the example repeats → how."""
        repeated: dict[str, str] = {}
        for text in _texts(example, training):
            for query_id, kind in self._of_text(text).items():
                if repeated.get(query_id) != EXACT:
                    repeated[query_id] = kind
        named = example.query_id
        if named is not None and named in self._ids and named not in training:
            repeated[named] = EXACT
        return repeated

    def _of_text(self, text: str) -> Mapping[str, str]:
        if text not in self._known:
            queries: dict[str, str] = {}
            for text_hash, kind in self._guard.collisions(text):
                queries |= dict.fromkeys(self._by_text[text_hash], kind)
            self._known[text] = queries
        return self._known[text]


def _texts(example: Example, training: Mapping[str, str]) -> Iterator[str]:
    """What an example says in words: its query, and the positive where that is no document id."""
    if example.query is not None:
        yield example.query
        yield example.positive
    elif example.query_id in training:
        yield training[str(example.query_id)]
