"""Which values of metadata the texts of queries name.

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

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.search.filters.phrases import Phrases
from nearer.search.filters.values import matches, number_of, year_of
from nearer.text import fold, words
from nearer.types import Document

if TYPE_CHECKING:
    from nearer.search.filters.fields import Field, Fields

SAMPLE = 5_000  # documents read to learn which values are named
MIN_SHARE = 0.5  # of the rule above
MIN_LIFT = 2.0  # of the rule above: times the base rate
PRIOR = 2  # of the rule above: documents that `usual` counts as
SILENCE = 100  # of the rule above: documents that must be read before silence says something


class NamedValues:
    """Phrases, each with the filter value that it names."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self._phrases = Phrases((phrase, len(phrase) < 3) for phrase in values)

    def phrases_in(self, written: Sequence[str]) -> list[str]:
        """The phrases in the `words` of a text, each once, in its order."""
        return list(dict.fromkeys(self._phrases.find(written)))

    def in_words(self, written: Sequence[str]) -> list[Any]:
        """The values that the `words` of a text name."""
        return [self.values[phrase] for phrase in self.phrases_in(written)]


def values_that_texts_name(fields: Fields) -> dict[str, NamedValues]:
    """Field → the phrases that name one of its values, by the rule above."""
    candidates = {}
    for name, field in fields.fields.items():
        if field.values:
            candidates[name] = NamedValues(_phrases(field))
    counts = _Counts(candidates)
    documents = min(len(fields.corpus), SAMPLE)
    with progress.task("learning which values texts name", documents, "documents") as task:
        for read, document in enumerate(sample(fields.corpus), start=1):
            counts.add(document, fields)
            task.reach(read)
    named: dict[str, NamedValues] = {}
    for name, values in candidates.items():
        least = {}
        for phrase, value in values.values.items():
            least[phrase] = MIN_LIFT * fields.selectivity({name: value})
        shares = counts.shares(name, least)
        kept = {}
        for phrase, value in values.values.items():
            if shares[phrase] >= max(MIN_SHARE, least[phrase]):
                kept[phrase] = value
        named[name] = NamedValues(kept)
    return named


class _Counts:
    """In how many documents each phrase stands, and in how many of these its value is carried."""

    def __init__(self, candidates: Mapping[str, NamedValues]) -> None:
        self._candidates = candidates
        self._mentioning = {name: Counter[str]() for name in candidates}
        self._carrying = {name: Counter[str]() for name in candidates}
        self._documents = 0

    def add(self, document: Document, fields: Fields) -> None:
        self._documents += 1
        written = words(document.content)
        metadata = fields.read(document.metadata)
        for name, candidates in self._candidates.items():
            for phrase in candidates.phrases_in(written):
                self._mentioning[name][phrase] += 1
                if matches({name: candidates.values[phrase]}, metadata):
                    self._carrying[name][phrase] += 1

    def shares(self, name: str, least: Mapping[str, float]) -> dict[str, float]:
        """`share` of every phrase of a field; `least` are twice the base rates."""
        usual = self._usual(name, least)
        shares = {}
        for phrase in self._candidates[name].values:
            carrying = self._carrying[name][phrase] + PRIOR * usual
            shares[phrase] = carrying / (self._mentioning[name][phrase] + PRIOR)
        return shares

    def _usual(self, name: str, least: Mapping[str, float]) -> float:
        mentioning = self._mentioning[name]
        if not mentioning:
            return float(self._documents >= SILENCE)
        shares = []
        for phrase, count in mentioning.items():
            share = self._carrying[name][phrase] / count
            if share >= least[phrase]:
                shares.append(share)
        return sum(shares) / len(mentioning)


def sample(corpus: Corpus) -> Iterator[Document]:
    """At most SAMPLE documents, spread evenly."""
    step = max(1, -(-len(corpus) // SAMPLE))
    return (corpus[position] for position in range(0, len(corpus), step))


def _phrases(field: Field) -> dict[str, Any]:
    """What a text may say → the filter value that this would name.

    Numbers of one or two digits are left out: they stand for too much else.
    """
    values_by_phrase: dict[str, list[Any]] = {}
    for value in field.values:
        text = str(value)
        short = len(text) < 3
        if isinstance(value, bool) or (short and number_of(value) is not None):
            continue
        year = year_of(value, "time")
        if field.kind == "date" and not math.isnan(year):
            text = str(int(year))
        elif not short:
            text = fold(" ".join(words(text)))
        values_by_phrase.setdefault(text, []).append(value)
    phrases: dict[str, Any] = {}
    for phrase, values in values_by_phrase.items():
        phrases[phrase] = values if len(values) > 1 else values[0]
    return phrases
