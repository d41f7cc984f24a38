"""Which language a text is in, as far as its script and its function words tell; None where they do not.

Enough to notice that queries and documents are in different languages.  Function words are bm25s's
lists of stop words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import regex

from nearer.text import folded_words
from nearer.types import Judgments, Query

#: Scripts that tell the language, or stand for those that are written in them; looked for in this order.
_SCRIPTS = {
    "ja": r"[\p{Hiragana}\p{Katakana}]",
    "ko": r"\p{Hangul}",
    "zh": r"\p{Han}",
    "Cyrillic": r"\p{Cyrillic}",
    "Arabic": r"\p{Arabic}",
    "Greek": r"\p{Greek}",
    "Hebrew": r"\p{Hebrew}",
    "Devanagari": r"\p{Devanagari}",
    "Thai": r"\p{Thai}",
}
_LATIN = {
    "en": "EN_PLUS",
    "de": "GERMAN",
    "nl": "DUTCH",
    "fr": "FRENCH",
    "es": "SPANISH",
    "pt": "PORTUGUESE",
    "it": "ITALIAN",
    "sv": "SWEDISH",
    "no": "NORWEGIAN",
    "da": "DANISH",
    "tr": "TURKISH",
}
_SHARE = 0.3  # of the letters, from which a script tells the language
_FEWEST = 2  # different function words of a language, and how far it must lead the next
_LEAD = 1.5
_COMMON = 0.3  # of all words, from which function words make a text; commands and lists have fewer
_READ = 1000  # characters

_letter = regex.compile(r"\p{L}")
_scripts = {name: regex.compile(pattern) for name, pattern in _SCRIPTS.items()}


def language_of(text: str) -> str | None:
    """A code such as `de`, or a script such as `Cyrillic`; None where too little tells."""
    start = text[:_READ]
    letters = len(_letter.findall(start))
    if not start.isascii():
        for name, script in _scripts.items():
            if letters and len(script.findall(start)) >= _SHARE * letters:
                return name
    read = folded_words(start)
    words = set(read)
    counts = {name: len(words & known) for name, known in _function_words().items()}
    first, second, *_ = sorted(counts, key=lambda name: -counts[name])
    if counts[first] < _FEWEST or counts[first] < _LEAD * counts[second]:
        return None
    known = _function_words()[first]
    share = sum(word in known for word in read) / len(read)
    return first if share >= _COMMON else None


def function_words(language: str | None) -> frozenset[str]:
    """The words of a language that say nothing alone, folded; none where it is not known."""
    return _function_words().get(language or "", frozenset())


@cache
def _function_words() -> Mapping[str, frozenset[str]]:
    from bm25s import stopwords

    known = {}
    for name, suffix in _LATIN.items():
        listed = getattr(stopwords, f"STOPWORDS_{suffix}")
        known[name] = frozenset(word for word in listed if len(word) > 1)
    return known


def across_languages(
    queries: Sequence[Query], judgments: Judgments, texts: Mapping[str, str], min_grade: int
) -> dict[str, set[str]]:
    """`language de → en` → ids of the queries in one language whose relevant documents are in another.

    `texts` are the relevant documents by id.  Queries and documents whose language is not told count
    nowhere.
    """
    languages = {doc_id: language_of(text) for doc_id, text in texts.items()}
    across: dict[str, set[str]] = {}
    for query in queries:
        judged = judgments.get(query.id, {})
        relevant = [doc_id for doc_id, grade in judged.items() if grade >= min_grade]
        wanted = _most_common(languages.get(doc_id) for doc_id in relevant)
        asked = language_of(query.text) if wanted else None
        if asked and wanted and asked != wanted:
            across.setdefault(f"language {asked} → {wanted}", set()).add(query.id)
    return across


def _most_common(names: Iterable[str | None]) -> str | None:
    counts = Counter(name for name in names if name)
    return counts.most_common(1)[0][0] if counts else None
