"""Markdown as it was written, without front matter and comments; its first heading is the title."""

from __future__ import annotations

import re

import yaml

from nearer.data.documents.page import Page, decoded

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_UNDERLINED = re.compile(
    r"^(?P<heading>[^\s#>|*\-][^\n]*)\n(?P<line>=+|-{3,})[ \t]*$", re.MULTILINE
)
_FENCED = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)[ \t]*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}[ \t]+(?P<heading>.+?)[ \t#]*$", re.MULTILINE)
_LINK = re.compile(r"!?\[(?P<words>[^\]]*)\]\([^)]*\)")
_MARKS = re.compile(r"(?<!\w)[*_`]+|[*_`]+(?!\w)")  # those inside a word are part of its name


def read(content: bytes) -> Page:
    """Raises UnreadableError."""
    text = decoded(content)
    title = ""
    front = _FRONT.match(text)
    if front is not None:
        title = _title_of(front.group(1))
        text = text[front.end() :]
    text = _UNDERLINED.sub(_with_marks, _without_comments(text)).strip()
    heading = _first_heading(text)
    if heading is None:
        return Page(title, text)
    own = plain(heading["heading"])
    if title and title != own:
        return Page(title, text)
    before, after = text[: heading.start()], text[heading.end() :]
    return Page(own, f"{before}{after}".strip())


def _without_comments(text: str) -> str:
    """The text without comments, in one pass; one that is never closed stays."""
    parts = []
    at = 0
    while True:
        start = text.find("<!--", at)
        end = -1 if start < 0 else text.find("-->", start + len("<!--"))
        if end < 0:
            parts.append(text[at:])
            return "".join(parts)
        parts.append(text[at:start])
        at = end + len("-->")


def plain(line: str) -> str:
    """A line as words: without links, emphasis and code marks."""
    return _MARKS.sub("", _LINK.sub(r"\g<words>", line)).strip()


def _first_heading(text: str) -> re.Match[str] | None:
    """The first heading that is no comment in a block of code."""
    fences = [match.span() for match in _FENCED.finditer(text)]
    for heading in _HEADING.finditer(text):
        if not any(start <= heading.start() < end for start, end in fences):
            return heading
    return None


def _with_marks(match: re.Match[str]) -> str:
    """An underlined heading in the form with number signs."""
    level = "#" if match["line"].startswith("=") else "##"
    return f"{level} {match['heading'].strip()}"


def _title_of(front: str) -> str:
    """The title in front matter; empty where it has none or is no YAML."""
    try:
        values = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    title = values.get("title") if isinstance(values, dict) else None
    return title.strip() if isinstance(title, str) else ""
