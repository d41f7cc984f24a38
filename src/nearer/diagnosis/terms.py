"""Domain terms: words that mean something else here, acronyms, and names that the tokenizer breaks up.

A report of what makes a corpus special, with the failing queries that hold each term and the
repairs that found their documents.  `text.py` says what a word is, in every language.  Of a large
corpus a sample is read, so that the time is bounded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from nearer.data.corpus import Corpus
from nearer.diagnosis.contexts import Contexts, Nearness, centred
from nearer.diagnosis.values import Failure
from nearer.embed.base import TextEncoder
from nearer.measure.slices import STOP_WORDS, terms
from nearer.search.rewrite import mine_acronyms
from nearer.text import fold, words

OTHER_MEANING, ACRONYM, FRAGMENTED = "other meaning", "acronym", "fragmented"

_DOCUMENTS = 10_000  # of the corpus that are read, spread evenly
_CHARACTERS = 1_500  # of each
_NEIGHBOURS = 10  # that two notions of nearness are compared by
_SHOWN = 5  # neighbours in the report
_LEAST = 12  # documents of each half that hold a word whose meaning is compared
_SURE = 0.85  # standing from which both halves of the corpus agree about a word
#: Fit of a word's vector to its contexts up to which the model does not share its meaning; a word
#: drawn at random has 0.5.
_STRANGE = 0.4
_COMMON = 0.2  # share of the documents from which a word says too little about its contexts
_FEWEST = 3  # documents that make an acronym or a name more than a slip
_PIECES = 3  # tokens from which a word is broken up
_TOGETHER = 0.5  # normalised mutual information from which two words are one name (Bouma 2009)
_MOST = 1000  # terms in the file
_QUERIES = 10  # ids of failing queries per term


@dataclass(frozen=True, slots=True)
class Term:
    """A domain term.  `frequency` counts documents of those that were read."""

    term: str
    kind: str
    frequency: int
    details: Mapping[str, Any] = field(default_factory=dict)
    queries: int = 0  # that were looked at and hold it
    failing: tuple[str, ...] = ()  # ids of those that fail
    reached: Mapping[str, int] = field(default_factory=dict)  # repair → failures that it finds

    def as_dict(self) -> dict[str, Any]:
        """The line of `terms.jsonl`."""
        return {
            "term": self.term,
            "kind": self.kind,
            "frequency": self.frequency,
            **self.details,
            "queries": self.queries,
            "failing_queries": len(self.failing),
            "query_ids": list(self.failing[:_QUERIES]),
            "reached_by": dict(self.reached),
        }

    def in_words(self) -> str:
        """What is special about it, as evidence."""
        if self.kind == OTHER_MEANING:
            here = ", ".join(self.details["near_here"][:3])
            there = ", ".join(self.details["near_to_the_model"][:3])
            return (
                f"“{self.term}” stands among other words here ({here}) than in the model ({there})"
            )
        if self.kind == ACRONYM:
            forms = self.details["expansions"]
            if forms:
                return f"“{self.term}” is an acronym of this corpus ({', '.join(forms)})"
            return f"“{self.term}” is an acronym that no document spells out"
        return f"the tokenizer breaks “{self.term}” into {self.details['tokens']} pieces"


@dataclass(frozen=True, slots=True)
class Asked:
    """The queries that were looked at, by id, those that fail, and what was found about them."""

    texts: Mapping[str, str]
    failing: Set[str]
    failures: Sequence[Failure]


@dataclass(frozen=True, slots=True)
class DomainTerms:
    """The terms, those of most failing queries first, and how they were found."""

    terms: tuple[Term, ...] = ()
    read: int = 0  # documents
    compared: int = 0  # words whose meaning was compared
    not_tried: str = ""  # why no meaning was compared

    def summary(self, most: int = 20) -> dict[str, Any]:
        """`terms` of `diagnose/summary.json`."""
        kinds = Counter(term.kind for term in self.terms)
        return {
            "documents": self.read,
            "compared": self.compared,
            "kinds": dict(kinds.most_common()),
            "not_tried": self.not_tried,
            "rows": [term.as_dict() for term in self.terms[:most]],
        }

    def evidence(self, query_id: str, most: int = 2) -> str:
        """What is special about the words of a failing query; empty where nothing is."""
        own = [term for term in self.terms if query_id in term.failing]
        return "; ".join(term.in_words() for term in own[:most])


def domain_terms(
    corpus: Corpus, encoder: TextEncoder, asked: Asked, most_words: int
) -> DomainTerms:
    """Find the terms of a corpus.

    The meaning of at most `most_words` words is compared with the model's (0: of none); a model
    behind an endpoint is not asked, since words would be sent there and paid for.
    """
    reading = _Reading.of(corpus, asked)
    if not reading.documents:
        return DomainTerms()
    found = [*_acronyms(reading), *_fragmented(reading, encoder)]
    compared, not_tried = 0, ""
    if encoder.outside:
        not_tried = "the model is behind an endpoint: words would be sent there and paid for"
    elif most_words:
        vocabulary = reading.vocabulary(most_words)
        if len(vocabulary) > 2 * _NEIGHBOURS:
            compared = len(vocabulary)
            found += _other_meaning(reading, vocabulary, encoder)
        else:
            not_tried = (
                f"{len(vocabulary)} words stand in {2 * _LEAST} documents or more and in few enough "
                f"to tell: more than {2 * _NEIGHBOURS} are needed to compare them"
            )
    placed = [_placed(term, reading, asked) for term in found]
    placed.sort(key=lambda term: (-len(term.failing), -term.queries, -term.frequency, term.term))
    return DomainTerms(tuple(placed[:_MOST]), len(reading.documents), compared, not_tried)


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read of the corpus, and which queries hold what."""

    texts: Sequence[str]
    documents: Sequence[Sequence[str]]  # the terms of each text, in order
    frequencies: Counter[str]  # term → documents
    queries: Mapping[str, Collection[str]]  # term → ids of queries that hold it

    @classmethod
    def of(cls, corpus: Corpus, asked: Asked) -> _Reading:
        step = max(1, -(-len(corpus) // _DOCUMENTS))
        texts = [text[:_CHARACTERS] for text in corpus.contents(range(0, len(corpus), step))]
        documents = [terms(text) for text in texts]
        frequencies: Counter[str] = Counter()
        for document in documents:
            frequencies.update(set(document))
        queries: dict[str, set[str]] = defaultdict(set)
        for query_id, text in asked.texts.items():
            for form in _forms(text):
                queries[form].add(query_id)
        return cls(texts, documents, frequencies, queries)

    def vocabulary(self, most: int) -> list[str]:
        """Words that are frequent enough for their contexts to say what they mean.

        The words of queries come first; of the others the most frequent ones.
        """
        enough = []
        most_documents = max(_COMMON * len(self.documents), 2 * _LEAST)
        for word, count in self.frequencies.items():
            if 2 * _LEAST <= count <= most_documents and not word.isnumeric():
                enough.append(word)
        enough.sort(key=lambda word: (word not in self.queries, -self.frequencies[word], word))
        return sorted(enough[:most])


def _forms(text: str) -> Iterator[str]:
    """The words of a text as they are searched, as they are written, and two at a time."""
    folded = terms(text)
    yield from folded
    yield from words(text)
    for first, second in pairwise(folded):
        yield f"{first} {second}"


def _placed(term: Term, reading: _Reading, asked: Asked) -> Term:
    """The term with the queries that hold it, and the repairs that reach their documents."""
    holders = reading.queries.get(term.term, ())
    failing = tuple(sorted(holder for holder in holders if holder in asked.failing))
    reached: Counter[str] = Counter()
    if failing:
        of_these = set(failing)
        for failure in asked.failures:
            if failure["query_id"] in of_these:
                reached.update(_working(failure))
    return Term(
        term=term.term,
        kind=term.kind,
        frequency=term.frequency,
        details=term.details,
        queries=len(holders),
        failing=failing,
        reached=dict(reached.most_common()),
    )


def _working(failure: Failure) -> Iterator[str]:
    """Repairs that find the document of a failure."""
    for name, probe in failure["probes"].items():
        if name != "today" and probe["found"]:
            yield name


# -- other meaning ---------------------------------------------------------------------------------


def _other_meaning(
    reading: _Reading, vocabulary: Sequence[str], encoder: TextEncoder
) -> Iterator[Term]:
    """Words whose contexts both halves of the corpus agree on, and that the model does not fit into.

    Where the model's vector of a word fits the words around it no better than the vector of a random
    word would, the model means something else by it.
    """
    row_of = {word: row for row, word in enumerate(vocabulary)}
    streams = [_rows(document, row_of) for document in reading.documents]
    halves = [Contexts.of(streams[part::2], len(vocabulary)).nearness for part in (0, 1)]
    here = Contexts.of(streams, len(vocabulary))
    near_here = here.nearness.neighbours(_NEIGHBOURS)
    model = centred(encoder.encode(list(vocabulary), "document"))
    fit = here.fit(model, near_here)
    sure = _agreed(halves)
    near_there = model.neighbours(_SHOWN)
    in_halves = _in_both_halves(reading.documents, vocabulary)
    for word, row in row_of.items():
        if sure[row] < _SURE or fit[row] > _STRANGE or not in_halves[row]:
            continue
        details = {
            "fit": round(float(fit[row]), 3),
            "agreement_of_halves": round(float(sure[row]), 3),
            "near_here": [vocabulary[other] for other in near_here[row, :_SHOWN]],
            "near_to_the_model": [vocabulary[other] for other in near_there[row]],
        }
        yield Term(word, OTHER_MEANING, reading.frequencies[word], details)


def _rows(document: Sequence[str], row_of: Mapping[str, int]) -> np.ndarray:
    rows = [row_of[word] for word in document if word in row_of]
    return np.array(rows, np.int64)


def _agreed(halves: Sequence[Nearness]) -> np.ndarray:
    """How well each half of the corpus finds the neighbours of the other one, float64 (n_words,)."""
    first, second = halves
    one_way = second.standing(first.neighbours(_NEIGHBOURS))
    other_way = first.standing(second.neighbours(_NEIGHBOURS))
    worse: np.ndarray = np.minimum(one_way, other_way)
    return worse


def _in_both_halves(documents: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> np.ndarray:
    """Whether each word stands in enough documents of either half, bool (n_words,)."""
    counts = []
    for part in (0, 1):
        held: Counter[str] = Counter()
        for document in documents[part::2]:
            held.update(set(document))
        counts.append([held[word] >= _LEAST for word in vocabulary])
    both: np.ndarray = np.array(counts[0], bool) & np.array(counts[1], bool)
    return both


# -- acronyms and names ----------------------------------------------------------------------------


def _acronyms(reading: _Reading) -> Iterator[Term]:
    """Acronyms that the corpus defines, and words in capitals that it does not."""
    defined = mine_acronyms(reading.texts)
    written = _written(reading.texts)
    shown = {fold(short) for short in defined}
    for short, forms in defined.items():
        yield Term(short, ACRONYM, written[short], {"expansions": list(forms)})
    for word, count in sorted(written.items()):
        if count < _FEWEST or fold(word) in shown or not _is_capitals(word):
            continue
        if count > reading.frequencies[fold(word)] / 2:  # else a word that is also shouted
            yield Term(word, ACRONYM, count, {"expansions": []})


def _written(texts: Iterable[str]) -> Counter[str]:
    """Words as they are written → documents."""
    written: Counter[str] = Counter()
    for text in texts:
        written.update(set(words(text)))
    return written


def _is_capitals(word: str) -> bool:
    letters = [letter for letter in word if letter.isalpha()]
    return 2 <= len(word) <= 6 and len(letters) >= 2 and all(map(str.isupper, letters))


def _fragmented(reading: _Reading, encoder: TextEncoder) -> Iterator[Term]:
    """Words and names of two words that the tokenizer breaks into many pieces."""
    names = []
    for word, count in reading.frequencies.items():
        if (count >= _FEWEST or word in reading.queries) and len(word) > 2 and word.isalpha():
            names.append(word)
    if encoder.outside or not names:
        return  # its tokenizer is not here
    counts = encoder.token_counts(names) - encoder.token_counts([""])[0]
    pieces = dict(zip(names, counts.tolist(), strict=True))
    for word, tokens in pieces.items():
        if tokens >= _PIECES:
            yield Term(word, FRAGMENTED, reading.frequencies[word], {"tokens": tokens})
    for first, second, count in _phrases(reading):
        tokens = pieces.get(first, 1) + pieces.get(second, 1)
        if tokens > _PIECES and max(pieces.get(first, 1), pieces.get(second, 1)) < _PIECES:
            yield Term(f"{first} {second}", FRAGMENTED, count, {"tokens": tokens})


def _phrases(reading: _Reading) -> Iterator[tuple[str, str, int]]:
    """Two words that mostly stand together, and in how many documents."""
    together: Counter[tuple[str, str]] = Counter()
    for document in reading.documents:
        together.update(set(pairwise(document)))
    total = len(reading.documents)
    for (first, second), count in sorted(together.items()):
        if count < _FEWEST or first == second or first in STOP_WORDS:
            continue
        apart = reading.frequencies[first] * reading.frequencies[second] / total
        information = np.log(count / apart) / max(np.log(total / count), 1e-9)
        if information >= _TOGETHER:
            yield first, second, count
