"""Words and phrases found in texts as whole words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from nearer.text import fold, words


class Phrases:
    """Words and phrases found in texts as whole words: from left to right, the longest, never overlapping."""

    def __init__(self, phrases: Iterable[tuple[str, bool]]) -> None:
        """`(phrase, cased)`: a cased one is found in the same upper and lower case only."""
        #: Folded words → each phrase that has them, and how it is written where that matters.
        self._table: dict[tuple[str, ...], list[tuple[str, list[str] | None]]] = {}
        self._longest: Counter[str] = Counter()  # words of the longest phrase, by its first word
        for phrase, cased in phrases:
            written = words(phrase)
            key = tuple(map(fold, written))
            self._table.setdefault(key, []).append((phrase, written if cased else None))
            if key:
                self._longest[key[0]] = max(self._longest[key[0]], len(key))

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
        for stop in range(min(start + longest, len(folded)), start, -1):
            matched = []
            for phrase, cased in self._table.get(tuple(folded[start:stop]), ()):
                if cased is None or cased == written[start:stop]:
                    matched.append(phrase)
            if matched:
                return stop, matched
        return start + 1, []
