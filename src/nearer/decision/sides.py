"""Reads what is compared: a run of nearer, the folder of one from elsewhere, a TREC run, a file of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearer import files
from nearer.data.trec import read_run
from nearer.decision.contrast import Side
from nearer.errors import DataError
from nearer.measure.metrics import Scores, score
from nearer.records import finite
from nearer.types import Run, Split

_RUN, _SCORES, _SUMMARY = "run.trec", "scores.jsonl", "summary.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Results or scores of one system, as they lie on disk; one of `run` and `scores` is there.

    `asked` are the queries that were asked, where that is known: others are not judged.  Where it is
    not known, a judged query without results counts 0, as trec_eval -c counts it.
    """

    name: str
    run: Run | None = None
    scores: Scores | None = None
    asked: frozenset[str] | None = None
    described: Mapping[str, Any] = field(default_factory=dict)

    def side(self, split: Split | None, measures: Sequence[str], item_to_item: bool) -> Side:
        """Its scores: results are measured anew on `split`, so that both sides are judged alike.

        Raises DataError where there are results and nothing to judge them by.
        """
        if self.scores is not None:
            return Side(self.name, self.scores, self.described)
        if self.run is None or split is None:
            raise DataError(
                f"nothing says which documents are relevant to the queries of {self.name}",
                next_step="add --qrels FILE, or run nearer check in the project",
            )
        if self.run.results.keys().isdisjoint(split.judgments):
            raise DataError(
                f"{self.name} has results for none of the {len(split.judgments):,} judged queries",
                next_step="name the judgments of its queries: --qrels FILE",
            )
        asked = _asked(split, self.asked)
        scores = score(self.run, asked, measures, item_to_item)
        empty = sum(not self.run.results.get(query_id) for query_id in scores.query_ids)
        return Side(self.name, scores, self.described, empty)


def _asked(split: Split, asked: frozenset[str] | None) -> Split:
    """The split without the queries that were not asked."""
    if asked is None:
        return split
    queries = tuple(query for query in split.queries if query.id in asked)
    return Split(split.name, queries, split.judgments)


def read_source(reference: str, root: Path, system: str | None = None) -> Source:
    """What a reference means: the name of a run below `root/runs`, a folder, or a file.

    `system` names one of the systems that `evaluate` measured (None: the baseline).  A file that
    ends in .jsonl holds scores per query, any other one is a TREC run.  A plain name means the run
    also where a folder beside it has the same name.  Raises DataError.
    """
    path = Path(reference).expanduser()
    folders = [path, root / reference, root / "runs" / reference]
    if reference == path.name:
        folders.reverse()
    for folder in folders:
        if folder.is_dir():
            return _of_folder(reference, folder, system)
    for file in (path, root / reference):
        if file.is_file():
            return _of_file(file)
    raise DataError(
        f"there is no run or file called {reference}",
        where=str(root / "runs"),
        next_step=f"nearer evaluate --run {path.name}, or name a TREC run or a scores.jsonl",
    )


def _of_file(path: Path) -> Source:
    if path.suffix == ".jsonl":
        return Source(path.name, scores=read_scores(path))
    return Source(path.name, run=read_run(path))


def _of_folder(reference: str, folder: Path, system: str | None) -> Source:
    """From the folder of a run, or of its stage `evaluate` alone."""
    name = Path(reference).name or reference
    evaluated = folder / "evaluate" if (folder / "evaluate").is_dir() else folder
    described = _described(evaluated / _SUMMARY, system)
    run, scores = evaluated / _RUN, evaluated / _SCORES
    if system is not None:
        run = evaluated / "systems" / f"{system}.trec"
        scores = evaluated / "systems" / f"{system}.scores.jsonl"
        name = f"{name} {system}"
    if run.is_file():
        asked = frozenset(read_scores(scores).query_ids) if scores.is_file() else None
        return Source(name, run=read_run(run), asked=asked, described=described)
    if scores.is_file():
        return Source(name, scores=read_scores(scores), described=described)
    what = "was not evaluated" if system is None else f"has no results of a system {system}"
    raise DataError(
        f"{reference} {what}",
        where=str(run),
        next_step=f"nearer evaluate --run {Path(reference).name}",
    )


def _described(path: Path, system: str | None) -> Mapping[str, Any]:
    """What a summary says of a system, without its figures; empty where there is no summary."""
    if not path.is_file():
        return {}
    summary = files.read_json(path)
    if not isinstance(summary, dict):
        return {}
    described = summary.get("system")
    if system is not None:
        described = _named(summary.get("systems"), system)
    if not isinstance(described, dict):
        return {}
    return {key: value for key, value in described.items() if key not in ("measures", "name")}


def _named(rows: Any, name: str) -> Any:
    """The first object of a list that has the name; None where there is none."""
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("name") == name:
            return row
    return None


def read_scores(path: Path) -> Scores:
    """A file of scores per query: `{"query_id", measure: value, …}` in each line.

    Raises DataError, with the line, for anything else.
    """
    query_ids: list[str] = []
    columns: dict[str, list[float]] = {}
    for number, line in enumerate(files.read_jsonl(path), start=1):
        problem = _problem(line, columns if query_ids else None)
        if problem:
            raise DataError(
                problem,
                where=f"{path}:{number}",
                next_step="one object per line, as evaluate/scores.jsonl has them",
            )
        query_ids.append(str(line["query_id"]))
        for name, value in line.items():
            if name != "query_id":
                columns.setdefault(name, []).append(float(value))
    if len(set(query_ids)) != len(query_ids) or not query_ids:
        what = "a query stands in it twice" if query_ids else "the file holds no scores"
        raise DataError(what, where=str(path), next_step="nearer evaluate --force")
    return Scores(tuple(query_ids), {name: np.array(column) for name, column in columns.items()})


def _problem(line: Any, columns: Mapping[str, Any] | None) -> str:
    """What is wrong with a line of scores; `columns` are those of the lines before it."""
    if not isinstance(line, dict) or "query_id" not in line:
        return "a line of scores needs a query_id"
    names = [name for name in line if name != "query_id"]
    for name in names:
        value = finite(line[name])
        if value is None:
            return f"{name} is no number"
        if not 0 <= value <= 1:
            return f"{name} is {value:g}, and measures lie between 0 and 1"
    if columns is not None and set(names) != set(columns):
        return "its measures are not those of the lines above"
    return "" if names else "a line of scores needs a measure"
