"""TREC run files and judgments, and the BEIR judgments that look like them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nearer import files
from nearer.config import Columns
from nearer.data import fields, records
from nearer.data.sources import bad
from nearer.types import Run, rank_hits

_LARGEST = float(np.finfo(np.float32).max)
_PLAIN = (".tsv", ".txt", ".qrels", ".trec", "")


def read_run(path: Path) -> Run:
    """A TREC run file: `query Q0 document rank score tag`; the ranks are made anew from the scores.

    Raises DataError, with file and line, for other shapes, scores that are not finite numbers, and
    a document that a query ranks twice.
    """
    results: dict[str, dict[str, float]] = {}
    name = ""
    for number, line, _ in records.lines(path):
        cells = line.split()
        if not cells:
            continue
        where = f"{path}:{number}"
        if len(cells) != 6:
            raise bad(
                f"a run has 6 columns (query Q0 document rank score tag), this line {len(cells)}",
                where,
            )
        query_id, _, doc_id, _, text, tag = cells
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not abs(score) <= _LARGEST:  # NaN included
            raise bad(
                f"the score {text!r} is not a finite number", where, "mend the system that wrote it"
            )
        if doc_id in results.setdefault(query_id, {}):
            mend = "keep one line a document (collapse chunks to documents)"
            raise bad(f"query {query_id!r} ranks document {doc_id!r} twice", where, mend)
        results[query_id][doc_id] = score
        name = name or tag
    if not results:
        raise bad("the run holds no results", path, "correct search.run")
    return Run(name, {query_id: rank_hits(hits.items()) for query_id, hits in results.items()})


def write_run(path: Path, run: Run) -> None:
    """Write a TREC run file, ranks from 1, scores so that reading them gives the same float32.

    Raises DataError for ids with white space (the format cannot hold them) and scores that are not finite.
    """
    tag = "_".join(run.name.split()) or "run"
    with files.atomic(path) as handle:
        for query_id, given in run.results.items():
            for rank, (doc_id, score) in enumerate(rank_hits(given), start=1):
                if not math.isfinite(score):
                    raise bad(
                        f"query {query_id!r} scores document {doc_id!r} as {score}",
                        path,
                        "mend the system that made the run",
                    )
                if len(query_id.split()) != 1 or len(doc_id.split()) != 1:
                    what = f"a TREC run cannot hold white space in ids: {query_id!r}, {doc_id!r}"
                    raise bad(what, path, "replace the spaces in the ids of your data")
                handle.write(f"{query_id} Q0 {doc_id} {rank} {np.float32(score)!s} {tag}\n")


def read_qrels(path: Path, columns: Columns = fields.DEFAULT) -> dict[str, dict[str, int]]:
    """Judgments of one file: query id → document id → grade, whatever its splits.

    Takes BEIR's TSV (with or without its header), TREC's four columns, and any format that
    `records.read` takes.  Raises DataError as `read_judgments` does.
    """
    return read_judgments(path, columns, by_split=False)["all"]


def read_judgments(
    path: Path, columns: Columns, by_split: bool = True
) -> dict[str, dict[str, dict[str, int]]]:
    """Judgments by split, as column `columns.split` names it; `all` where it names none, or not `by_split`.

    Raises DataError for what cannot be read, when a pair gets two grades, and when there are none.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for query_id, doc_id, value, split, where in _judgments(path, columns):
        graded = found.setdefault(split if by_split else "all", {}).setdefault(query_id, {})
        if graded.setdefault(doc_id, value) != value:
            what = f"query {query_id!r} and document {doc_id!r} are graded {graded[doc_id]} and {value}"
            raise bad(what, where, "keep one of the lines")
    if not found:
        raise bad("the file holds no judgments", path, "correct data.judgments or the qrels folder")
    return found


def _judgments(path: Path, columns: Columns) -> Iterator[tuple[str, str, int, str, str]]:
    """Query id, document id, grade, split and place of each judgment."""
    width = _width(path, columns)
    if width is None:
        for row in records.read(path):
            split = row.values.get(columns.split) if columns.split else None
            yield (
                *fields.judgment(row, columns),
                "all" if split is None else fields.split_name(split, row.where),
                row.where,
            )
        return
    for number, line, _ in records.lines(path):
        where = f"{path}:{number}"
        cells = line.rstrip("\r\n").split("\t") if width == 3 and "\t" in line else line.split()
        if not line.strip() or line.startswith("#"):
            continue
        if len(cells) != width:
            raise bad(f"{len(cells)} columns, where the first line has {width}", where)
        yield cells[0], cells[-2], fields.grade(cells[-1], where), "all", where


def _width(path: Path, columns: Columns) -> int | None:
    """How many columns a file without a header has: 4 (TREC) or 3; None when it has a header."""
    ending = records.ending(path)
    if path.is_dir() or ending not in _PLAIN:
        return None
    cells = next((line for _, line, _ in records.lines(path) if line.strip()), "").split()
    names = {columns.query_id, columns.doc_id, columns.score}.union(
        *fields.JUDGMENT_ALIASES.values()
    )
    if names.isdisjoint(cells) and len(cells) in (3, 4):
        return len(cells)
    if ending == ".tsv":
        return None
    mend = "mend the file, or save it as .tsv with the header: query-id, corpus-id, score"
    raise bad(
        "judgments have 4 columns (query 0 document grade) or 3, or a header in a .tsv file",
        f"{path}:1",
        mend,
    )
