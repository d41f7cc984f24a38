"""Metadata filters: which documents they keep, and which filters the text of a query names."""

from nearer.search.filters.extraction import own_extraction
from nearer.search.filters.fields import Field, Fields
from nearer.search.filters.phrases import Phrases
from nearer.search.filters.values import held_keys, matches, mismatch, wanted_keys

__all__ = [
    "Field",
    "Fields",
    "Phrases",
    "held_keys",
    "matches",
    "mismatch",
    "own_extraction",
    "wanted_keys",
]
