"""Tables for the terminal that never cut a number or an id, whatever the width.

Where output is piped a line is as long as it needs to be.  In a terminal, columns of prose wrap; where even that
does not fit, each row becomes a block of lines, one per cell.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_PIPED = 100_000  # columns where output is piped
_PROSE = 24  # columns that wrapped text has at least, or all that it needs
_GAP = 2
_HEIGHTS = "▁▂▃▄▅▆▇█"

Cell = str | Text


def sparkline(values: Sequence[float]) -> str:
    """`▁▃▅█`: one character per value, from the smallest to the largest; empty below two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    steps = len(_HEIGHTS) - 1
    heights = [round(steps * (value - low) / ((high - low) or 1.0)) for value in values]
    return "".join(_HEIGHTS[height] for height in heights)


class Verbatim(str):
    """What is printed as it is, however narrow the terminal: JSON."""


class PlainConsole(Console):
    """A console that knows its width in a dumb terminal, and has no limit where output is piped."""

    @property  # type: ignore[misc]  # nobody sets the size of these
    def size(self) -> ConsoleDimensions:
        if not self.is_terminal:
            return ConsoleDimensions(_PIPED, 25)
        if self.is_dumb_terminal:
            return ConsoleDimensions(*shutil.get_terminal_size())
        return super().size

    def print(self, *objects: Any, **options: Any) -> None:
        """As Console.print, without cropping what is longer than the terminal is wide."""
        options.setdefault("crop", False)
        super().print(*objects, **options)

    @property
    def draws(self) -> bool:
        """Whether lines can be drawn over: not in a dumb terminal, and not where output is piped."""
        return self.is_terminal and not self.is_dumb_terminal


class Grid:
    """Rows of cells; columns named in `prose` may wrap, others stay in one piece."""

    def __init__(self, *columns: str, prose: Sequence[str] = ()) -> None:
        self._columns = columns
        self._prose = [name in prose for name in columns]
        self._rows: list[tuple[list[Text], str]] = []

    def add(self, *cells: Cell, style: str | None = None) -> None:
        """One row, with as many cells as there are columns."""
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells for {len(self._columns)} columns")
        texts = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        self._rows.append((texts, style or ""))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least_width() <= options.max_width:
            yield self._table()
        else:
            yield from self._blocks(options.max_width)

    def _least_width(self) -> int:
        total = 0
        for number, (name, prose) in enumerate(zip(self._columns, self._prose, strict=True)):
            needed = max([cell_len(name), *(cells[number].cell_len for cells, _ in self._rows)])
            if prose:
                needed = min(needed, _PROSE)
            total += _GAP + needed
        return total

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 0, 0, _GAP), header_style="dim")
        for name, prose in zip(self._columns, self._prose, strict=True):
            table.add_column(name, no_wrap=not prose, overflow="fold")
        for cells, style in self._rows:
            table.add_row(*cells, style=style or None)
        return table

    def _blocks(self, width: int) -> RenderResult:
        """Each row under its first cell, with a line for every other cell that holds something."""
        label_width = max(map(cell_len, self._columns[1:]), default=0)
        for cells, style in self._rows:
            yield _line(Text.assemble(" " * _GAP, cells[0], style=style), width)
            for name, cell in zip(self._columns[1:], cells[1:], strict=True):
                if cell.plain:
                    label = " " * (2 * _GAP) + name.ljust(label_width + _GAP)
                    yield _line(Text.assemble((label, "dim"), cell), width)


def _line(text: Text, width: int) -> Text:
    """A line that wraps at blanks, or not at all where a word is longer than the terminal is wide.

    Such a word is left to the terminal, out of which it is then copied in one piece.
    """
    if max(map(cell_len, text.plain.split()), default=0) > width:
        text.no_wrap, text.overflow = True, "ignore"
    return text
