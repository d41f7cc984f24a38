"""What every reader of a format gives, and how bytes become text."""

from __future__ import annotations

import codecs
from typing import NamedTuple

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Page(NamedTuple):
    """Title (empty where the content has none) and text; headings stand as in Markdown."""

    title: str
    text: str


class UnreadableError(Exception):
    """A file is no document; the message is the reason, the same for every file like it."""


def decoded(content: bytes, declared: str | None = None) -> str:
    """Bytes as text: by their mark, as UTF-8, or by the encoding that they declare.

    Raises UnreadableError.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _with(content, encoding)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        if declared is None:
            raise UnreadableError("no UTF-8 text") from None
        text = _with(content, declared)
    if "\0" in text:
        raise UnreadableError("no text but binary data")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _with(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except (UnicodeError, LookupError):
        raise UnreadableError(f"no {encoding} text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
