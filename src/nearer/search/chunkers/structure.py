"""Cutting where a reader would: at headings, paragraphs, lines and the ends of sentences."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from nearer.search.chunkers.base import Cutter, Span, Spec
from nearer.search.chunkers.windows import TokenizedText

# A position to cut at is where the next text begins: patterns take the space before it.
_HEADING = re.compile(r"^#{1,6}[^\S\n].*\s*", re.MULTILINE)
_BLANK_LINE = re.compile(r"(?>\r\n?|\n)[^\S\r\n]*[\r\n\u2029]\s*")
_LINE = re.compile(r"[\r\n\u2028\u2029]\s*")
_CLOSING = r"[\"'”’»)\]」』）]*"
_SENTENCE = re.compile(
    rf"(?P<stop>[.…]+){_CLOSING}(?:[^\S\r\n]+|[^\S\r\n]*\r?\n[^\S\r\n]*)(?=\S)|[!?؟۔।॥։።]+{_CLOSING}\s+|[。！？｡]+{_CLOSING}\s*"
    rf"|{_BLANK_LINE.pattern}|[\r\n]\s*(?=(?:[-*•–]|\d{{1,3}}[.)]|#{{1,6}})[^\S\r\n])"
)
#: What a full stop follows without ending a sentence: titles, references, initials, numbers of a list.
_ABBREVIATION = re.compile(
    r"(?:\b(?i:e\.g|i\.e|cf|vs|viz|approx|mrs?|ms|mme|drs?|prof|st|sr|jr|gen|col|capt|rev|figs?|eqs?|sec|vol|art|refs?|nr|pp|al|vgl|bzw)"
    r"|\bNos?|\b[^\W\d_]|^\s*\d{1,3})\.\Z",
    re.MULTILINE,
)
_LONGEST_ABBREVIATION = 16  # characters before a full stop that are looked at


class Paragraphs(Cutter):
    """Every paragraph by itself, however short; one of more than SIZE tokens in windows."""

    forms: ClassVar = ("paragraphs:SIZE",)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.size = spec.size

    def split(self, text: str) -> Iterator[Span]:
        tokens = TokenizedText(text, self.spans)
        cuts = [match.end() for match in _BLANK_LINE.finditer(text) if match.end() < len(text)]
        for paragraph in pairwise((0, *cuts, len(text))):
            yield from tokens.windows(paragraph, self.size)


class Sentences(Cutter):
    """Whole sentences, packed together up to SIZE tokens; a longer one in windows."""

    forms: ClassVar = ("sentences:SIZE",)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.size = spec.size

    def levels(self, text: str) -> list[list[int]]:
        """Positions to cut at, from coarse to fine; a finer level is used only where a part does not fit."""
        return [sentence_ends(text)]

    def split(self, text: str) -> list[Span]:
        tokens = TokenizedText(text, self.spans)
        parts: list[Span] = [(0, len(text))]
        if not tokens.fits(parts[0], self.size):
            for cuts in self.levels(text):
                parts = _cut_finer(parts, cuts, tokens, self.size)
        return _packed(parts, tokens, self.size)


class Recursive(Sentences):
    """Cut at headings, then paragraphs, lines and sentences, no finer than SIZE tokens need."""

    forms: ClassVar = ("recursive:SIZE",)

    def levels(self, text: str) -> list[list[int]]:
        headings = list(_HEADING.finditer(text))
        just_after = {heading.end() for heading in headings}  # a heading stays with its text
        levels = [
            [heading.start() for heading in headings],
            [match.end() for match in _BLANK_LINE.finditer(text)],
            [match.end() for match in _LINE.finditer(text)],
            sentence_ends(text),
        ]
        return [[cut for cut in cuts if cut not in just_after] for cuts in levels]


def sentence_ends(text: str) -> list[int]:
    """Where the sentences behind the first begin."""
    ends = []
    for match in _SENTENCE.finditer(text):
        if match.end() < len(text) and not _goes_on(text, match):
            ends.append(match.end())
    return ends


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """Whether the full stop does not end its sentence: a small letter follows, or it ends an abbreviation."""
    if match["stop"] is None:
        return False
    if text[match.end()].islower():
        return True
    begin = max(0, match.start() - _LONGEST_ABBREVIATION)
    return _ABBREVIATION.search(text, begin, match.start() + 1) is not None


def _cut_finer(
    parts: Sequence[Span], cuts: Sequence[int], tokens: TokenizedText, size: int
) -> list[Span]:
    """Parts of more than `size` tokens cut at the positions that lie inside of them."""
    finer: list[Span] = []
    for start, end in parts:
        if tokens.fits((start, end), size):
            finer.append((start, end))
        else:
            inside = cuts[bisect_right(cuts, start) : bisect_left(cuts, end)]
            finer.extend(pairwise((start, *inside, end)))
    return finer


def _packed(parts: Sequence[Span], tokens: TokenizedText, size: int) -> list[Span]:
    """Parts in windows of at most `size` tokens, neighbours joined where they fit together."""
    packed: list[Span] = []
    for part in parts:
        for start, end in tokens.windows(part, size):
            if packed and tokens.fits((packed[-1][0], end), size):
                packed[-1] = (packed[-1][0], end)
            else:
                packed.append((start, end))
    return packed
