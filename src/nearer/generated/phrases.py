"""What a document says about itself: headings, sentences, definitions and key phrases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from nearer.data.documents.markdown import plain
from nearer.measure.slices import STOP_WORDS
from nearer.search.chunkers.structure import sentence_ends
from nearer.search.languages import function_words, language_of
from nearer.text import folded_words
from nearer.types import Document

_CODE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_LIST_MARK = re.compile(r"^\s*(?:[-*+•>]|\d{1,3}[.)])\s+")
_ADDRESS = re.compile(r"\b[a-z]+://\S+")
_ENDS_A_PHRASE = re.compile(r"[^\w\s'’-]+")
_LONGEST_SENTENCE = 60  # words; what is longer is a table or a list
_LONGEST_PHRASE = 3  # words
_DEFINITION = re.compile(
    r"^(?:(?:an?|the)\s+)?(?P<name>[\w][\w\s-]{1,60}?)\s+(?P<verb>is|are|means|refers to|denotes)\s+"
    r"(?P<body>(?:an?|the|any|when|where|how|that)\b.+)$",
    re.IGNORECASE | re.DOTALL,
)
#: What begins a sentence that defines nothing.
_POINTING = frozenset(folded_words("it this that these those there here they he she we you which"))


@dataclass(frozen=True, slots=True)
class Definition:
    """What a sentence says that something is."""

    name: str
    plural: bool
    body: str


@dataclass(frozen=True)
class Parsed:
    """A document as words: `phrases` are runs of its words that say something, with their counts."""

    title: str
    language: str | None
    headings: tuple[str, ...]
    sentences: tuple[str, ...]
    phrases: Mapping[tuple[str, ...], int]

    @cached_property
    def named(self) -> frozenset[str]:
        """The words of title and headings that say something."""
        return frozenset(self.content_words(" ".join((self.title, *self.headings))))

    def definitions(self) -> Iterator[Definition]:
        """Definitions of English sentences, in order."""
        for sentence in self.sentences:
            match = _DEFINITION.match(sentence)
            if match is None:
                continue
            words = folded_words(match["name"])
            if 1 <= len(words) <= 4 and words[0] not in _POINTING:
                yield Definition(" ".join(words), match["verb"].lower() == "are", match["body"])

    def content_words(self, text: str) -> list[str]:
        """The words of a text that say something, folded, in order."""
        return content_words(text, self.language)


def content_words(text: str, language: str | None) -> list[str]:
    """The words of a text without stop words and single characters, folded, in order."""
    common = _stop_words(language)
    return [word for word in folded_words(text) if len(word) > 1 and word not in common]


def _stop_words(language: str | None) -> frozenset[str]:
    if language in (None, "en"):
        return STOP_WORDS | function_words("en")
    return function_words(language)


def parse(document: Document) -> Parsed:
    """The parts of a document; blocks of code and addresses are left out."""
    text = _ADDRESS.sub(" ", _CODE.sub("\n", document.text))
    headings = tuple(plain(match.group(1)) for match in _HEADING.finditer(text))
    sentences = tuple(_sentences(_HEADING.sub("\n", text)))
    language = language_of(document.content)
    phrases: Counter[tuple[str, ...]] = Counter()
    for sentence in (document.title, *headings, *sentences):
        phrases.update(_phrases(sentence, language))
    return Parsed(document.title, language, headings, sentences, phrases)


def _sentences(text: str) -> Iterator[str]:
    """Sentences of running text: without list marks, emphasis and links; no tables."""
    ends = [0, *sentence_ends(text), len(text)]
    for start, end in pairwise(ends):
        sentence = " ".join(plain(_LIST_MARK.sub("", text[start:end])).split())
        if "|" not in sentence and 3 <= len(sentence.split()) <= _LONGEST_SENTENCE:
            yield sentence.rstrip(".!;:")


def _phrases(text: str, language: str | None) -> Iterator[tuple[str, ...]]:
    """Runs of up to three words that no stop word and no punctuation interrupts."""
    common = _stop_words(language)
    for part in _ENDS_A_PHRASE.split(text):
        run: list[str] = []
        for word in [*folded_words(part), ""]:
            if len(word) > 1 and word not in common and not word.isdigit():
                run.append(word)
                continue
            for size in range(1, _LONGEST_PHRASE + 1):
                for start in range(len(run) - size + 1):
                    yield tuple(run[start : start + size])
            run = []


class Rarity:
    """How rare words are among some documents: the inverse document frequency of BM25."""

    def __init__(self, documents: Sequence[Parsed]) -> None:
        self._n = len(documents)
        self._holding: Counter[str] = Counter()
        for document in documents:
            self._holding.update({word for phrase in document.phrases for word in phrase})

    def __call__(self, word: str) -> float:
        holding = self._holding[word]
        return float(np.log1p((self._n - holding + 0.5) / (holding + 0.5)))

    def of(self, words: Sequence[str]) -> float:
        """The mean of some words; 0 of none."""
        return sum(map(self, words)) / len(words) if words else 0.0
