"""Measures of the context that a language model reads: what of the results fits a budget of tokens.

The context of a query are the pieces of its results, best first, until N tokens are full; the last
piece is cut.  A token is a word, a punctuation mark, or a character of scripts without blanks
(`nearer.text.token_spans`), so that contexts of different models compare.  Every measure lies in
[0, 1] and larger is better:

- `ContextRecall@Ntok`: share of the gold spans that stand whole in the context.  Without gold spans,
  of the relevant documents, each counting with the share of its piece that fits.
- `ContextPrecision@Ntok`: share of the context's tokens that stand in relevant pieces.
- `ContextNovelty@Ntok`: share of the context's word 3-grams that no earlier piece had; 1 less the
  redundancy.
- `ContextOrder@Ntok`: share of all pairs of a relevant and an irrelevant token in which the relevant
  one stands first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nearer.text import Span, folded_words, token_spans

#: Every measure of a context, as its name begins.
NAMES = ("ContextRecall", "ContextPrecision", "ContextNovelty", "ContextOrder")
_NAME = re.compile(rf"^(?P<base>{'|'.join(NAMES)})@(?P<tokens>[1-9]\d{{0,6}})tok$")
_GRAM = 3  # words


@dataclass(frozen=True)
class Piece:
    """A part of a document as it is searched: characters `start` to `end` of its content.

    `text` is what a language model reads of it: that slice, or the slice behind a title.
    """

    doc_id: str
    start: int
    end: int
    text: str

    @cached_property
    def tokens(self) -> int:
        """Tokens of the text."""
        return len(token_spans(self.text))

    def first(self, tokens: int) -> Piece:
        """The piece cut after so many tokens."""
        spans = token_spans(self.text)
        if tokens >= len(spans):
            return self
        stop = spans[tokens - 1][1] if tokens > 0 else 0
        before = max(0, len(self.text) - (self.end - self.start))
        covered = max(0, stop - before)
        return Piece(self.doc_id, self.start, self.start + covered, self.text[:stop])


@dataclass(frozen=True, slots=True)
class ContextEvidence:
    """What there is to read for one query, and what should be in it.

    `pieces` stand in the order of the results.  `gold` are the spans that answer, by document
    (characters of its content); `relevant` the relevant documents.
    """

    pieces: Sequence[Piece]
    relevant: frozenset[str]
    gold: Mapping[str, Sequence[Span]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the context, as much of it as fits; `share` is how much that is."""

    piece: Piece
    share: float
    relevant: bool


def is_context(measure: str) -> bool:
    """Whether a name is one of a measure of contexts."""
    return _NAME.match(measure) is not None


def budget_of(measure: str) -> int:
    """Tokens of a measure of contexts."""
    match = _NAME.match(measure)
    if match is None:
        raise ValueError(f"{measure} is no measure of contexts")
    return int(match["tokens"])


def value_of(measure: str, evidence: ContextEvidence) -> float:
    """A measure of one query's context."""
    parts = _context(evidence, budget_of(measure))
    base = measure.partition("@")[0]
    return _MEASURES[base](parts, evidence)


def pieces_within(pieces: Sequence[Piece], budget: int) -> list[Piece]:
    """The pieces that fit a budget of tokens, the last one cut."""
    fitting = []
    left = budget
    for piece in pieces:
        if left <= 0:
            break
        if piece.tokens:
            fitting.append(piece.first(left))
        left -= piece.tokens
    return fitting


def _context(evidence: ContextEvidence, budget: int) -> list[_Part]:
    parts = []
    whole = [piece for piece in evidence.pieces if piece.tokens]
    for piece, fitting in zip(whole, pieces_within(whole, budget), strict=False):
        share = fitting.tokens / piece.tokens
        parts.append(_Part(fitting, share, _is_relevant(piece, evidence)))
    return parts


def _is_relevant(piece: Piece, evidence: ContextEvidence) -> bool:
    """Is its document relevant and, where it is known where the answer lies, is it here?"""
    spans = evidence.gold.get(piece.doc_id)
    if not spans:
        return piece.doc_id in evidence.relevant
    return any(start < piece.end and piece.start < end for start, end in spans)


def _recall(parts: Sequence[_Part], evidence: ContextEvidence) -> float:
    if not any(evidence.gold.values()):
        return _recall_of_documents(parts, evidence)
    found = total = 0
    for doc_id, spans in evidence.gold.items():
        covered = _merged([part.piece for part in parts if part.piece.doc_id == doc_id])
        for start, end in spans:
            total += 1
            found += any(low <= start and end <= high for low, high in covered)
    return found / total


def _merged(pieces: Sequence[Piece]) -> list[Span]:
    """The characters that pieces of one document cover, overlapping ones as one stretch."""
    merged: list[Span] = []
    for start, end in sorted((piece.start, piece.end) for piece in pieces):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _recall_of_documents(parts: Sequence[_Part], evidence: ContextEvidence) -> float:
    if not evidence.relevant:
        return 0.0
    shares: dict[str, float] = {}
    for part in parts:
        doc_id = part.piece.doc_id
        if doc_id in evidence.relevant:
            shares[doc_id] = max(part.share, shares.get(doc_id, 0.0))
    return sum(shares.values()) / len(evidence.relevant)


def _precision(parts: Sequence[_Part], evidence: ContextEvidence) -> float:
    total = sum(part.piece.tokens for part in parts)
    relevant = sum(part.piece.tokens for part in parts if part.relevant)
    return relevant / total if total else 0.0


def _novelty(parts: Sequence[_Part], evidence: ContextEvidence) -> float:
    """Repetition within a piece is its author's: only what an earlier piece had counts."""
    seen: set[tuple[str, ...]] = set()
    new = total = 0
    for part in parts:
        grams = _grams(part.piece.text)
        total += len(grams)
        new += len(grams - seen)
        seen |= grams
    return new / total if total else 0.0


def _grams(text: str) -> set[tuple[str, ...]]:
    words = folded_words(text)
    last = max(1, len(words) - _GRAM + 1)
    return {tuple(words[start : start + _GRAM]) for start in range(last) if words}


def _order(parts: Sequence[_Part], evidence: ContextEvidence) -> float:
    """1 where nothing is irrelevant, 0 where nothing is relevant."""
    relevant = sum(part.piece.tokens for part in parts if part.relevant)
    irrelevant = sum(part.piece.tokens for part in parts if not part.relevant)
    if not relevant or not irrelevant:
        return 1.0 if relevant else 0.0
    behind = irrelevant
    first = 0
    for part in parts:
        if part.relevant:
            first += part.piece.tokens * behind
        else:
            behind -= part.piece.tokens
    return first / (relevant * irrelevant)


_MEASURES: Mapping[str, Callable[[Sequence[_Part], ContextEvidence], float]] = {
    "ContextRecall": _recall,
    "ContextPrecision": _precision,
    "ContextNovelty": _novelty,
    "ContextOrder": _order,
}
