"""Finds the suspects among the positives of examples, and says why each is one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.embed.base import of_length_one
from nearer.text import folded_line, folded_words
from nearer.training.mining.noise import FEWEST_PAIRS, doubts
from nearer.training.mining.signals import JudgedPairs, Signals, Words, signals_of
from nearer.training.mining.suspects import Suspect
from nearer.types import Example

#: A document that so many queries share is looked at, and at least this share of all of them.
_MANY_QUERIES = 30
_MANY_SHARE = 0.05
#: Queries of one document have nothing in common when they are nearer to random queries than this
#: share of the way to the queries of other documents.
_IN_COMMON = 0.25
#: Texts that so many documents have word for word are boilerplate.
_COPIES = 3
#: Score of a suspect that only its text or its many queries speak against.
_BY_TEXT = 0.5
#: A signal speaks against a pair when this share of random documents fits better.
_AGAINST = 0.2
#: What a signal is called in a reason.
_NAMES = {
    "model": "the base model",
    "neighbours": "what the nearest training queries are answered by",
    "learned": "what the other pairs teach",
    "others": "the other positives of the query",
    "words": "BM25",
}


@dataclass(frozen=True, slots=True)
class Space:
    """What is known of queries and documents, by the names that examples have for them.

    `queries` float32 (n_queries, dimension) in the order of `query_texts` (name → text);
    `documents` float32 (n_documents, dimension); `position` and `text` take the name of a
    positive; `copies` are groups of near-identical documents, by name.
    """

    query_texts: Mapping[str, str]
    queries: np.ndarray
    documents: np.ndarray
    position: Callable[[str], int]
    text: Callable[[str], str]
    words: Words | None = None
    copies: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Doubtful:
    """The suspects, the most probable first, and how they were found (`noise` of the summary)."""

    suspects: tuple[Suspect, ...]
    noise: Mapping[str, Any]


def doubtful(examples: Sequence[Example], space: Space, rng: np.random.Generator) -> Doubtful:
    """Suspects among the distinct (query, positive) pairs of examples."""
    pairs: dict[tuple[str, str], None] = {}
    for example in examples:
        pairs.setdefault((str(example.query_id or example.query), example.positive))
    finder = _Finder(list(pairs), space)
    finder.compare(rng)
    finder.read_texts()
    finder.look_at_hubs()
    by_id = bool(examples) and examples[0].query_id is not None
    return Doubtful(tuple(finder.suspects(by_id)), finder.noise)


class _Finder:
    """Collects reasons against pairs, by their position."""

    def __init__(self, pairs: Sequence[tuple[str, str]], space: Space) -> None:
        self.noise: dict[str, Any] = {"pairs": len(pairs)}
        self._pairs = pairs
        self._space = space
        self._scores: dict[int, float] = {}
        self._reasons: dict[int, list[str]] = defaultdict(list)
        self._query_rows = {name: row for row, name in enumerate(space.query_texts)}

    def compare(self, rng: np.random.Generator) -> None:
        """With random pairs, by all signals together."""
        if len(self._pairs) < FEWEST_PAIRS:
            self.noise["not_tried"] = f"fewer than {FEWEST_PAIRS} pairs to compare"
            return
        rows = []
        for query, positive in self._pairs:
            rows.append((self._query_rows[query], self._space.position(positive)))
        table = np.array(rows, np.int64)
        judged = JudgedPairs(self._space.queries, self._space.documents, table, self._space.words)
        signals = signals_of(judged, rng)
        if not len(signals.random):
            self.noise["not_tried"] = "every query has the same positives: no random pairs"
            return
        found = doubts(signals, table[:, 0])
        self.noise["share"] = round(found.share, 4)
        self.noise["signals"] = list(signals.names)
        for row in np.flatnonzero(found.accused).tolist():
            self._scores[row] = float(found.probability[row])
            self._reasons[row] += _against(signals, row)

    def read_texts(self) -> None:
        """Positives without a word, and those whose text many documents have."""
        reasons: dict[str, str | None] = {}
        for row, (_, positive) in enumerate(self._pairs):
            if positive not in reasons:
                reasons[positive] = self._against_text(positive)
            reason = reasons[positive]
            if reason:
                self._doubt(row, reason)

    def _against_text(self, positive: str) -> str | None:
        text = self._space.text(positive)
        if not folded_words(text):
            return "the positive has no word"
        group = self._space.copies.get(positive, frozenset())
        if len(group) < _COPIES:
            return None
        folded = folded_line(text)
        copies = sum(folded_line(self._space.text(name)) == folded for name in group)
        if copies < _COPIES:
            return None
        return f"boilerplate: {copies} documents have this very text"

    def look_at_hubs(self) -> None:
        """Documents that very many queries share which have nothing else in common."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, (_, positive) in enumerate(self._pairs):
            rows[positive].append(row)
        n_queries = len({query for query, _ in self._pairs})
        many = max(_MANY_QUERIES, _MANY_SHARE * n_queries)
        hubs = {name: own for name, own in rows.items() if len(own) >= many}
        others = [own for name, own in rows.items() if name not in hubs and len(own) > 1]
        if not hubs or not others:
            return
        everything = self._nearness(range(len(self._pairs)))
        usual = float(np.mean([self._nearness(own) for own in others]))
        threshold = everything + _IN_COMMON * max(0.0, usual - everything)
        for own in hubs.values():
            if self._nearness(own) <= threshold:
                for row in own:
                    reason = f"{len(own)} queries with nothing in common share this positive"
                    self._doubt(row, reason)

    def _nearness(self, rows: Sequence[int]) -> float:
        """Mean cosine similarity between the queries of pairs."""
        vectors = self._space.queries[[self._query_rows[self._pairs[row][0]] for row in rows]]
        unit = of_length_one(vectors)
        total = float(np.square(unit.sum(axis=0, dtype=np.float64)).sum())
        count = len(rows)
        return (total - count) / max(1, count * (count - 1))

    def _doubt(self, row: int, reason: str) -> None:
        self._scores[row] = max(_BY_TEXT, self._scores.get(row, 0.0))
        self._reasons[row].append(reason)

    def suspects(self, by_id: bool) -> list[Suspect]:
        """The most probable first."""
        self.noise["suspects"] = len(self._scores)
        reasons = Counter(reason for own in self._reasons.values() for reason in map(_kind, own))
        self.noise["reasons"] = dict(reasons.most_common())
        suspects = []
        for row in sorted(self._scores, key=lambda row: (-self._scores[row], row)):
            query, positive = self._pairs[row]
            text = self._space.query_texts[query]
            query_id = query if by_id else None
            reason = tuple(self._reasons[row])
            suspects.append(Suspect(text, positive, self._scores[row], reason, query_id))
        return suspects


def _against(signals: Signals, row: int) -> list[str]:
    """What the signals say against a pair, the worst first."""
    shares = []
    for column, name in enumerate(signals.names):
        better = float((signals.random[:, column] >= signals.judged[row, column]).mean())
        shares.append((better, name))
    shares.sort(reverse=True)
    spoken = [entry for entry in shares if entry[0] >= _AGAINST] or shares[:1]
    return [f"{_NAMES[name]}: {share:.0%} of random documents fit better" for share, name in spoken]


def _kind(reason: str) -> str:
    """A reason without its figures, to count by."""
    if reason.endswith("fit better"):
        return reason.partition(":")[0]
    if reason.startswith("boilerplate"):
        return "boilerplate"
    if reason.endswith("share this positive"):
        return "one positive of very many queries"
    return reason
