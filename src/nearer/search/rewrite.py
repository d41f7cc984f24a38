"""Queries rewritten before they are searched: acronyms and synonyms added, or a user's own function."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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

MOST_FORMS, MIN_SHARE = 2, 0.3  # forms an acronym, share of its definitions that a form must have
MOST_ADDED = 4  # additions a query

_BRACKET = re.compile(r"\(([^()\n]{2,100})\)")
_SHORT = re.compile(r"\w[\w/&.+-]{0,8}[\w+]")
_BREAK = re.compile(r"[;:()\[\]\n]|[.,?!]\s")  # no long form reaches across


def mine_acronyms(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Acronym → the long forms that texts define it by, as "Long Form (LF)" or "LF (Long Form)", the most frequent first.

    A long form holds the letters of the short one in order, the first at the start of a word
    (Schwartz and Hearst, *A Simple Algorithm for Identifying Abbreviation Definitions in Biomedical
    Text*, PSB 2003).  Kept are forms in at least 2 texts, or whose initials spell the acronym; of
    each acronym at most 2, each with 30% of its definitions.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    spelled: dict[str, Counter[str]] = defaultdict(
        Counter
    )  # form without case, hyphens and plural → as written
    for text in texts:
        defined = {
            (short, fold(" ".join(words(long))).removesuffix("s")): long
            for short, long in _definitions(text)
        }
        for (short, folded), long in defined.items():
            counts[short][folded] += 1
            spelled[folded][long] += 1
    found: dict[str, tuple[str, ...]] = {}
    for short, forms in sorted(counts.items()):
        ranked = sorted(forms, key=lambda form: (-forms[form], form))[:MOST_FORMS]
        kept = [
            f
            for f in ranked
            if forms[f] >= MIN_SHARE * forms.total()
            and (forms[f] > 1 or fold(short) in _initials(f))
        ]
        if kept:
            found[short] = tuple(max(sorted(spelled[f]), key=spelled[f].__getitem__) for f in kept)
    return found


def _definitions(text: str) -> Iterator[tuple[str, str]]:
    for match in _BRACKET.finditer(text):
        clause = _BREAK.split(text[max(0, match.start() - 200) : match.start()])[-1]
        before = pieces(clause)
        inside = re.split(r"[,;]", match[1])[0].strip()
        if _is_acronym(inside):
            short = _singular(inside)
            long = _long_form(short, before[-min(len(short) + 5, 2 * len(short)) :])
        elif before and _is_acronym(before[-1]):
            short, long = before[-1], _long_form(before[-1], pieces(inside))
            long = long if long == " ".join(pieces(inside)) else None
        else:
            continue
        long = (long or "").strip("\"'“”‘’")
        if len(long) > len(short) + 2 and short not in words(long):
            yield short, long


def _is_acronym(text: str) -> bool:
    """2 to 10 characters in one piece, two capitals among them or, of up to three, one."""
    capitals = sum(map(str.isupper, text))
    return bool(_SHORT.fullmatch(text)) and capitals >= (1 if len(text) <= 3 else 2)


def _long_form(short: str, before: Sequence[str]) -> str | None:
    """The fewest words at the end whose initials are `short`; else the end that holds its letters, found from right to left."""
    for start in reversed(range(len(before))):
        if fold(short) in _initials(text := " ".join(before[start:])):
            return text
    text = " ".join(before)
    folded, at = text.lower(), len(text)
    letters = [letter for letter in short.lower() if letter.isalnum()]
    for left, letter in zip(range(len(letters) - 1, -1, -1), reversed(letters), strict=True):
        at = folded.rfind(letter, 0, at)
        while not left and at > 0 and folded[at - 1].isalnum():
            at = folded.rfind(letter, 0, at)
        if at < 0:
            return None
    return text[at:] if len(folded) == len(text) else None


def _singular(acronym: str) -> str:
    return acronym[:-1] if acronym.endswith("s") and acronym[-2].isupper() else acronym


def _initials(form: str) -> set[str]:
    """First letters of all its words, and of those that are no stop words."""
    said = words(fold(form))
    return {
        "".join(word[0] for word in said),
        "".join(word[0] for word in said if word not in STOP_WORDS),
    }


def read_synonyms(path: Path) -> dict[str, tuple[str, ...]]:
    """Term → synonyms, from a JSON object `{term: [synonyms]}`, or lines `term,synonym` (or tab), `a, b, c` or `a, b => c, d`.

    All terms of a line without `=>` are synonyms of each other.  Empty lines and those that start
    with `#` are skipped; there is no header.  Raises DataError with file and line (JSON: and term).
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for where, terms, others in (
        _from_json(path) if path.suffix.lower() == ".json" else _from_lines(path)
    ):
        if not others or not all(isinstance(one, str) and words(one) for one in (*terms, *others)):
            raise DataError(
                "a term and its synonyms are needed",
                where=where,
                next_step="for example: car, automobile",
            )
        for term in terms:
            found[term] |= dict.fromkeys(other for other in others if other != term)
    return {term: tuple(others) for term, others in found.items() if others}


def _from_json(path: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise DataError(
            "not a JSON object",
            where=str(path),
            next_step='for example: {"MRI": ["magnetic resonance imaging"]}',
        )
    for term, others in values.items():
        yield f"{path} ({term!r})", [term], others if isinstance(others, list) else [others]


def _from_lines(path: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
    for number, line, _ in texts.lines(path):
        left, arrow, right = line.strip().partition("=>")
        if left.startswith("#") or not (left or arrow):
            continue
        terms, others = (
            [cell.strip().strip('"') for cell in re.split(r"[,\t]", side)] for side in (left, right)
        )
        if not arrow:
            others = terms if len(terms) > 1 else []
        yield f"{path}:{number}", terms, [] if "=>" in right else others


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
        self._others |= {
            f"{t}s": forms
            for t, forms in self._others.items()
            if _is_acronym(t) and t[-1].isupper() and f"{t}s" not in others
        }
        self._phrases = Phrases((term, _is_acronym(term)) for term in self._others)
        self.fingerprint = value_hash({term: list(forms) for term, forms in synonyms.items()})

    def rewrite(self, query: Query) -> Query:
        """The query with at most 4 additions behind its text; the query itself when there is nothing to add."""
        text, added = query.text, 0
        for other in (
            other for term in self._phrases.find(words(query.text)) for other in self._others[term]
        ):
            if added < MOST_ADDED and not Phrases([(other, _is_acronym(other))]).find(words(text)):
                text, added = f"{text} {other}", added + 1
        return replace(query, text=text) if added else query

    def __call__(self, queries: Sequence[Query]) -> list[Query]:
        return [self.rewrite(query) for query in queries]


def query_rewriter(name: str, root: Path) -> Rewriter:
    """The user's `module:function`, from a list of queries to their new texts.

    Raises what `retrieve.external` raises for a function that cannot be imported, and
    SearchSystemError, when called, for one that fails or does not answer with one text a query.
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
        if (
            not isinstance(texts, list)
            or len(texts) != len(queries)
            or not all(isinstance(text, str) and text.strip() for text in texts)
        ):
            raise SearchSystemError(
                "one text a query is needed",
                where=name,
                next_step="return a list of texts, one a query, in their order",
            )
        return [
            query if text == query.text else replace(query, text=text)
            for query, text in zip(queries, texts, strict=True)
        ]

    return rewrite
