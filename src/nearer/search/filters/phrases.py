"""Words and phrases found in texts as whole words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nearer.text import fold, words


class _Phrase(NamedTuple):
    """A phrase as it was given, and its words where it is found in their own case only."""

    text: str
    cased: list[str] | None


class Phrases:
    """Words and phrases found in texts as whole words: from left to right, the longest, never overlapping."""

    def __init__(self, phrases: Iterable[tuple[str, bool]]) -> None:
        """`(phrase, cased)`: a cased one is found in the same upper and lower case only."""
        self._table: dict[tuple[str, ...], list[_Phrase]] = {}  # by folded words
        self._longest: Counter[str] = Counter()  # words of the longest phrase, by its first word
        for phrase, cased in phrases:
            written = words(phrase)
            key = tuple(map(fold, written))
            entry = _Phrase(phrase, written if cased else None)
            self._table.setdefault(key, []).append(entry)
            if key:
                first = key[0]
                self._longest[first] = max(self._longest[first], len(key))

    def find(self, written: Sequence[str]) -> list[str]:
        """The phrases in the `words` of a text, in its order, each as it was given."""
        folded = [fold(word) for word in written]
        phrases: list[str] = []
        start = 0
        while start < len(folded):
            stop, matched = self._longest_at(start, folded, written)
            phrases.extend(matched)
            start = stop
        return phrases

    def _longest_at(
        self, start: int, folded: Sequence[str], written: Sequence[str]
    ) -> tuple[int, list[str]]:
        """The position behind the longest match that begins at a word, and its phrases."""
        longest = self._longest.get(folded[start], 0)
        last = min(start + longest, len(folded))
        for stop in range(last, start, -1):
            key = tuple(folded[start:stop])
            matched = []
            for phrase in self._table.get(key, ()):
                if phrase.cased is None or phrase.cased == written[start:stop]:
                    matched.append(phrase.text)
            if matched:
                return stop, matched
        return start + 1, []
