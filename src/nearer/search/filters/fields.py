"""What the metadata of a corpus looks like, field by field, and which documents a filter keeps."""

from __future__ import annotations

import array
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.data.fields import plain
from nearer.data.near import digest
from nearer.search.filters.extraction import Extraction
from nearer.search.filters.naming import NamedValues, sample, values_that_texts_name
from nearer.search.filters.values import (
    elements,
    keys_of,
    names_versions,
    number_of,
    scalars,
    wanted_keys,
    year_of,
)
from nearer.text import words
from nearer.types import Metadata

MOST_VALUES = 100_000  # of a field: beyond, it is text and no category
LONGEST_VALUE = 200  # characters: beyond, it is text and no category
TAG_GAIN = 3.0  # how many times more often elements must repeat than the comma-separated strings they make up

_CHANGE = re.compile(r"updat|modif|chang", re.IGNORECASE)


class Field(NamedTuple):
    """What the corpus holds in one metadata field.

    `kind`: `date` (also years and epochs), `number`, `category` (two documents or more a value, on
    average), `unique` (no two alike) or `text`.  `values`: value → number of documents, where values
    repeat like those of a category, whatever the kind; else empty.  `tags`: strings such as `"a, b"`
    count as their elements.  `years`: float64 (n_documents,), decimal years (for versions: their
    order), NaN where missing.
    """

    kind: str
    values: Mapping[Any, int]
    tags: bool
    years: np.ndarray | None
    keys: np.ndarray  # uint64 hashes of what filters can ask for, sorted
    rows: np.ndarray  # int32 position of the document that holds each key


class Fields:
    """The metadata of a corpus by field, in memory bounded by hashes and positions (12 bytes per value)."""

    def __init__(
        self, corpus: Corpus, fields: Mapping[str, Field], extract: Extraction | None = None
    ) -> None:
        """Use `Fields.of`."""
        self.corpus, self.fields, self._extract = corpus, fields, extract
        self._masks = lru_cache(maxsize=64)(self._mask)

    @classmethod
    def of(cls, corpus: Corpus, extract: Extraction | None = None) -> Fields:
        """Read the metadata of every document once (and before, of a sample, to tell tags from texts with commas).

        `extract` finds the filters that texts name, in place of the rule of `naming`.
        """
        strings: dict[str, list[str]] = {}
        for document in sample(corpus):
            for name, value in document.metadata.items():
                strings.setdefault(name, []).extend(_texts(value))
        tags = {name for name, texts in strings.items() if _are_tags(texts)}
        columns: dict[str, _Column] = {}
        with progress.task("reading metadata", len(corpus), "documents") as task:
            for position, document in enumerate(corpus):
                for name, value in document.metadata.items():
                    if name not in columns:
                        columns[name] = _Column(name, len(corpus), name in tags)
                    columns[name].add(position, value)
                task.advance()
        return cls(corpus, {name: column.finish() for name, column in columns.items()}, extract)

    def read(self, metadata: Metadata) -> dict[str, Any]:
        """Metadata as filters see it: tag strings become lists, of the string itself and its elements."""
        values: dict[str, Any] = {}
        for name, value in metadata.items():
            field = self.fields.get(name)
            if field is None or not field.tags:
                values[name] = value
            else:
                values[name] = [[scalar, elements(scalar)] for scalar in scalars(value)]
        return values

    def eligible(self, filter: Metadata) -> np.ndarray:
        """(n_documents,) bool, not writeable: what `matches(filter, self.read(metadata))` says of each document."""
        return self._masks(json.dumps(plain(filter), sort_keys=True))

    def _mask(self, filter_json: str) -> np.ndarray:
        mask = np.ones(len(self.corpus), dtype=bool)
        for name, value in json.loads(filter_json).items():
            holds = np.zeros(len(mask), dtype=bool)
            field = self.fields.get(name)
            if field is not None:
                for key in wanted_keys(value):
                    holds[_rows_of(field, key)] = True
            mask &= holds
        mask.flags.writeable = False
        return mask

    def selectivity(self, filter: Metadata) -> float:
        """Share of the documents that a filter keeps."""
        return float(self.eligible(filter).mean()) if len(self.corpus) else 0.0

    def infer(self, text: str) -> list[dict[str, Any]]:
        """Filters of one field each that a text names, most selective first.

        The user's own function finds them where there is one, else the rule of `naming`: values are
        found as whole words, of nested ones the longest, those under three characters only in their
        own case.  Values that differ only in case or punctuation, and the dates of a year, are one
        filter: any of them.
        """
        if self._extract is not None:
            return sorted(self._extract(text), key=self.selectivity)
        written = words(text)
        filters = []
        for name, values in self._named.items():
            filters += [{name: value} for value in values.in_words(written)]
        return sorted(filters, key=self.selectivity)

    @cached_property
    def _named(self) -> dict[str, NamedValues]:
        return values_that_texts_name(self)

    def recency(self) -> tuple[str, np.ndarray] | None:
        """The field that best tells how recent documents are, and its `years`; None where no field does.

        Dates go before versions, then the field that most documents have (by tenths), then one
        about changes.
        """
        best: tuple[str, np.ndarray] | None = None
        best_rank: tuple[bool, float, bool, str] | None = None
        for name, field in self.fields.items():
            if field.years is None:
                continue
            absent = float(np.isnan(field.years).mean())
            changes = _CHANGE.search(name) is not None
            rank = (field.kind == "date", round(1 - absent, 1), changes, name)
            if best_rank is None or rank > best_rank:
                best, best_rank = (name, field.years), rank
        return best


class _Column:
    """One field while the corpus is read: which document holds which keys; values while they are few enough for a category."""

    def __init__(self, name: str, n_documents: int, tags: bool) -> None:
        self._name, self._n_documents, self._tags = name, n_documents, tags
        self._keys = array.array("Q")
        self._rows = array.array("i")
        self._years = array.array("d")
        self._year_rows = array.array("i")
        #: key → the value as it was first written, and its number of documents; None: too many
        self._values: dict[str, list[Any]] | None = {}
        self._total = self._numbers = 0

    def add(self, position: int, value: Any) -> None:
        """What the document at a position holds in this field."""
        held = list(scalars(value))
        parts = list(held)
        if self._tags:
            parts = [part for scalar in held for part in elements(scalar)]
        keys: set[str] = set()
        for scalar in (*held, *parts):
            keys.update(keys_of(scalar))
        self._keys.extend(map(digest, keys))
        self._rows.extend([position] * len(keys))
        distinct = {}
        for part in parts:
            if part != "":
                distinct[keys_of(part)[0]] = part
        for key, part in distinct.items():
            self._count(position, key, part)

    def _count(self, position: int, key: str, part: Any) -> None:
        self._total += 1
        self._numbers += number_of(part) is not None
        year = year_of(part, self._name)
        if not math.isnan(year):
            self._years.append(year)
            self._year_rows.append(position)
        if self._values is None:
            return
        self._values.setdefault(key, [part, 0])[1] += 1
        most = max(50, min(self._n_documents // 2, MOST_VALUES))
        if len(self._values) > most or len(key) > LONGEST_VALUE:
            self._values = None

    def finish(self) -> Field:
        keys = np.array(self._keys, dtype=np.uint64)
        rows = np.array(self._rows, dtype=np.int32)
        order = np.argsort(keys, kind="stable")
        values: dict[Any, int] = {}
        counted = list((self._values or {}).values())
        if 2 <= len(counted) <= self._total / 2:
            values = dict(counted)
        years = self._years_of_documents()
        if years is not None and not names_versions(self._name):
            kind = "date"
        elif self._numbers >= self._nearly_all:
            kind = "number"
        elif values:
            kind = "category"
        else:
            kind = "text" if np.unique(keys).size < keys.size else "unique"
        return Field(kind, values, self._tags, years, keys[order], rows[order])

    @property
    def _nearly_all(self) -> float:
        return max(1.0, 0.95 * self._total)

    def _years_of_documents(self) -> np.ndarray | None:
        """float64 (n_documents,), the latest year of each; None unless nearly all values are years, and not one."""
        if len(self._years) < self._nearly_all:
            return None
        if len(set(self._years)) < 2:
            return None
        years = np.full(self._n_documents, np.nan)
        rows = np.array(self._year_rows)
        np.fmax.at(years, rows, np.array(self._years))
        return years


def _rows_of(field: Field, key: str) -> np.ndarray:
    """Positions of the documents that hold a key."""
    hashed = np.uint64(digest(key))
    low = np.searchsorted(field.keys, hashed, "left")
    high = np.searchsorted(field.keys, hashed, "right")
    rows: np.ndarray = field.rows[low:high]
    return rows


def _texts(value: Any) -> Iterator[str]:
    """The strings in a value, empty ones left out."""
    return (scalar for scalar in scalars(value) if isinstance(scalar, str) and scalar)


def _are_tags(texts: Sequence[str]) -> bool:
    """Whether texts are comma-separated elements: these repeat far more often than the texts do."""
    parts = [part for text in texts for part in elements(text)]
    if not parts:
        return False
    repeated = len(parts) / len(set(parts))
    return repeated >= TAG_GAIN * len(texts) / len(set(texts))
