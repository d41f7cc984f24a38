"""Queries out of a document's own headings, definitions and key phrases: no model, no endpoint.

Everything is counted and sorted, so that the same documents give the same queries.  What comes out
shares its words with the documents and is plain: good enough to try everything out, and to begin
with where there is no endpoint.  Questions are written in languages that have templates here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from nearer.files import value_hash
from nearer.generated.base import Brief, Draft
from nearer.generated.phrases import Parsed, Rarity, parse

_FEW = 4  # words of a query that is no question
_PROMINENT = 2.0  # times that a phrase of the title and the headings weighs more
#: Language → how to ask what something is, and what else to ask about it.
_QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "en": ("what is {}", "how does {} work", "when do I need {}", "why does {} matter"),
    "de": ("was ist {}", "wie funktioniert {}", "wann braucht man {}", "wozu dient {}"),
    "fr": ("qu’est-ce que {}", "comment fonctionne {}", "à quoi sert {}", "quand utiliser {}"),
    "es": ("qué es {}", "cómo funciona {}", "para qué sirve {}", "cuándo usar {}"),
}
#: Words of sentences that tell what goes wrong.
_TROUBLE = re.compile(
    r"\b(?:fail(?:s|ed|ures?)?|errors?|cannot|broken|breaks?|crash(?:es|ed)?|wrong|missing|los[et]|slow"
    r"|leak(?:s|ing)?|damaged?|problems?|issues?|faults?|stuck|noise|warnings?|refused?|rejected"
    r"|attack(?:s|ers?)?|vulnerable|unable|fehler|defekt|kaputt|störung|erreur|panne|problème|fallo)\b",
    re.IGNORECASE,
)


class LocalGenerator:
    """Proposes keywords, questions, symptoms, and keywords that two documents share."""

    name = "local"

    def generate(self, briefs: Sequence[Brief]) -> list[list[Draft]]:
        """The queries of each brief; fewer where a document does not hold enough to ask for."""
        parsed = {}
        for brief in briefs:
            for document in brief.documents:
                if document.id not in parsed:
                    parsed[document.id] = parse(document)
        rarity = Rarity(list(parsed.values()))
        answers = []
        for brief in briefs:
            own = [parsed[document.id] for document in brief.documents]
            drafts = []
            for kind in brief.kinds:
                texts = dict.fromkeys(_texts(kind, own, rarity))
                drafts += [Draft(kind, text) for text in islice(texts, brief.per_kind)]
            answers.append(drafts)
        return answers


def _texts(kind: str, documents: Sequence[Parsed], rarity: Rarity) -> Iterator[str]:
    """Queries of a kind, the best first."""
    first = documents[0]
    if kind == "keywords":
        return _keywords(first, rarity)
    if kind == "question":
        return _questions(first, rarity)
    if kind == "symptom":
        return _symptoms(first, rarity)
    return _shared(documents, rarity)


def _key_phrases(document: Parsed, rarity: Rarity) -> list[tuple[str, ...]]:
    """Phrases of the document by how often it says them, how rare they are, how long, and where."""
    named = document.named

    def weight(phrase: tuple[str, ...]) -> float:
        said = 1.0 + math.log(document.phrases[phrase])
        prominent = _PROMINENT if named.issuperset(phrase) else 1.0
        return said * rarity.of(phrase) * len(phrase) * prominent

    return sorted(document.phrases, key=lambda phrase: (-weight(phrase), phrase))


def _keywords(document: Parsed, rarity: Rarity) -> Iterator[str]:
    """Key phrases of two words and more, then headings as keywords, then single words."""
    phrases = _key_phrases(document, rarity)
    for phrase in phrases:
        if len(phrase) > 1:
            yield " ".join(phrase)
    for heading in document.headings:
        words = document.content_words(heading)
        if len(words) > 1:
            yield " ".join(words[:_FEW])
    for phrase in phrases:
        yield " ".join(phrase)


def _questions(document: Parsed, rarity: Rarity) -> Iterator[str]:
    """What the document defines, how-to headings, then questions about its key phrases."""
    language = document.language or "en"
    templates = _QUESTIONS.get(language)
    if templates is None:
        return
    if language == "en":
        for definition in document.definitions():
            words = definition.name.split()
            if len(words) == 1 and not document.named.issuperset(words):
                continue  # "the load is the sum of …" defines a word of the moment
            yield f"what {'are' if definition.plural else 'is'} {definition.name}?"
        for heading in document.headings:
            if heading.lower().startswith(("how to ", "why ", "when ", "what ")):
                yield f"{heading.lower().rstrip('?')}?"
    for phrase in _key_phrases(document, rarity):
        # Drawn from the phrase, so that documents are asked about in different ways.
        template = templates[int(value_hash(phrase)[:8], 16) % len(templates)]
        yield f"{template.format(' '.join(phrase))}?"


def _symptoms(document: Parsed, rarity: Rarity) -> Iterator[str]:
    """The rarest words of sentences about trouble, then of definitions, without the thing's name."""
    named = set(document.content_words(document.title))
    described = [sentence for sentence in document.sentences if _TROUBLE.search(sentence)]
    described += [definition.body for definition in document.definitions()]
    for sentence in described:
        words = dict.fromkeys(document.content_words(sentence))
        others = [word for word in words if word not in named and not word.isdigit()]
        if len(others) >= _FEW - 1:
            yield " ".join(_rarest(others, rarity))


def _rarest(words: Sequence[str], rarity: Rarity) -> list[str]:
    """The few rarest words, in the order in which they stand."""
    kept = set(sorted(words, key=lambda word: (-rarity(word), word))[:_FEW])
    return [word for word in words if word in kept]


def _shared(documents: Sequence[Parsed], rarity: Rarity) -> Iterator[str]:
    """The rarest words that all of the documents have."""
    held = [{word for phrase in document.phrases for word in phrase} for document in documents]
    common = sorted(set.intersection(*held), key=lambda word: (-rarity(word), word))
    if len(common) > 1:
        yield " ".join(common[:_FEW])
