"""Text and tables of Markdown that GitHub and GitLab draw, whatever the data holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nearer.report.values import as_text

_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")
_LINKING = re.compile(r"((?<!\w)@|://|(?i:www)\.)")
_WORD_JOINER = "\u2060"


def plain(value: object, limit: int = 120) -> str:
    """Untrusted text as one line of Markdown that is only text.

    It holds no HTML, no links and no borders of table cells, and mentions nobody.
    """
    line = " ".join(as_text(value, limit).split())
    line = line.replace("&", "&amp;")
    line = line.replace("<", "&lt;").replace(">", "&gt;")
    escaped = _SPECIAL.sub(r"\\\1", line)
    # A word joiner keeps @name, www. and :// from turning into mentions and links; nDCG@10 stays.
    return _LINKING.sub(rf"\1{_WORD_JOINER}", escaped)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table whose first `left` columns are aligned left; none without rows."""
    cells = list(rows)
    if not cells:
        return []
    right = len(header) - left
    borders = ["---"] * left + ["---:"] * right
    lines = []
    for row in (header, borders, *cells):
        line = " | ".join(row)
        lines.append(f"| {line} |")
    lines.append("")
    return lines


def titled(title: str, lines: list[str]) -> list[str]:
    """Lines under a heading; none without lines."""
    if not lines:
        return []
    return [f"### {title}", "", *lines]
