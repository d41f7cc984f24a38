"""HTML as text: what a reader of the page reads, with its headings as in Markdown."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from nearer.data.documents.page import Page, UnreadableError, decoded

_SKIPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg", "iframe", "select"})
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr"}
    | {"pre", "blockquote", "figure", "figcaption", "header", "footer", "aside", "br", "hr"}
    | {"form", "body"} | set(_HEADINGS)
)  # fmt: skip
_MAIN = ("main", "article")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset=["']?([A-Za-z0-9_\-]{2,40})""", re.IGNORECASE)
_DECLARED_WITHIN = 4096  # bytes in which browsers look for the encoding


def read(content: bytes) -> Page:
    """The title, and the text of `main` or `article` where the page has one.  Raises UnreadableError."""
    declared = _CHARSET.search(content[:_DECLARED_WITHIN])
    encoding = None if declared is None else declared.group(1).decode()
    reader = _Reader()
    text = decoded(content, encoding)
    try:
        reader.feed(text)
        reader.close()
    except AssertionError as error:  # what Python's parser raises for broken declarations
        raise UnreadableError(f"no HTML that can be read ({error})") from None
    return reader.page()


class _Reader(HTMLParser):
    """Collects the text of a page; what stands inside `main` is kept apart too."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._everything: list[str] = []
        self._main: list[str] = []
        self._title: list[str] = []
        self._heading: list[str] = []
        self._skipped: list[str] = []  # open elements whose text nobody reads
        self._inside_main = 0
        self._inside_title = False
        self._inside_heading = False  # the first h1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped.append(tag)
        if tag == "title" and not self._skipped:  # a drawing has a title of its own
            self._inside_title = True
        if tag in _MAIN:
            self._inside_main += 1
        if tag in _BLOCKS:
            self._inside_heading = False  # where a heading was never closed
            self._add(_line_ends(tag))
        if tag in _HEADINGS:
            self._inside_heading = tag == "h1" and not self._heading
            if not self._inside_heading:
                self._add(f"\n{_HEADINGS[tag]} ")
        if tag in ("td", "th"):
            self._add(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._skipped:
            del self._skipped[self._skipped.index(tag) :]
        if tag == "title":
            self._inside_title = False
        if tag in _HEADINGS:
            self._inside_heading = False
        if tag in _BLOCKS:
            self._add(_line_ends(tag))
        if tag in _MAIN:
            self._inside_main = max(0, self._inside_main - 1)

    def handle_data(self, data: str) -> None:
        if self._inside_title:
            self._title.append(data)
        elif not self._skipped:
            if self._inside_heading:
                self._heading.append(data)
            else:
                self._add(data)

    def _add(self, text: str) -> None:
        self._everything.append(text)
        if self._inside_main:
            self._main.append(text)

    def page(self) -> Page:
        title = _joined(self._heading) or _joined(self._title)
        return Page(title, _text(self._main) or _text(self._everything))


def _line_ends(tag: str) -> str:
    """What a block puts around itself: an empty line around paragraphs."""
    return "\n\n" if tag == "p" else "\n"


def _joined(parts: list[str]) -> str:
    return " ".join("".join(parts).split())


def _text(parts: list[str]) -> str:
    """Lines without extra blanks, and at most one empty line between two of them."""
    lines = [" ".join(line.split()) for line in "".join(parts).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
