"""What every store can hold: texts and metadata are written so that they come back exactly.

PostgreSQL keeps no NUL character, UTF-8 no half of a surrogate pair, JSON no NaN and no infinity.
They are stored as escapes that begin with U+001A (SUBSTITUTE), and a U+001A of a text is escaped as
well, so that `unpack` restores every value.  Ids stand in keys and indexes of the engines: they are
never escaped, and a document whose id cannot be a key is refused by name, before it is embedded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from nearer.errors import StoreError
from nearer.types import Document, Metadata

#: Bytes of an id in UTF-8: the index pages of PostgreSQL take 2,704, the number of a chunk included.
LONGEST_ID = 2_048

_ESCAPE = "\x1a"
_UNSAFE = re.compile("[\0\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")
#: Numbers that JSON lacks, and large ones, of which a store may make another whole number.
_NUMBER = re.compile(r"\x1a(nan|-?inf|-?\d(?:\.\d+)?e[+]\d+)")
_LARGE = 1e16  # from here on Python writes a float with an exponent


def pack(text: str) -> str:
    """A text as every store holds it; `unpack` gives it back."""
    return _UNSAFE.sub(lambda match: f"{_ESCAPE}{ord(match.group()):04x}", text)


def unpack(text: str) -> str:
    """The text that `pack` was given."""
    if _ESCAPE not in text:
        return text
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def pack_metadata(metadata: Metadata) -> str:
    """Metadata as JSON that every store holds; `unpack_metadata` gives it back."""
    return json.dumps(_packed(metadata), ensure_ascii=False, allow_nan=False)


def unpack_metadata(text: str) -> Any:
    """The metadata that `pack_metadata` was given."""
    return _unpacked(json.loads(text))


def same_metadata(stored: Metadata, given: Metadata) -> bool:
    """Whether a store gave back what was put in: numbers by value, NaN as equal to itself."""
    return bool(json.loads(pack_metadata(stored)) == json.loads(pack_metadata(given)))


def _packed(value: Any) -> Any:
    if isinstance(value, str):
        return pack(value)
    if isinstance(value, float) and not abs(value) < _LARGE:
        return f"{_ESCAPE}{value!r}"
    if isinstance(value, Mapping):
        return {pack(str(key)): _packed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(inner) for inner in value]
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, str):
        number = _NUMBER.fullmatch(value)
        return unpack(value) if number is None else float(number[1])
    if isinstance(value, dict):
        return {unpack(key): _unpacked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unpacked(inner) for inner in value]
    return value


def require_ids(doc_ids: Iterable[str], where: str) -> None:
    """Raises StoreError for the first id that cannot be a key in every store."""
    for doc_id in doc_ids:
        problem = _problem(doc_id)
        if problem:
            raise _refused(doc_id, f"its id {problem}", where)


def require_document(document: Document, where: str) -> None:
    """Raises StoreError, with its id, for a document that cannot be embedded and stored."""
    require_ids([document.id], where)
    try:
        metadata = json.dumps(dict(document.metadata), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise _refused(document.id, f"its metadata is no JSON: {error}", where) from None
    for name, text in (("text", document.content), ("metadata", metadata)):
        if not _is_unicode(text):
            raise _refused(document.id, f"its {name} has half of a surrogate pair", where)


def _problem(doc_id: str) -> str:
    if "\0" in doc_id:
        return "has a NUL character"
    if not _is_unicode(doc_id):
        return "has half of a surrogate pair"
    size = len(doc_id.encode())
    return f"has {size:,} bytes, more than {LONGEST_ID:,}" if size > LONGEST_ID else ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(doc_id: str, problem: str, where: str) -> StoreError:
    shown = ascii(doc_id)
    if len(shown) > 80:
        shown = f"{shown[:79]}…"
    return StoreError(
        f"document {shown} cannot be stored: {problem}",
        where=where,
        next_step="mend that document in the corpus, then run the same command again",
    )
