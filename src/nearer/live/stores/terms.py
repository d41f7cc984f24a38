"""Filters as set membership, which every engine has: metadata become terms, a filter becomes clauses."""

from __future__ import annotations

import hashlib
import json

from nearer.live.stores import storable
from nearer.search import filters
from nearer.types import Metadata

#: A filter: one list of terms per field, of which a chunk must have any.
Clauses = list[list[str]]
#: Characters.  Longer values are compared by their hash, because GIN indexes refuse long ones.
_LONG_TERM = 200


def terms(metadata: Metadata) -> list[str]:
    """Every field with each key of its value, so that engines filter as `filters.matches` does."""
    found: set[str] = set()
    for field, value in metadata.items():
        found.update(_term(field, key) for key in filters.held_keys(value))
    return sorted(found)


def clauses(filter: Metadata | None) -> Clauses:
    """A filter as terms: one list per field, of which a chunk must have any; an empty list can never match."""
    listed = []
    for field, value in (filter or {}).items():
        listed.append(sorted({_term(field, key) for key in filters.wanted_keys(value)}))
    return listed


def _term(field: str, key: str) -> str:
    term = storable.pack(json.dumps([field, key], ensure_ascii=False))
    if len(term) <= _LONG_TERM:
        return term
    return hashlib.sha256(term.encode("utf-8", "surrogatepass")).hexdigest()
