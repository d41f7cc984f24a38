"""TREC run files and judgments, and the BEIR judgments that look like them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from nearer import files
from nearer.config import Columns
from nearer.data import fields, records
from nearer.errors import DataError
from nearer.types import Hit, Run, rank_hits

_LARGEST = float(np.finfo(np.float32).max)
_PLAIN = (".tsv", ".txt", ".qrels", ".trec", "")
Placed = tuple[str, str, int, str | None, str]  # query id, document id, grade, split, file:line


def read_run(path: Path) -> Run:
    """A TREC run file: `query Q0 document rank score tag`; the ranks are made anew from the scores.

    Raises DataError, with file and line, for other shapes, scores that are not finite numbers, and
    a document that a query ranks twice.
    """
    results: dict[str, dict[str, float]] = {}
    name = ""
    for number, line in enumerate(records.lines(path), start=1):
        cells = line.split()
        if not cells:
            continue
        where = f"{path}:{number}"
        if len(cells) != 6:
            raise DataError(f"a run has 6 columns (query Q0 document rank score tag), this line {len(cells)}", where=where,
                            next_step="mend that line")  # fmt: skip
        query_id, _, doc_id, _, text, tag = cells
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not abs(score) <= _LARGEST:  # NaN included
            raise DataError(f"the score {text!r} is not a finite number", where=where, next_step="mend the system that wrote it")
        hits = results.setdefault(query_id, {})
        if doc_id in hits:
            raise DataError(f"query {query_id!r} ranks document {doc_id!r} twice", where=where,
                            next_step="keep one line a document (collapse chunks to documents)")  # fmt: skip
        hits[doc_id] = score
        name = name or tag
    if not results:
        raise DataError("the run holds no results", where=str(path), next_step="correct search.run")
    return Run(name, {query_id: rank_hits(hits.items()) for query_id, hits in results.items()})


def write_run(path: Path, run: Run) -> None:
    """Write a TREC run file, ranks from 1, scores so that reading them gives the same float32.

    Raises DataError for ids with white space (the format cannot hold them) and scores that are not finite.
    """
    tag = "_".join(run.name.split()) or "run"

    def lines() -> Iterator[str]:
        for query_id, given in run.results.items():
            hits: list[Hit] = rank_hits(given)
            for rank, (doc_id, score) in enumerate(hits, start=1):
                if not math.isfinite(score):
                    raise DataError(f"query {query_id!r} scores document {doc_id!r} as {score}", where=str(path),
                                    next_step="mend the system that made the run")  # fmt: skip
                if len(query_id.split()) != 1 or len(doc_id.split()) != 1:
                    raise DataError(f"a TREC run cannot hold white space in ids: {query_id!r}, {doc_id!r}", where=str(path),
                                    next_step="replace the spaces in the ids of your data")  # fmt: skip
                yield f"{query_id} Q0 {doc_id} {rank} {np.float32(score)!s} {tag}\n"

    with files.atomic(path) as handle:
        handle.writelines(lines())


def read_qrels(path: Path, columns: Columns | None = None) -> dict[str, dict[str, int]]:
    """Judgments of one file: query id → document id → grade.

    Takes BEIR's TSV (with or without its header), TREC's four columns, and any format that
    `records.read` takes.  Raises DataError as `judgments` does.
    """
    return collect(judgments(path, columns or Columns()), path).get("all", {})


def collect(placed: Iterator[Placed], path: Path, by_split: bool = False) -> dict[str, dict[str, dict[str, int]]]:
    """Judgments by split (`all` when `by_split` is off, or a row has none).

    Raises DataError when a pair gets two grades and when there are no judgments at all.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for query_id, doc_id, value, split, where in placed:
        graded = found.setdefault(split or "all" if by_split else "all", {}).setdefault(query_id, {})
        if graded.setdefault(doc_id, value) != value:
            raise DataError(f"query {query_id!r} and document {doc_id!r} are graded {graded[doc_id]} and {value}", where=where,
                            next_step="keep one of the lines")  # fmt: skip
    if not found:
        raise DataError("the file holds no judgments", where=str(path), next_step="correct data.judgments or the qrels folder")
    return found


def judgments(path: Path, columns: Columns) -> Iterator[Placed]:
    """Every judgment of a file with its place.  Raises DataError for what cannot be read."""
    shape = _shape(path, columns)
    if shape is None:
        for row, split in fields.rows_of(path, columns):
            yield *fields.judgment(row, columns), split, row.where
        return
    for number, line in enumerate(records.lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t") if shape == 3 and "\t" in line else line.split()
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}:{number}"
        if len(cells) != shape:
            raise DataError(f"{len(cells)} columns, where the first line has {shape}", where=where, next_step="mend that line")
        yield cells[0], cells[-2], fields.grade(cells[-1], where), None, where


def _shape(path: Path, columns: Columns) -> int | None:
    """How many columns a file without a header has: 4 (TREC) or 3; None when it has a header."""
    if path.is_dir() or records.ending(path) not in _PLAIN:
        return None
    first = next((line for line in records.lines(path) if line.strip()), "")
    known: Mapping[str, tuple[str, ...]] = fields.JUDGMENT_ALIASES
    names = {columns.query_id, columns.doc_id, columns.score}.union(*known.values())
    cells = first.split()
    if any(cell in names for cell in cells) or len(cells) not in (3, 4):
        if records.ending(path) == ".tsv":
            return None
        raise DataError(
            "judgments have 4 columns (query 0 document grade) or 3, or a header in a .tsv file",
            where=f"{path}:1",
            next_step="mend the file, or save it as .tsv with the header: query-id, corpus-id, score",
        )
    return len(cells)
