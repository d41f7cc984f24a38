"""TREC run files and judgments, and the BEIR judgments that look like them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nearer import files
from nearer.config import Columns
from nearer.data import fields, records, tables, texts
from nearer.data.cells import as_float
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.errors import DataError
from nearer.types import Hit, Run, rank_hits

_LARGEST = float(np.finfo(np.float32).max)
_TABLES = (".tsv", ".csv", ".txt", ".qrels", ".trec", "")  # with a header or without
_TRUTHS = ("true", "false")
_LINE_BREAKERS = frozenset("\t\r\n\f\v")
_RUN_COLUMNS = 6

Graded = dict[str, dict[str, int]]  # query id → document id → grade


def read_run(path: Path) -> Run:
    """A TREC run file: `query Q0 document rank score tag`; the ranks are made anew from the scores.

    Ids may hold blanks where tabs separate all six columns.

    Raises DataError, with file and line, for other shapes, scores that are not finite numbers, and
    a document that a query ranks twice.
    """
    results: dict[str, dict[str, float]] = {}
    name = ""
    for number, line, _ in texts.lines(path):
        where = f"{path}:{number}"
        cells = _run_cells(line, where)
        if not cells:
            continue
        query_id, _, doc_id, _, text, tag = cells
        score = _score(text, where)
        scores = results.setdefault(query_id, {})
        if doc_id in scores:
            mend = "keep one line a document (collapse chunks to documents)"
            raise bad(f"query {query_id!r} ranks document {doc_id!r} twice", where, mend)
        scores[doc_id] = score
        name = name or tag
    if not results:
        raise bad("the run holds no results", path, "correct search.run")
    ranked: dict[str, list[Hit]] = {}
    for query_id, scores in results.items():
        ranked[query_id] = rank_hits(scores.items())
    return Run(name, ranked)


def _run_cells(line: str, where: str) -> list[str]:
    """The six columns of a line, none for a blank one.  Raises DataError for another number."""
    cells = line.rstrip("\r\n").split("\t")
    if len(cells) != _RUN_COLUMNS:
        cells = tables.split_blanks(line)
    if cells and len(cells) != _RUN_COLUMNS:
        expected = "a run has 6 columns (query Q0 document rank score tag)"
        raise bad(f"{expected}, this line {len(cells)}", where)
    return cells


def _score(text: str, where: str) -> float:
    score = as_float(text)
    if not abs(score) <= _LARGEST:  # NaN included
        what = f"the score {text!r} is not a finite number"
        raise bad(what, where, "mend the system that wrote it")
    return score


def write_run(path: Path, run: Run) -> None:
    """Write a TREC run file, ranks from 1, scores so that reading them gives the same float32.

    Where ids hold blanks, tabs separate the columns: `read_run` tells them apart, trec_eval does
    not.  Raises DataError for ids with tabs or line ends and for scores that are not finite.
    """
    tag = "_".join(run.name.split()) or "run"
    with files.atomic(path) as handle:
        for query_id, hits in run.results.items():
            for rank, (doc_id, score) in enumerate(rank_hits(hits), start=1):
                if not math.isfinite(score):
                    raise bad(
                        f"query {query_id!r} scores document {doc_id!r} as {score}",
                        path,
                        "mend the system that made the run",
                    )
                if _breaks_line(query_id) or _breaks_line(doc_id):
                    what = f"ids cannot hold tabs or line ends: {query_id!r}, {doc_id!r}"
                    raise bad(what, path, "mend the ids of your data")
                between = " "
                if _has_blanks(query_id) or _has_blanks(doc_id):
                    between = "\t"  # trec_eval reads blanks, not blanks in ids
                number = str(np.float32(score))
                line = between.join([query_id, "Q0", doc_id, str(rank), number, tag])
                handle.write(f"{line}\n")


def _breaks_line(name: str) -> bool:
    """Whether an id cannot stand in a line: it is empty, or holds a tab or a line end."""
    return not name or not _LINE_BREAKERS.isdisjoint(name)


def _has_blanks(name: str) -> bool:
    return len(tables.split_blanks(name)) != 1


def read_qrels(
    path: Path, columns: Columns = fields.DEFAULT, require: Callable[[Row], None] | None = None
) -> Graded:
    """Judgments of one file: query id → document id → grade, whatever its splits.

    Takes BEIR's TSV (with or without its header), TREC's four columns, and any format that
    `records.read` takes.  `require` is called with every row, and raises for one that is no
    judgment.  Raises DataError as `read_judgments` does.
    """
    graded: Graded = {}
    for row in judgment_rows(path, columns):
        if require is not None:
            require(row)
        _split_of(row, columns)  # a split that cannot be read is refused here too
        _add_grade(graded, row, columns)
    if not graded:
        raise _without_judgments(path)
    return graded


def read_judgments(path: Path, columns: Columns) -> dict[str, Graded]:
    """Judgments by split, as column `columns.split` names it; `all` where it names none.

    Raises DataError for what cannot be read, when a pair gets two grades, and when there are none.
    """
    judgments: dict[str, Graded] = {}
    for row in judgment_rows(path, columns):
        split = _split_of(row, columns)
        _add_grade(judgments.setdefault(split, {}), row, columns)
    if not judgments:
        raise _without_judgments(path)
    return judgments


def _add_grade(graded: Graded, row: Row, columns: Columns) -> None:
    """Take in the judgment of a row.  Raises DataError where its pair has another grade."""
    query_id, doc_id, grade = fields.judgment(row, columns)
    first = graded.setdefault(query_id, {}).setdefault(doc_id, grade)
    if first != grade:
        what = f"query {query_id!r} and document {doc_id!r} are graded {first} and {grade}"
        raise row.bad(what, "keep one of the lines")


def _without_judgments(path: Path) -> DataError:
    return bad("the file holds no judgments", path, "correct data.judgments or the qrels folder")


def _split_of(row: Row, columns: Columns) -> str:
    """The split that a row of judgments names; `all` where it names none."""
    if not columns.split:
        return "all"
    name = row.values.get(columns.split)
    if name is None:
        return "all"
    return fields.split_name(name, row.where)


def judgment_rows(path: Path, columns: Columns = fields.DEFAULT) -> Iterator[Row]:
    """Rows of a file of judgments in any format; without a header they go by the names in `columns`.

    Lines that begin with # are comments; between tabs or commas only where they have not the cells
    of a judgment, since an id may begin so too.  Raises DataError, with file and line.
    """
    if path.is_dir() or texts.ending(path) not in _TABLES:
        yield from records.read(path, "relevant_docs")
        return
    shape = _shape_of(path, columns)
    between_blanks = shape.dialect.delimiter is None
    width = len(shape.names)
    for number, row in tables.rows(path, shape.dialect, shape.skip):
        cells = _without_empty_end(row, width)
        if cells[0].startswith("#") and (between_blanks or len(cells) != width):
            continue
        if len(cells) == 1 and shape.dialect.delimiter == "\t":
            cells = tables.split_blanks(cells[0])
        if len(cells) != width:
            what = f"{len(cells)} columns, where the first line has {width}"
            mend = "mend that line; where ids hold blanks, separate the columns by tabs"
            raise bad(what, f"{path}:{number}", mend)
        yield Row(path, number, dict(zip(shape.names, cells, strict=True)))


class _Shape(NamedTuple):
    """How a file of judgments is written: its columns, and the lines above the first judgment."""

    dialect: tables.Dialect
    names: Sequence[str]
    skip: int


def _shape_of(path: Path, columns: Columns) -> _Shape:
    ending = texts.ending(path)
    number, line = _first_line(path, ending)
    if not number:
        return _Shape(tables.Dialect(None), [], 0)
    where = f"{path}:{number}"
    delimiter = _delimiter(line, ending)
    dialect = tables.Dialect(None)
    if delimiter is not None:
        dialect = tables.dialect_of(line, delimiter)
    try:
        cells = tables.split_line(line, dialect)
    except csv.Error as error:
        raise bad(f"not valid CSV: {error}", where, "mend that line (an open quote?)") from None
    cells = _without_empty_end(cells, 3)
    known = {columns.query_id, columns.doc_id, columns.score}
    known = known.union(*fields.JUDGMENT_ALIASES.values())
    names = [cell.strip() for cell in cells]
    if len(cells) in (3, 4) and _could_be_grade(cells[-1]):
        iteration = ["iteration"] if len(cells) == 4 else []  # TREC's second column, always 0
        own = [columns.query_id, *iteration, columns.doc_id, columns.score]
        return _Shape(dialect, own, number - 1)
    if ending in (".tsv", ".csv") or not known.isdisjoint(names):
        return _Shape(dialect, tables.header(cells, where), number)
    raise bad(
        "judgments have 4 columns (query 0 document grade) or 3, or a header",
        where,
        "mend the file, or begin it with the header: query-id, corpus-id, score",
    )


def _without_empty_end(cells: list[str], least: int) -> list[str]:
    """Cells without the empty ones of separators at the end of the line, at least so many."""
    end = len(cells)
    while end > least and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _first_line(path: Path, ending: str) -> tuple[int, str]:
    """Number and text of the first line that is neither blank nor a comment; (0, "") without one."""
    for number, line, _ in texts.lines(path):
        if line.startswith("#"):
            delimiter = _delimiter(line, ending)
            cells = line.split(delimiter) if delimiter else []
            if len(cells) not in (3, 4) or not _could_be_grade(cells[-1]):
                continue
        if line.strip():
            return number, line
    return 0, ""


def _delimiter(line: str, ending: str) -> str | None:
    """What separates the columns of a line: a comma, a tab, or blanks (None)."""
    if ending == ".csv":
        return tables.delimiter_of(line, ",")
    between_blanks = len(tables.split_blanks(line))
    between_tabs = len(line.split("\t"))
    if between_tabs == 1 or (between_tabs == 2 and between_blanks in (3, 4)):
        return None
    return "\t"


def _could_be_grade(cell: str) -> bool:
    text = cell.strip().strip('"')
    try:
        float(text)
    except ValueError:
        return text.lower() in _TRUTHS
    return True
