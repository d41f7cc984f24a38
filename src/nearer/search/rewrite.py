"""Queries rewritten before they are searched: acronyms and synonyms added, or a user's own function."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nearer.data import texts
from nearer.errors import DataError, SearchSystemError
from nearer.files import read_json, value_hash
from nearer.measure.slices import STOP_WORDS
from nearer.plugins import import_from
from nearer.search.filters import Phrases
from nearer.text import fold, pieces, words
from nearer.types import Query

Synonyms = Mapping[str, Sequence[str]]
Rewriter = Callable[[Sequence[Query]], list[Query]]

MOST_FORMS = 2  # of an acronym
MIN_SHARE = 0.3  # of its definitions that a form must have
MOST_ADDED = 4  # additions per query

_BRACKET = re.compile(r"\(([^()\n]{2,100})\)")
_SHORT = re.compile(r"\w[\w/&.+-]{0,8}[\w+]")
_REACH = 200  # characters before a bracket that a long form is looked for in
_BREAK = re.compile(r"[;:()\[\]\n]|[.,?!]\s")  # no long form reaches across


def mine_acronyms(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Acronym → the long forms that texts define it by, as "Long Form (LF)" or "LF (Long Form)", the most frequent first.

    A long form holds the letters of the short one in order, the first at the start of a word
    (Schwartz and Hearst, *A Simple Algorithm for Identifying Abbreviation Definitions in Biomedical
    Text*, PSB 2003).  Kept are forms in at least 2 texts, or whose initials spell the acronym; of
    each acronym at most 2, each with 30% of its definitions.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    #: form without case, hyphens and plural → as it was written
    spelled: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        defined = {}
        for short, long in _definitions(text):
            folded = fold(" ".join(words(long)))
            defined[short, folded.removesuffix("s")] = long
        for (short, folded), long in defined.items():
            counts[short][folded] += 1
            spelled[folded][long] += 1
    acronyms: dict[str, tuple[str, ...]] = {}
    for short, forms in sorted(counts.items()):
        kept = _trusted_forms(short, forms)
        if kept:
            acronyms[short] = tuple(_most_common(spelled[form]) for form in kept)
    return acronyms


def _trusted_forms(short: str, forms: Counter[str]) -> list[str]:
    """The most frequent forms of an acronym that are frequent enough, or spelled by its letters."""
    ranked = sorted(forms, key=lambda form: (-forms[form], form))
    trusted = []
    for form in ranked[:MOST_FORMS]:
        repeated = forms[form] > 1 or fold(short) in _initials(form)
        if repeated and forms[form] >= MIN_SHARE * forms.total():
            trusted.append(form)
    return trusted


def _most_common(spellings: Counter[str]) -> str:
    """The most frequent spelling, of several the first in the alphabet."""
    return max(sorted(spellings), key=spellings.__getitem__)


def _definitions(text: str) -> Iterator[tuple[str, str]]:
    for match in _BRACKET.finditer(text):
        begin = max(0, match.start() - _REACH)
        *_, clause = _BREAK.split(text[begin : match.start()])
        before = pieces(clause)
        inside = re.split(r"[,;]", match[1])[0].strip()
        if _is_acronym(inside):
            short = _singular(inside)
            most_words = min(len(short) + 5, 2 * len(short))
            long = _long_form(short, before[-most_words:])
        elif before and _is_acronym(before[-1]):
            short = before[-1]
            whole = pieces(inside)
            long = _long_form(short, whole)
            if long != " ".join(whole):
                continue
        else:
            continue
        long = (long or "").strip("\"'“”‘’")
        longer = len(long) > len(short) + 2
        if longer and short not in words(long):
            yield short, long


def _is_acronym(text: str) -> bool:
    """2 to 10 characters in one piece, two capitals among them or, of up to three, one."""
    capitals = sum(map(str.isupper, text))
    needed = 1 if len(text) <= 3 else 2
    return capitals >= needed and _SHORT.fullmatch(text) is not None


def _long_form(short: str, before: Sequence[str]) -> str | None:
    """The fewest words at the end whose initials are `short`; else the end that holds its letters, found from right to left."""
    for start in reversed(range(len(before))):
        text = " ".join(before[start:])
        if fold(short) in _initials(text):
            return text
    text = " ".join(before)
    start_of_form = _start_of_letters(short.lower(), text.lower())
    if start_of_form < 0 or len(text.lower()) != len(text):
        return None
    return text[start_of_form:]


def _start_of_letters(short: str, text: str) -> int:
    """Where a form begins that holds the letters of `short` in order, the first at the start of a word; -1: nowhere."""
    first, *others = [letter for letter in short if letter.isalnum()]
    position = len(text)
    for letter in reversed(others):
        position = text.rfind(letter, 0, position)
        if position < 0:
            return -1
    position = text.rfind(first, 0, position)
    while position > 0 and text[position - 1].isalnum():
        position = text.rfind(first, 0, position)
    return position


def _singular(acronym: str) -> str:
    if acronym.endswith("s") and acronym[-2].isupper():
        return acronym[:-1]
    return acronym


def _initials(form: str) -> set[str]:
    """First letters of all its words, and of those that are no stop words."""
    every = without_stop_words = ""
    for word in words(fold(form)):
        every += word[0]
        if word not in STOP_WORDS:
            without_stop_words += word[0]
    return {every, without_stop_words}


def read_synonyms(path: Path) -> dict[str, tuple[str, ...]]:
    """Term → synonyms, from a JSON object `{term: [synonyms]}`, or lines `term,synonym` (or tab), `a, b, c` or `a, b => c, d`.

    All terms of a line without `=>` are synonyms of each other.  Empty lines and those that start
    with `#` are skipped; there is no header.  Raises DataError with file and line (JSON: and term).
    """
    entries = _from_json(path) if path.suffix.lower() == ".json" else _from_lines(path)
    synonyms: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in entries:
        forms = [*entry.terms, *entry.synonyms]
        if not entry.synonyms or not all(map(_has_words, forms)):
            raise DataError(
                "a term and its synonyms are needed",
                where=entry.where,
                next_step="for example: car, automobile",
            )
        for term in entry.terms:
            others = [form for form in entry.synonyms if form != term]
            synonyms[term] |= dict.fromkeys(others)
    return {term: tuple(forms) for term, forms in synonyms.items() if forms}


def _has_words(form: Any) -> bool:
    return isinstance(form, str) and bool(words(form))


class _Entry(NamedTuple):
    """One entry of a dictionary: each of the terms is also called by each of the synonyms."""

    where: str
    terms: list[Any]
    synonyms: list[Any]


def _from_json(path: Path) -> Iterator[_Entry]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise DataError(
            "not a JSON object",
            where=str(path),
            next_step='for example: {"MRI": ["magnetic resonance imaging"]}',
        )
    for term, synonyms in values.items():
        listed = synonyms if isinstance(synonyms, list) else [synonyms]
        yield _Entry(f"{path} ({term!r})", [term], listed)


def _from_lines(path: Path) -> Iterator[_Entry]:
    for number, line, _ in texts.lines(path):
        left, arrow, right = line.strip().partition("=>")
        if left.startswith("#") or not (left or arrow):
            continue
        terms, synonyms = _cells(left), _cells(right)
        if not arrow:
            synonyms = terms if len(terms) > 1 else []
        if "=>" in right:
            synonyms = []
        yield _Entry(f"{path}:{number}", terms, synonyms)


def _cells(text: str) -> list[Any]:
    return [cell.strip().strip('"') for cell in re.split(r"[,\t]", text)]


class Expander:
    """Adds to a query what its terms are also called: the long form of an acronym, the acronym of a long form, synonyms.

    Both ways, whatever the direction in the dictionary.  Acronyms are found in their own case (and
    with a plural s), words in any, as whole words, the longest first.
    """

    name = "synonyms"

    def __init__(self, synonyms: Synonyms) -> None:
        others: dict[str, dict[str, None]] = defaultdict(dict)
        for term, forms in sorted(synonyms.items()):
            for form in forms:
                others[term][form] = others[form][term] = None
        self._others = {term: tuple(forms) for term, forms in others.items()}
        for term, forms in list(self._others.items()):
            if _is_acronym(term) and term[-1].isupper():
                self._others.setdefault(f"{term}s", forms)
        self._phrases = _phrases(self._others)
        listed = {term: list(forms) for term, forms in synonyms.items()}
        self.fingerprint = value_hash(listed)

    def rewrite(self, query: Query) -> Query:
        """The query with at most 4 additions behind its text; the query itself when there is nothing to add."""
        text, added = query.text, 0
        for term in self._phrases.find(words(query.text)):
            for form in self._others[term]:
                if added < MOST_ADDED and not _phrases([form]).find(words(text)):
                    text, added = f"{text} {form}", added + 1
        return replace(query, text=text) if added else query

    def __call__(self, queries: Sequence[Query]) -> list[Query]:
        return [self.rewrite(query) for query in queries]


def _phrases(terms: Iterable[str]) -> Phrases:
    """Acronyms are found in their own case, words in any."""
    return Phrases((term, _is_acronym(term)) for term in terms)


def query_rewriter(name: str, root: Path) -> Rewriter:
    """The user's `module:function`, from a list of queries to their new texts.

    Raises what `plugins.import_from` raises for a function that cannot be imported, and
    SearchSystemError, when called, for one that fails or does not answer with one text per query.
    """
    function = import_from(name, root, "fix.rewriters", "function")

    def rewrite(queries: Sequence[Query]) -> list[Query]:
        try:
            texts = function(list(queries))
        except Exception as error:
            raise SearchSystemError(
                f"the function raised {type(error).__name__}: {error}",
                where=name,
                next_step="mend the function",
            ) from error
        if not _are_texts(texts, len(queries)):
            raise SearchSystemError(
                "one text a query is needed",
                where=name,
                next_step="return a list of texts, one a query, in their order",
            )
        rewritten = []
        for query, text in zip(queries, texts, strict=True):
            if text != query.text:
                query = replace(query, text=text)  # noqa: PLW2901 - the query as it is searched
            rewritten.append(query)
        return rewritten

    return rewrite


def _are_texts(texts: Any, count: int) -> bool:
    """Whether an answer is a list of so many texts, none of them blank."""
    if not isinstance(texts, list) or len(texts) != count:
        return False
    return all(isinstance(text, str) and text.strip() for text in texts)
