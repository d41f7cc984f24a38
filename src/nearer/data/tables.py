"""Rows of delimited text: CSV, TSV, and columns between blanks."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nearer.data import texts
from nearer.data.sources import bad

# What separates columns in C: a non-breaking blank is a letter of an id.
_BLANKS = re.compile(r"[ \t\r\n\f\v]+")


class Dialect(NamedTuple):
    """How cells are told apart: `delimiter` is one of `,;|` or a tab, or None for blanks."""

    delimiter: str | None
    quoted: bool = False


def split_blanks(line: str) -> list[str]:
    """Cells between blanks and tabs.  Other white space belongs to the cells."""
    return [cell for cell in _BLANKS.split(line) if cell]


def split_line(line: str, dialect: Dialect) -> list[str]:
    """Cells of one line that holds a whole row.  Raises csv.Error for a quote that stays open."""
    if dialect.delimiter is None:
        return split_blanks(line)
    return list(next(_reader([line], dialect), []))


def delimiter_of(line: str, expected: str) -> str:
    """What separates the columns of a header: as expected, or else what programs write in its place.

    Spreadsheets write semicolons where the comma is a decimal point.
    """
    if expected in line:
        return expected
    return next((other for other in ",;\t|" if other in line), expected)


def dialect_of(line: str, delimiter: str) -> Dialect:
    """How the file is written that begins with this line.

    CSV is quoted.  BEIR's TSV is not: a quote is part of a text; but where all cells of the first
    line stand in quotes, the file was written by something that quotes.
    """
    if delimiter != "\t":
        return Dialect(delimiter, quoted=True)
    cells = line.rstrip("\r\n").split(delimiter)
    return Dialect(delimiter, quoted=all(map(_in_quotes, cells)))


def _in_quotes(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def rows(path: Path, dialect: Dialect, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Number of its first line and cells of each row below the first `skip` lines.

    Blank lines are left out.  Raises DataError, with file and line, for a quote that stays open.
    """
    if dialect.delimiter is None:
        for number, line, _ in texts.lines(path):
            if number > skip and line.strip():
                yield number, split_blanks(line)
        return
    lines = (line for number, line, _ in texts.lines(path) if number > skip)
    reader = _reader(lines, dialect)
    started = skip + 1
    try:
        for cells in reader:
            number = started
            started = skip + reader.line_num + 1
            if len(cells) > 1 or "".join(cells).strip():
                yield number, cells
    except csv.Error as error:
        raise bad(
            f"not valid CSV: {error}", f"{path}:{started}", "mend that line (an open quote?)"
        ) from None


def _reader(lines: Iterable[str], dialect: Dialect) -> Any:
    csv.field_size_limit(sys.maxsize)  # documents are longer than csv's 131,072 characters
    return csv.reader(
        lines,
        delimiter=dialect.delimiter or "\t",
        quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        strict=True,
    )


def leading(path: Path, delimiter: str) -> tuple[int, str]:
    """How many lines stand before the header, blank ones and comments, and the header's first line.

    A line that begins with # and has as many cells as the next other line is no comment.
    """
    skipped, comment, comment_number = 0, "", 0
    for number, line, _ in texts.lines(path):
        if line.startswith("#"):
            comment, comment_number = line, number
        elif line.strip():
            if comment and 0 < comment.count(delimiter) == line.count(delimiter):
                return comment_number - 1, comment
            return skipped, line
        skipped = number
    return skipped, ""


def header(cells: Sequence[str], where: str) -> list[str]:
    """Names of columns; one without a name is called by its number.  Raises DataError when one stands twice."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    for name in names:
        if names.count(name) > 1:
            raise bad(f"column {name!r} appears twice", where, "rename one of them")
    return names
