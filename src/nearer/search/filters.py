"""Metadata filters: which documents they keep, and which filters the text of a query names.

What a text *names* is measured on the corpus, not guessed from names of fields.  A value is named
by its word or phrase where documents that say it mostly carry it:

    share = (carrying + 2·usual) / (mentioning + 2)
    named = share ≥ .5 and share ≥ 2·base rate

over at most 5,000 documents spread evenly.  `usual` is the mean of carrying / mentioning over the
values of the field that texts say (0 for those under twice their base rate): a value that is
seldom or never said is judged as its field is.  Where texts say no value of a field at all (a
tenant, a source), `usual` is 1, if at least 100 documents were read.  So a disease is a filter
where documents that say its name are mostly about it, the status `Draft` is none, and a tenant is
one.
"""

from __future__ import annotations

import array
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.data.fields import plain
from nearer.data.near import digest
from nearer.data.times import read_time
from nearer.text import fold, words
from nearer.types import Document, Metadata

SAMPLE = 5_000  # documents read to learn which values are named
MIN_SHARE, MIN_LIFT, PRIOR, SILENCE = 0.5, 2.0, 2, 100  # of the rule above
LARGEST, LONGEST = (
    100_000,
    200,
)  # values a field, characters a value: beyond, it is text and no category
SHOW = 1
TAG_GAIN = 3.0  # how many times more often elements must repeat than the comma-separated strings they make up

_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d(-\d\d([T ].*)?)?", re.ASCII)
_VERSION = re.compile(r"v?(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?", re.ASCII)
_CHANGE = re.compile(r"updat|modif|chang", re.IGNORECASE)
_TIME_NAME = re.compile(
    r"date|time|epoch|stamp|modif|chang|creat|publish|releas|issued|_at$", re.IGNORECASE
)


class Phrases:
    """Words and phrases found in texts as whole words: from left to right, the longest, never overlapping."""

    def __init__(self, phrases: Iterable[tuple[str, bool]]) -> None:
        """`(phrase, cased)`: a cased one is found in the same upper and lower case only."""
        self._table: dict[tuple[str, ...], list[tuple[str, list[str] | None]]] = {}
        self._longest: Counter[str] = Counter()  # by first word
        for phrase, cased in phrases:
            written = words(phrase)
            key = tuple(map(fold, written))
            self._table.setdefault(key, []).append((phrase, written if cased else None))
            self._longest |= Counter({key[0]: len(key)}) if key else {}

    def find(self, written: Sequence[str]) -> list[str]:
        """The phrases in the `words` of a text, in its order, each as it was given."""
        folded = [fold(word) for word in written]
        found: list[str] = []
        end = 0
        for start, word in enumerate(folded):
            if start < end or word not in self._longest:
                continue
            for stop in range(min(start + self._longest[word], len(folded)), start, -1):
                known = self._table.get(tuple(folded[start:stop]), ())
                if here := [
                    phrase
                    for phrase, cased in known
                    if cased is None or cased == written[start:stop]
                ]:
                    found += here
                    end = stop
                    break
        return found


def matches(filter: Metadata, metadata: Metadata) -> bool:
    """Whether metadata satisfies every field of a filter.

    Numbers compare by value, also with numbers written as text (CSV has no others); two texts
    compare exactly but for case.  A list on either side means any of its values.  Null and absent
    match nothing.
    """
    return not mismatch(filter, metadata)


def mismatch(filter: Metadata, metadata: Metadata) -> list[tuple[str, Any, Any]]:
    """`(field, wanted, found)` of every field of the filter that the metadata does not satisfy; found is None where absent."""
    return [
        (f, wanted, metadata.get(f))
        for f, wanted in filter.items()
        if _wanted(wanted).isdisjoint(_held(metadata.get(f)))
    ]


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
    """The metadata of a corpus by field, in memory bounded by hashes and positions (12 bytes a value)."""

    def __init__(self, corpus: Corpus, fields: Mapping[str, Field]) -> None:
        """Use `Fields.of`."""
        self._corpus, self.fields = corpus, fields
        self._masks = lru_cache(maxsize=64)(self._mask)

    @classmethod
    def of(cls, corpus: Corpus) -> Fields:
        """Read the metadata of every document once (and before, of a sample, to tell tags from texts with commas)."""
        strings: dict[str, list[str]] = {}
        for document in _sample(corpus):
            for name, value in document.metadata.items():
                strings.setdefault(name, []).extend(
                    one for one in _scalars(value) if isinstance(one, str) and one
                )
        tags = {name for name, texts in strings.items() if _are_tags(texts)}
        columns: dict[str, _Column] = {}
        with progress.task("reading metadata", len(corpus), "documents") as task:
            for position, document in enumerate(corpus):
                for name, value in document.metadata.items():
                    if name not in columns:
                        columns[name] = _Column(name, len(corpus), name in tags)
                    columns[name].add(position, value)
                task.advance()
        return cls(corpus, {name: column.finish() for name, column in columns.items()})

    def read(self, metadata: Metadata) -> dict[str, Any]:
        """Metadata as filters see it: tag strings become lists, of the string itself and its elements."""
        tags = {name for name, field in self.fields.items() if field.tags}
        return {
            name: [[one, _split(one)] for one in _scalars(value)] if name in tags else value
            for name, value in metadata.items()
        }

    def eligible(self, filter: Metadata) -> np.ndarray:
        """(n_documents,) bool, not writeable: what `matches(filter, self.read(metadata))` says of each document."""
        return self._masks(json.dumps(plain(filter), sort_keys=True))

    def _mask(self, filter_json: str) -> np.ndarray:
        mask = np.ones(len(self._corpus), dtype=bool)
        for name, value in json.loads(filter_json).items():
            held = np.zeros(len(mask), dtype=bool)
            if field := self.fields.get(name):
                for key in _wanted(value):
                    low, high = (
                        np.searchsorted(field.keys, np.uint64(digest(key)), side)
                        for side in ("left", "right")
                    )
                    held[field.rows[low:high]] = True
            mask &= held
        mask.flags.writeable = False
        return mask

    def selectivity(self, filter: Metadata) -> float:
        """Share of the documents that a filter keeps."""
        return float(self.eligible(filter).mean()) if len(self._corpus) else 0.0

    def infer(self, text: str) -> list[dict[str, Any]]:
        """Filters of one field each that a text names (by the rule above), most selective first.

        Values are found as whole words, of nested ones the longest, those under three characters
        only in their own case.  Values that differ only in case or punctuation, and the dates of a
        year, are one filter: any of them.
        """
        written = words(text)
        found = [
            {name: values[p]}
            for name, (phrases, values) in self._named.items()
            for p in dict.fromkeys(phrases.find(written))
        ]
        return sorted(found, key=self.selectivity)

    def recency(self) -> tuple[str, np.ndarray] | None:
        """The field that best tells how recent documents are, and its `years`; None where no field does.

        Dates go before versions, then the field that most documents have (by tenths), then one
        about changes.
        """
        ranked = [
            (
                field.kind == "date",
                round(1 - float(np.isnan(field.years).mean()), 1),
                bool(_CHANGE.search(name)),
                name,
                field.years,
            )
            for name, field in self.fields.items()
            if field.years is not None
        ]
        best = max(ranked, key=lambda one: one[:4], default=None)
        return best[3:] if best else None

    @cached_property
    def _named(self) -> dict[str, tuple[Phrases, dict[str, Any]]]:
        """Field → the phrases that name one of its values, and that value."""
        asked = {name: _phrases(field) for name, field in self.fields.items() if field.values}
        finders = {name: _finder(values) for name, values in asked.items()}
        said, carried = ({name: Counter[str]() for name in asked} for _ in range(2))
        heard = 0
        with progress.task(
            "learning which values texts name", min(len(self._corpus), SAMPLE), "documents"
        ) as task:
            for heard, document in enumerate(_sample(self._corpus), start=1):
                written, metadata = words(document.content), self.read(document.metadata)
                for name, finder in finders.items():
                    here = set(finder.find(written))
                    said[name].update(here)
                    carried[name].update(
                        p for p in here if matches({name: asked[name][p]}, metadata)
                    )
                task.reach(heard)
        named: dict[str, tuple[Phrases, dict[str, Any]]] = {}
        for name, values in asked.items():
            least = {p: MIN_LIFT * self.selectivity({name: value}) for p, value in values.items()}
            shares = {p: carried[name][p] / n for p, n in said[name].items()}
            usual = (
                sum(share for p, share in shares.items() if share >= least[p]) / len(shares)
                if shares
                else float(heard >= SILENCE)
            )
            share = {
                p: (carried[name][p] + PRIOR * usual) / (said[name][p] + PRIOR) for p in values
            }
            kept = {p: value for p, value in values.items() if share[p] >= max(MIN_SHARE, least[p])}
            named[name] = _finder(kept), kept
        return named


class _Column:
    """One field while the corpus is read: which document holds which keys; values while they are few enough for a category."""

    def __init__(self, name: str, n_documents: int, tags: bool) -> None:
        self._name, self._n_documents, self._tags = name, n_documents, tags
        self._keys, self._rows = array.array("Q"), array.array("i")
        self._years, self._year_rows = array.array("d"), array.array("i")
        self._values: (
            dict[str, list[Any]] | None
        ) = {}  # key → value as it was first written, number of documents
        self._total = self._numbers = 0

    def add(self, position: int, value: Any) -> None:
        scalars = list(_scalars(value))
        elements = [part for one in scalars for part in _split(one)] if self._tags else scalars
        keys = {key for one in (*scalars, *elements) for key in _keys(one)}
        self._keys.extend(map(digest, keys))
        self._rows.extend([position] * len(keys))
        for key, one in {_keys(one)[0]: one for one in elements if one != ""}.items():
            self._total += 1
            self._numbers += _number(one) is not None
            if not math.isnan(year := _when(one, self._name)):
                self._years.append(year)
                self._year_rows.append(position)
            if self._values is not None:
                self._values.setdefault(key, [one, 0])[1] += 1
                if (
                    len(self._values) > max(50, min(self._n_documents // 2, LARGEST))
                    or len(key) > LONGEST
                ):
                    self._values = None

    def finish(self) -> Field:
        keys, rows = np.array(self._keys, dtype=np.uint64), np.array(self._rows, dtype=np.int32)
        order = np.argsort(keys, kind="stable")
        counted = list((self._values or {}).values())
        values = dict(counted) if 2 <= len(counted) <= self._total / 2 else {}
        enough, years = max(1.0, 0.95 * self._total), None
        if len(self._years) >= enough and len(set(self._years)) > 1:
            years = np.full(self._n_documents, np.nan)
            np.fmax.at(years, np.array(self._year_rows), np.array(self._years))
        if years is not None and not _is_version(self._name):
            kind = "date"
        elif self._numbers >= enough:
            kind = "number"
        else:
            kind = (
                "category" if values else "text" if np.unique(keys).size < keys.size else "unique"
            )
        return Field(kind, values, self._tags, years, keys[order], rows[order])


def _sample(corpus: Corpus) -> Iterator[Document]:
    """At most SAMPLE documents, spread evenly."""
    step = max(1, -(-len(corpus) // SAMPLE))
    return (corpus[position] for position in range(0, len(corpus), step))


def _are_tags(texts: Sequence[str]) -> bool:
    """Whether texts are comma-separated elements: these repeat far more often than the texts do."""
    elements = [part for text in texts for part in _split(text)]
    return bool(elements) and len(elements) / len(set(elements)) >= TAG_GAIN * len(texts) / len(
        set(texts)
    )


def _finder(phrases: Iterable[str]) -> Phrases:
    return Phrases((phrase, len(phrase) < 3) for phrase in phrases)


def _phrases(field: Field) -> dict[str, Any]:
    """What a text may say → the filter value that this would name.  Numbers of one or two digits stand for too much else."""
    found: dict[str, list[Any]] = {}
    for value in field.values:
        text, year = str(value), _when(value, "time")
        if isinstance(value, bool) or (_number(value) is not None and len(text) < 3):
            continue
        if field.kind == "date" and not math.isnan(year):
            phrase = str(int(year))
        else:
            phrase = fold(" ".join(words(text))) if len(text) > 2 else text
        found.setdefault(phrase, []).append(value)
    return {phrase: values if len(values) > 1 else values[0] for phrase, values in found.items()}


def _scalars(value: Any) -> Iterator[Any]:
    """The values in a value: those of lists one by one, objects as JSON, null none."""
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _scalars(inner)
    elif isinstance(value, Mapping):
        yield json.dumps(plain(value), sort_keys=True)
    elif (one := plain(value)) is not None:
        yield one


def _split(one: Any) -> list[Any]:
    return (
        [part for part in map(str.strip, one.split(", ")) if part]
        if isinstance(one, str)
        else [one]
    )


def _number(one: Any) -> int | float | None:
    """A number, or text that is one; whole ones as int, so that 2004, 2004.0 and "2004" are the same."""
    if isinstance(one, str) and _NUMBER.fullmatch(one):
        one = float(one) if "." in one else int(one)
    if isinstance(one, bool) or not isinstance(one, int | float):
        return None
    return int(one) if one == int(one) else one


@lru_cache(maxsize=4096, typed=True)  # values repeat; typed, because True == 1
def _keys(one: Any) -> tuple[str, ...]:
    """The keys of one value in metadata: its own first; that of a number written as text beside it."""
    number = _number(one)
    if not isinstance(one, str):
        return (f"n{number}" if number is not None else f"s{one}".casefold(),)
    return (f"s{one}".casefold(), *([f"t{number}"] if number is not None else []))


def _held(value: Any) -> set[str]:
    return {key for one in _scalars(value) for key in _keys(one)}


def _wanted(value: Any) -> set[str]:
    """The keys that a filter's value asks for.  Two texts never meet as numbers: version 1.10 is not 1.1."""
    held = _held(value)
    return {key for key in held if key[0] != "t"} | {
        {"n": "t", "t": "n"}[key[0]] + key[1:] for key in held if key[0] != "s"
    }


def _is_version(name: str) -> bool:
    return "version" in name.casefold()


@lru_cache(maxsize=4096, typed=True)
def _when(one: Any, name: str) -> float:
    """A year, date or time as decimal years, NaN if it is none.  `name` allows epochs (s, ms), or the order of versions."""
    if _is_version(name):
        parts = _VERSION.fullmatch(str(one))
        return (
            sum(int(part or 0) / 1e4**i for i, part in enumerate(parts.groups()))
            if parts
            else math.nan
        )
    number = _number(one)
    if isinstance(number, int) and 1900 <= number <= 2100:
        return float(number)
    try:
        if isinstance(one, str) and _DATE.fullmatch(one):
            date = read_time(one)
        elif (
            number is not None
            and _TIME_NAME.search(name)
            and (1e8 < number < 4.2e9 or 1e11 < number < 4.2e12)
        ):
            date = read_time(number)
        else:
            return math.nan
    except ValueError:
        return math.nan
    new_year = datetime(date.year, 1, 1, tzinfo=UTC)
    return date.year + (date - new_year).total_seconds() / (366 * 86_400)
