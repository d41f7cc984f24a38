"""Cutting by tokens alone: the whole document, and windows of a number of tokens."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import ClassVar

from nearer.search.chunkers.base import Cutter, Span, Spec, TokenSpans, UnknownSpecError

_NEAR = 8  # tokens that a window gives up to end at a space
_WINDOW = re.compile(r"([1-9]\d{0,5})(?::(\d{1,6}))?", re.ASCII)


class WholeDocument(Cutter):
    """Does not cut."""

    forms: ClassVar = ("document",)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.arguments:
            raise UnknownSpecError(spec.text)

    def split(self, text: str) -> list[Span]:
        return [(0, len(text))]


class TokenWindows(Cutter):
    """Windows of at most SIZE tokens, each sharing about OVERLAP (a quarter) with the one before."""

    forms: ClassVar = ("tokens:SIZE", "tokens:SIZE:OVERLAP")

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        arguments = _WINDOW.fullmatch(":".join(spec.arguments))
        if arguments is None:
            raise UnknownSpecError(spec.text)
        size, overlap = arguments.groups()
        self.size = int(size)
        self.overlap = self.size // 4 if overlap is None else int(overlap)
        if overlap is not None and self.overlap >= self.size:
            raise UnknownSpecError(spec.text)
        title = "+title" if spec.with_title else ""
        self.name = f"tokens:{self.size}:{self.overlap}{title}"

    def split(self, text: str) -> Iterator[Span]:
        return TokenizedText(text, self.spans).windows((0, len(text)), self.size, self.overlap)


class TokenizedText:
    """A text with the first character of each of its tokens: where it may be cut, and how long its parts are."""

    def __init__(self, text: str, spans: TokenSpans) -> None:
        self.text = text
        firsts = (start for start, _ in spans(text))
        self.starts = list(accumulate(firsts, max))

    def fits(self, part: Span, size: int) -> bool:
        """Whether a part has at most `size` tokens."""
        return bisect_left(self.starts, part[1]) - bisect_left(self.starts, part[0]) <= size

    def windows(self, part: Span, size: int, overlap: int = 0) -> Iterator[Span]:
        """Windows of at most `size` tokens of a part, each sharing about `overlap` with the one before."""
        begin, end = part
        first, last = bisect_left(self.starts, begin), bisect_left(self.starts, end)
        while last - first > size:
            stop = self._border(first, first + size)
            if stop >= last:
                break
            yield begin, self.starts[stop]
            first = self._border(first, max(stop - overlap, first + 1)) if overlap else stop
            begin = self.starts[first]
        yield begin, end

    def _border(self, after: int, at: int) -> int:
        """The token before which to cut: at most `at`, near a space if possible, never inside a character."""
        latest = None
        for token in range(at, max(after, at - _NEAR), -1):
            # Several tokens may share a character; the first of them is where it begins.
            first = bisect_left(self.starts, self.starts[token])
            if first <= after:
                continue
            if self._is_at_space(self.starts[first]):
                return first
            if latest is None:
                latest = first
        if latest is None:  # one character has more tokens than a window
            return bisect_right(self.starts, self.starts[at])
        return latest

    def _is_at_space(self, position: int) -> bool:
        around = self.text[position - 1 : position + 1]
        return any(character.isspace() for character in around)
