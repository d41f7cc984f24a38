"""The usable examples of a plain training file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from nearer.data.scored import pair_text
from nearer.text import folded_line
from nearer.training.material import POSITIVE_HELD_OUT
from nearer.types import Example

#: Why a scored pair is left out that dev or test has.
PAIR_HELD_OUT = "the scored pair is held out"

#: Says how a text collides with a held-out query, or None.
Collides = Callable[[str], str | None]


def usable_examples(
    examples: Sequence[Example], collides: Collides, min_score: float | None = None
) -> tuple[list[Example], dict[str, int], dict[str, int]]:
    """The usable examples of a plain training file.

    Left out are those whose query or positive collides with a held-out query, that score too low,
    repeat another or teach nothing; of the others those negatives that are held-out queries.
    Returns examples, dropped by reason, and collisions by kind.
    """
    sifter = _Sifter(collides, min_score)
    kept = []
    for example in examples:
        reason = sifter.reason_against(example)
        if reason:
            sifter.dropped[reason] += 1
        else:
            kept.append(sifter.without_held_out(example))
    return kept, dict(sifter.dropped), dict(sifter.leakage)


class _Sifter:
    """Remembers the pairs that it let through, and each text that it compared."""

    def __init__(self, collides: Collides, min_score: float | None) -> None:
        self.dropped: Counter[str] = Counter()
        self.leakage: Counter[str] = Counter()
        self._collides = collides
        self._min_score = min_score
        self._pairs: set[tuple[str, str]] = set()
        self._known: dict[str, str | None] = {}

    def reason_against(self, example: Example) -> str | None:
        """Why an example is left out; a pair that is let through is remembered."""
        query = str(example.query)
        if self._is_held_out(example):
            return PAIR_HELD_OUT
        pair = (folded_line(query), folded_line(example.positive))
        if self._leaks(query):
            return "query also held out"
        if _scores_below(example, self._min_score):
            return "score below mine.min_score"
        if pair in self._pairs:
            return "the same pair again"
        if pair[0] == pair[1]:
            return "query and positive are the same text"
        if self._leaks(example.positive):
            return POSITIVE_HELD_OUT
        self._pairs.add(pair)
        return None

    def _is_held_out(self, example: Example) -> bool:
        """Whether dev or test has this scored pair; that is how they were made, and no leakage."""
        if example.score is None:
            return False
        text = pair_text(str(example.query), example.positive, example.symmetric)
        return self._collides(text) is not None

    def without_held_out(self, example: Example) -> Example:
        """The example without the negatives that are held-out queries."""
        negatives = tuple(text for text in example.negatives if not self._leaks(text))
        lost = len(example.negatives) - len(negatives)
        if not lost:
            return example
        self.dropped["negative is also a held-out query"] += lost
        return replace(example, negatives=negatives)

    def _leaks(self, text: str) -> bool:
        if text not in self._known:
            self._known[text] = self._collides(text)
        collision = self._known[text]
        if collision:
            self.leakage[collision] += 1
        return bool(collision)


def _scores_below(example: Example, min_score: float | None) -> bool:
    return example.score is not None and min_score is not None and example.score < min_score
