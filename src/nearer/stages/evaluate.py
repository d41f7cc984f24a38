"""How well does today's search do, and for whom?  Measured on dev; test stays closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.generated import origins
from nearer.data.missing import missing_documents, without_missing
from nearer.data.trec import read_run, write_run
from nearer.files import read_json, read_jsonl, write_json, write_jsonl
from nearer.measure.metrics import Scores
from nearer.measure.significance import mean_interval
from nearer.measure.slices import slice_table
from nearer.project import Project
from nearer.rag.contexts import measured
from nearer.results import Block, Lazy, Line, Result, Row, Table
from nearer.search.dense import Contents, require_differences
from nearer.search.slices import slices_of
from nearer.search.systems import Systems
from nearer.tasks import task_of
from nearer.tasks.base import Model, TaskInputs
from nearer.tasks.showing import blocks_of
from nearer.types import Judgments, Run, Split


@dataclass(frozen=True)
class Evaluation(Result):
    """Results of every measured system on one split; `today` names the baseline, which users get."""

    today: str
    split: str
    runs: Mapping[str, Run]
    scores: Mapping[str, Scores]
    summary: Mapping[str, Any]
    task: Mapping[str, Any] = field(default_factory=dict)  # what the task measured besides

    def save(self, folder: Path) -> None:
        """`summary.json`, `scores.jsonl`, `run.trec` of the baseline, and `systems/NAME.*` of all.

        `task.json` too, where the task has measures of its own.
        """
        for name, run in self.runs.items():
            write_run(folder / "systems" / f"{name}.trec", run)
            write_jsonl(folder / "systems" / f"{name}.scores.jsonl", self.scores[name].rows())
        write_run(folder / "run.trec", self.runs[self.today])
        write_jsonl(folder / "scores.jsonl", self.scores[self.today].rows())
        write_json(folder / "summary.json", self.summary)
        if self.task:
            write_json(folder / "task.json", self.task)

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read the summary; runs and scores are read when they are asked for."""
        summary = read_json(folder / "summary.json")
        names = [row["name"] for row in summary["systems"]]
        systems = folder / "systems"
        return cls(
            summary["system"]["system"],
            summary["split"],
            Lazy(names, lambda name: read_run(systems / f"{name}.trec")),
            Lazy(names, lambda name: _read_scores(systems / f"{name}.scores.jsonl")),
            summary,
            read_json(folder / "task.json") if (folder / "task.json").is_file() else {},
        )

    def brief(self) -> dict[str, Any]:
        primary = next(iter(self.summary["measures"]))
        means = {
            row["name"]: round(row["measures"][primary]["mean"], 4)
            for row in self.summary["systems"]
        }
        return {
            "measure": primary,
            "n_queries": self.summary["n_queries"],
            "today": self.today,
            "systems": means,
        }

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per system: its name and the mean of each measure."""
        for row in self.summary["systems"]:
            means = {name: value["mean"] for name, value in row["measures"].items()}
            yield {"system": row["name"], "today": row["name"] == self.today, **means}

    def blocks(self) -> list[Block]:
        names = tuple(self.summary["measures"])
        rows = []
        for row in self.summary["systems"]:
            label = f"{row['name']} (today)" if row["name"] == self.today else row["name"]
            means = (f"{row['measures'][name]['mean']:.3f}" for name in names)
            rows.append(Row((label, *means)))
        blocks: list[Block] = [Line(f"{self.summary['n_queries']:,} {self.split} queries")]
        made = self.summary.get("queries_from", {}).get("generated", 0)
        if made:
            blocks.append(Line(f"{made:,} of them are generated: nobody asked them", "warn"))
        lost = self.summary.get("missing", {}).get("queries_without_any", 0)
        if lost:
            blocks.append(
                Line(f"{lost:,} of them ask only for documents that the corpus lacks: they count 0")
            )
        return [*blocks, Table(("system", *names), rows), *blocks_of(self.task)]


RESULT = Evaluation


def _read_scores(path: Path) -> Scores:
    lines = list(read_jsonl(path))
    measures = [name for name in lines[0] if name != "query_id"] if lines else []
    values = {name: np.array([line[name] for line in lines], np.float64) for name in measures}
    return Scores(tuple(line["query_id"] for line in lines), values)


def evaluate(
    systems: Systems,
    split: Split,
    settings: config.Evaluate,
    *,
    trained: Judgments | None = None,
    min_grade: int = 1,
) -> Evaluation:
    """Measure today's system and the baselines on `split`, with intervals and slices.

    `trained` are the training judgments: they tell seen from unseen documents.  Relevant documents
    that the corpus lacks count as missed; `without_missing` of the summary measures without them.
    """
    task = task_of(systems.config, systems.root)
    names = list(dict.fromkeys([systems.today, *settings.baselines, *task.baselines]))
    measures = list(dict.fromkeys([settings.primary, *settings.measures]))
    if "convex" in names:
        systems.tune(split, settings.primary)
    if any(systems.base(name).dense for name in names):
        _require_differences(systems)
    runs = {name: systems.search(name, split) for name in names}
    scores = {}
    for name, run in runs.items():
        scores[name] = measured(systems, systems.base(name), run, split, measures)
    intervals = {name: _measures(scores[name], measures) for name in names}
    slices = slices_of(split, systems.corpus, min_grade, trained)
    today = scores[systems.today]
    table = slice_table(today, slices, settings.primary, settings.min_slice)
    missing = missing_documents(split, systems.corpus)
    summary: dict[str, Any] = {
        "system": describe(systems, systems.today),
        "split": split.name,
        "n_queries": len(today),
        "skipped_queries": len(today.skipped),
        "measures": intervals[systems.today],
        "slices": {row["slice"]: _of_slice(row, settings.primary) for row in table},
        "systems": [
            {"name": name, **describe(systems, name), "measures": intervals[name]} for name in names
        ],
        "missing": missing,
        "queries_from": origins(split.queries),
    }
    if missing["documents"]:
        run = runs[systems.today]
        summary["without_missing"] = _without_missing(systems, split, run, measures)
    of_task = _of_task(systems, runs, split, trained or {})
    return Evaluation(systems.today, split.name, runs, scores, summary, of_task)


def _of_task(
    systems: Systems, runs: Mapping[str, Run], split: Split, trained: Judgments
) -> dict[str, Any]:
    """What the project's task measures besides."""
    task = task_of(systems.config, systems.root)
    found = task.measure(
        TaskInputs(
            runs=runs,
            models=[Model("today", systems)],
            split=split,
            trained=trained,
            seed=systems.config.seed,
        )
    )
    return {} if found is None else found.as_dict(task.name)


def _of_slice(row: Mapping[str, Any], primary: str) -> dict[str, Any]:
    return {"n": row["n"], "measures": {primary: {"mean": row["mean"], "ci": row["ci"]}}}


def _without_missing(
    systems: Systems, split: Split, run: Run, measures: list[str]
) -> dict[str, Any]:
    """Measures of today's system on the queries whose relevant documents the corpus has."""
    rest = without_missing(split, systems.corpus)
    findable = measured(systems, systems.base(systems.today), run, rest, measures)
    return {"n_queries": len(findable), "measures": _measures(findable, measures)}


def describe(systems: Systems, name: str) -> dict[str, Any]:
    """What a system is: enough to tell two apart and to build it again."""
    described: dict[str, Any] = {"system": name}
    if name in ("dense", "rrf", "convex"):
        described |= {
            "model": systems.encoder.name,
            "fingerprint": systems.encoder.fingerprint.id,
            "precision": systems.encoder.precision.name,
            "dimension": systems.encoder.dimension,
            "max_seq_length": systems.encoder.fingerprint.max_seq_length,
        }
    if name in ("bm25", "rrf", "convex"):
        described |= {
            "stemmer": systems.config.search.stemmer,
            "stopwords": systems.config.search.stopwords,
        }
    if name == "rrf":
        described["rrf_k"] = systems.config.search.rrf_k
    if name == "convex":
        described["dense_weight"] = systems.weight
    return described


def _measures(scores: Scores, measures: list[str]) -> dict[str, Any]:
    return {name: mean_interval(scores.column(name)).as_dict() for name in measures}


def _require_differences(systems: Systems) -> None:
    """Raises ModelError where today's model gives every document, or chunk, the same vector."""
    pipeline = systems.base("dense")
    chunked = systems.chunked(pipeline.chunker)
    texts = Contents(systems.corpus) if chunked is None else chunked.texts
    require_differences(systems.text_vectors(pipeline), texts, systems.encoder.name)


def run(project: Project) -> Evaluation:
    """Measure the baseline and the plain systems on dev.  Raises DataError without dev queries."""
    return evaluate(
        project.systems,
        project.dev,
        project.settings.evaluate,
        trained=project.split("train").judgments,
        min_grade=project.settings.data.min_grade,
    )
