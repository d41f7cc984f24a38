"""Weak pairs out of the documents' own text: a title, a heading, a question or a docstring is taken
as a query, and the text that it stands over as its positive.

Nobody judged them, so they count less than judged pairs, and all that is ambiguous is left out: a
heading that stands over two different texts says nothing about either.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nearer.config import Mine
from nearer.data.corpus import Corpus
from nearer.text import count_words, folded_line
from nearer.types import Document, Example

Kind = Literal["titles", "headings", "faq", "docstrings"]
#: A query and the text that answers it.
Found = tuple[str, str]

_LOOKED_AT = 20_000  # documents, drawn at random from more
_QUERY_WORDS = (2, 40)
_FEWEST_ANSWER_WORDS = 5
_MOST_CHARACTERS = 4000  # of an answer: more than models read

_HEADING = re.compile(
    r"^(?:#{1,6}[ \t]+(?P<marked>\S.*?)[ \t]*#*|(?P<lined>\S.*)\n(?:=|-){3,})[ \t]*$", re.M
)
_QUESTION = re.compile(
    r"^[ \t#*>-]*(?:\d+[.)][ \t]+)?(?:Q(?:uestion)?[:.][ \t]*)?(?P<text>\S.*\?)[ \t*]*$", re.M
)
_ANSWER_MARK = re.compile(r"^\s*A(?:nswer)?[:.]\s*")
_PYTHON = re.compile(
    r"^(?P<indent>[ \t]*)(?:async[ \t]+)?(?:def|class)[ \t]+\w+[^\n]*(?:\n[^\n]*?)??:[ \t]*\n"
    r'\s*(?P<quotes>"""|\'\'\')(?P<text>.*?)(?P=quotes)(?P<body>(?:\n(?:(?P=indent)[ \t]+[^\n]*|[ \t]*))*)',
    re.M | re.S,
)
_BLOCK = re.compile(r"/\*\*(?P<text>.*?)\*/[ \t]*\n(?P<body>(?:[^\n]*\S[^\n]*(?:\n|$))+)", re.S)
_COMMENT_LINE = re.compile(r"^\s*\*? ?", re.M)


def titles(document: Document) -> Iterator[Found]:
    """The title, over the text."""
    if document.title:
        yield document.title, document.text


def headings(document: Document) -> Iterator[Found]:
    """Headings of Markdown (`#`, or underlined), each over the text before the next one."""
    matches = list(_HEADING.finditer(document.text))
    for match, end in _sections(matches, document.text):
        yield match["marked"] or match["lined"], document.text[match.end() : end]


def faq(document: Document) -> Iterator[Found]:
    """Lines that ask a question, each over the text before the next question or heading."""
    text = document.text
    questions = list(_QUESTION.finditer(text))
    starts = sorted(match.start() for match in (*questions, *_HEADING.finditer(text)))
    for match in questions:
        later = [start for start in starts if start > match.start()]
        end = min(later, default=len(text))
        yield match["text"], _ANSWER_MARK.sub("", text[match.end() : end])


def docstrings(document: Document) -> Iterator[Found]:
    """The first paragraph of a docstring (Python, or `/** … */`), over the code that it describes."""
    for match in _PYTHON.finditer(document.text):
        head = match.group(0)[: match.start("quotes") - match.start()]
        yield _first_paragraph(match["text"]), head + match["body"]
    for match in _BLOCK.finditer(document.text):
        yield _first_paragraph(_COMMENT_LINE.sub("", match["text"])), match["body"]


def _sections(matches: Sequence[re.Match[str]], text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Each match with the position at which its section ends."""
    ends = [match.start() for match in matches[1:]] + [len(text)]
    return zip(matches, ends, strict=False)


def _first_paragraph(text: str) -> str:
    return " ".join(re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].split())


READERS: Mapping[Kind, Callable[[Document], Iterator[Found]]] = {
    "titles": titles,
    "headings": headings,
    "faq": faq,
    "docstrings": docstrings,
}


@dataclass(frozen=True, slots=True)
class WeakPairs:
    """The examples, what was left out by reason, and what collided with held-out queries, by kind."""

    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    leakage: Mapping[str, int]


def weak_pairs(
    corpus: Corpus,
    settings: Mine,
    collides: Callable[[str], str | None],
    rng: np.random.Generator,
) -> WeakPairs:
    """At most `mine.weak_limit` pairs of the kinds in `mine.weak`, as many of each kind as may be.

    `collides` is the held-out guard.  Of a large corpus 20,000 documents are looked at.
    """
    if not settings.weak:
        return WeakPairs((), {}, {})
    collector = _Collector(collides)
    looked_at = rng.permutation(len(corpus))[:_LOOKED_AT]
    for position in sorted(looked_at.tolist()):
        document = corpus[position]
        for kind in settings.weak:
            for query, answer in READERS[kind](document):
                collector.add(kind, document.id, query, answer)
    examples = collector.examples(settings, rng)
    return WeakPairs(tuple(examples), dict(collector.dropped), dict(collector.leakage))


class _Collector:
    """Gathers usable pairs by the folded text of their queries."""

    def __init__(self, collides: Callable[[str], str | None]) -> None:
        self.dropped: Counter[str] = Counter()
        self.leakage: Counter[str] = Counter()
        self._collides = collides
        self._found: dict[str, list[tuple[Kind, str, Found]]] = defaultdict(list)

    def add(self, kind: Kind, doc_id: str, query: str, answer: str) -> None:
        query = " ".join(query.split())
        answer = answer.strip()[:_MOST_CHARACTERS]
        reason = self._reason_against(query, answer)
        if reason:
            self.dropped[reason] += 1
        else:
            self._found[folded_line(query)].append((kind, doc_id, (query, answer)))

    def _reason_against(self, query: str, answer: str) -> str | None:
        shortest, longest = _QUERY_WORDS
        if not shortest <= count_words(query) <= longest:
            return "weak query too short or too long"
        if count_words(answer) < _FEWEST_ANSWER_WORDS:
            return "weak query over hardly any text"
        return None

    def examples(self, settings: Mine, rng: np.random.Generator) -> list[Example]:
        """Pairs whose query stands over one text only; kinds take turns until the limit."""
        by_kind: dict[Kind, list[Example]] = {kind: [] for kind in settings.weak}
        for found in self._found.values():
            if len({folded_line(answer) for _, _, (_, answer) in found}) > 1:
                self.dropped["weak query over several texts"] += len(found)
                continue
            kind, doc_id, (query, answer) = found[0]
            self.dropped["weak pair again"] += len(found) - 1
            example = Example(
                answer,
                query=query,
                source=(f"weak {kind}",),
                weight=settings.weak_weight,
                document=doc_id,
            )
            by_kind[kind].append(example)
        chosen = self._by_turns(by_kind, settings.weak_limit, rng)
        self.dropped = +self.dropped
        return chosen

    def _by_turns(
        self,
        by_kind: Mapping[Kind, list[Example]],
        limit: int,
        rng: np.random.Generator,
    ) -> list[Example]:
        ranked: list[tuple[int, Example]] = []
        for examples in by_kind.values():
            for turn, row in enumerate(rng.permutation(len(examples)).tolist()):
                ranked.append((turn, examples[row]))
        ranked.sort(key=lambda entry: entry[0])
        chosen: list[Example] = []
        for _, example in ranked:
            if len(chosen) == limit:
                self.dropped["weak pairs beyond mine.weak_limit"] += 1
            elif not self._leaks(example):
                chosen.append(example)
        return chosen

    def _leaks(self, example: Example) -> bool:
        """Whether a pair collides with a held-out query; it is then counted as left out."""
        collision = self._collides(str(example.query)) or self._collides(example.positive)
        if collision is None:
            return False
        self.leakage[collision] += 1
        self.dropped["weak query also held out"] += 1
        return True
