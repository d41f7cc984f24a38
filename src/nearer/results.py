"""What a stage returns: a value that saves itself, reads itself back, and shows itself.

`blocks()` says once what people should see; the terminal, `print` and a notebook draw it.
"""

from __future__ import annotations

import html
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from nearer.tables import Grid, PlainConsole

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

T = TypeVar("T")

#: Tone of a line or row → its style in a terminal.
STYLES = {
    "": "",
    "bold": "bold",
    "dim": "dim",
    "good": "bold green",
    "simpler": "bold cyan",
    "bad": "bold red",
    "warn": "yellow",
    "doubt": "bold yellow",
    "command": "cyan",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text; `tone` is a key of STYLES."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row of a table."""

    cells: tuple[str, ...]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; columns named in `prose` may wrap."""

    columns: tuple[str, ...]
    rows: Sequence[Row] = ()
    prose: tuple[str, ...] = field(default=())


Block = Line | Table


class Result(ABC):
    """What a stage found.  Subclasses are frozen dataclasses."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files of the stage (see docs/files.md) into an existing folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.  Raises DataError for a damaged file."""

    @abstractmethod
    def brief(self) -> dict[str, Any]:
        """The few figures that `step.json`, `nearer status` and `--json` repeat."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """What people should see, in a few lines and tables."""

    def rows(self) -> Iterable[dict[str, Any]]:
        """The main table, one flat record per row, for `to_pandas`."""
        return ()

    def to_pandas(self) -> pd.DataFrame:
        """The main table as a DataFrame."""
        import pandas as pd

        return pd.DataFrame.from_records(list(self.rows()))

    def __str__(self) -> str:
        return in_text(self.blocks())

    def _repr_html_(self) -> str:
        """What a notebook shows.  Everything is escaped."""
        return in_html(self.blocks())


class Lazy(Mapping[str, T]):
    """Parts of a saved result, each read when it is first asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], T]) -> None:
        self._names = dict.fromkeys(names)
        self._read = read
        self._parts: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._parts:
            self._parts[name] = self._read(name)
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def draw(blocks: Iterable[Block], console: Console) -> None:
    """Draw blocks on a console of rich, indented by two."""
    from rich.text import Text

    for block in blocks:
        if isinstance(block, Line):
            console.print(Text(f"  {block.text}" if block.text else "", style=STYLES[block.tone]))
            continue
        grid = Grid(*block.columns, prose=block.prose)
        for row in block.rows:
            grid.add(*row.cells, style=STYLES[row.tone] or None)
        console.print(grid)


def in_text(blocks: Iterable[Block]) -> str:
    """Blocks as plain text, as wide as they need to be."""
    console = PlainConsole(
        file=io.StringIO(), highlight=False, markup=False, emoji=False, color_system=None
    )
    draw(blocks, console)
    written = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    return "\n".join(line.rstrip() for line in written.splitlines())


def in_html(blocks: Iterable[Block]) -> str:
    """Blocks as HTML without scripts or styles of its own; every text is escaped."""
    parts = []
    for block in blocks:
        if isinstance(block, Line):
            parts.append(f"<p>{_emphasised(block.text, block.tone)}</p>")
            continue
        head = "".join(f"<th>{html.escape(name)}</th>" for name in block.columns)
        body = "".join(_html_row(row) for row in block.rows)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return "\n".join(parts)


def _html_row(row: Row) -> str:
    cells = "".join(f"<td>{_emphasised(cell, row.tone)}</td>" for cell in row.cells)
    return f"<tr>{cells}</tr>"


def _emphasised(text: str, tone: str) -> str:
    escaped = html.escape(text)
    strong = STYLES[tone].startswith("bold")
    return f"<strong>{escaped}</strong>" if strong else escaped


def short_path(path: Path) -> str:
    """A path as people type it here: relative to the current folder where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
