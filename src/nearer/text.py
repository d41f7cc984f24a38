"""What a word is, in every script: the one answer that searching, comparing and counting share.

Words are runs of letters, digits and `_` with the marks that belong to them, in the spirit of
Unicode's UAX #29; apostrophes and hyphens end a word.  Han, Japanese, Thai, Lao, Khmer, Myanmar and
the other scripts that Unicode calls "complex context" have no blanks between words.  There
a text is compared and counted by characters (a base with its marks), and searched by overlapping
pairs of characters, as Lucene's CJK analyser does; a character that stands alone is searched alone.
Words of Korean have blanks between them and stay whole.
"""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import regex

#: Raise it when a text gives other words than before: stored indexes of words are then rebuilt.
WORD_RULES = 1

Span = tuple[int, int]

_MARK = r"[\p{Mn}\p{Mc}]"
_UNSPACED = (
    r"[[\p{Line_Break=Complex_Context}\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}"
    r"\p{scx=Bopomofo}\p{scx=Yi}]&&[\p{L}\p{N}]]"
)
_CHARACTER = rf"{_UNSPACED}{_MARK}*"
_LETTER = rf"[[\p{{L}}\p{{N}}_]--{_UNSPACED}]"
#: The soft hyphen, the (non-)joiners of Persian and Indic words, and what else is invisible.
_INVISIBLE = r"[\u00ad\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]"
_WORD = rf"{_LETTER}(?:{_LETTER}|{_MARK}|{_INVISIBLE}+(?={_LETTER}|{_MARK}))*"

_unspaced = regex.compile(_UNSPACED, regex.V1)
_character = regex.compile(_CHARACTER, regex.V1)
# A zero-width space between characters marks words in some Khmer and Thai texts and not in others.
_run = regex.compile(
    rf"(?P<unspaced>{_CHARACTER}(?:\u200b?{_CHARACTER})*)|{_WORD}",
    regex.V1,
)
_run_with_signs = regex.compile(
    rf"(?P<unspaced>{_CHARACTER}(?:\u200b?{_CHARACTER})*)|(?:{_WORD}|[+#])+",
    regex.V1,
)
_token = regex.compile(rf"{_CHARACTER}|{_WORD}|[^\s\p{{L}}\p{{N}}_]", regex.V1)
_piece = regex.compile(
    rf"{_CHARACTER}[^\s\p{{L}}\p{{N}}]*|(?:(?!{_UNSPACED})\S)+",
    regex.V1,
)
_ascii_word = regex.compile(r"[a-z0-9_]+")
_ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


def fold(text: str) -> str:
    """A text without case, width and other compatibility variants, and invisible characters.

    This is Unicode's NFKC_Casefold: what it makes equal is the same word.
    """
    if text.isascii():
        return text.lower()
    visible = _ignorable.sub("", unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFKC", visible.casefold())


def folded_line(text: str) -> str:
    """`fold` with one blank in place of any space: equal for texts that differ in layout alone."""
    return " ".join(fold(text).split())


def folded_words(text: str) -> list[str]:
    """The words to search for, in order and folded; pairs of characters where no blanks stand."""
    if text.isascii():
        return list(_ascii_word.findall(text.lower()))
    terms: list[str] = []
    for match in _run.finditer(text):
        folded = fold(match.group())
        if match["unspaced"] is None:
            terms.append(folded)
        else:
            terms.extend(_pairs(folded))
    return terms


def search_terms(text: str) -> list[str]:
    """`folded_words` as BM25 indexes them: without the single letters and digits of scripts with blanks."""
    return [term for term in folded_words(text) if len(term) > 1 or _unspaced.match(term)]


def _pairs(folded: str) -> list[str]:
    characters: list[str] = _character.findall(folded)
    if len(characters) < 2:
        return characters
    return [first + second for first, second in pairwise(characters)]


def words(text: str) -> list[str]:
    """Words as they are written (NFC), to find phrases by: C, C++ and C# are three words.

    Scripts without blanks give one character at a time, so that a phrase is found wherever its
    characters follow each other.
    """
    written: list[str] = []
    for match in _run_with_signs.finditer(unicodedata.normalize("NFC", text)):
        if match["unspaced"] is None:
            written.append(match.group())
        else:
            written.extend(_character.findall(match.group()))
    return written


def token_spans(text: str) -> list[Span]:
    """Start and end of each word, punctuation mark, and character of scripts without blanks.

    Chunkers count these where no model says what a token is.
    """
    return [match.span() for match in _token.finditer(text)]


def pieces(text: str) -> list[str]:
    """What blanks separate, punctuation included, and each character where no blanks stand."""
    if text.isascii() or not _unspaced.search(text):
        return text.split()
    return list(_piece.findall(text))


def count_words(text: str) -> int:
    """How many words a text has, as word processors count: by blanks, else by characters."""
    return len(pieces(text))
