"""Passages in the lines of `mine/examples.jsonl`: which part of a document an example is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.errors import DataError
from nearer.types import Passage


def positive_passage(value: Mapping[str, Any], where: str) -> Passage | None:
    """Where in its document the positive of a line lies; None: it is the whole document.

    Raises DataError for what is no span.
    """
    return _passage(value.get("positive_span"), value.get("positive_text"), where)


def negative_passages(
    value: Mapping[str, Any], count: int, where: str
) -> tuple[Passage | None, ...]:
    """The same for the negatives: `count` of them, or none where the line names no spans."""
    spans = value.get("negative_spans")
    if spans is None:
        return ()
    texts = value.get("negative_texts") or [None] * count
    if not isinstance(spans, list) or not isinstance(texts, list):
        spans, texts = [], []
    if len(spans) != count or len(texts) != count:
        raise DataError(
            "`negative_spans` and `negative_texts` have one entry per negative",
            where=where,
            next_step="mend the line",
        )
    return tuple(_passage(span, text, where) for span, text in zip(spans, texts, strict=True))


def _passage(span: Any, text: Any, where: str) -> Passage | None:
    """Raises DataError for what is no span of characters, and for a text that is none."""
    if span is None:
        return None
    is_pair = isinstance(span, list) and len(span) == 2
    if not is_pair or not all(type(part) is int for part in span) or not 0 <= span[0] < span[1]:
        raise DataError(
            f"the span {span!r} is not [start, end] in characters",
            where=where,
            next_step="mend the line",
        )
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise DataError(
            f"the text {text!r} of a passage is no text", where=where, next_step="mend the line"
        )
    return Passage(span[0], span[1], text)
