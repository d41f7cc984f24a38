"""How well does today's search do, and for whom?  Measured on dev; test stays closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nearer import config
from nearer.data.trec import write_run
from nearer.files import write_json, write_jsonl
from nearer.measure.metrics import Scores, score
from nearer.measure.significance import mean_interval
from nearer.measure.slices import slice_table
from nearer.search.slices import slices_of
from nearer.search.systems import Systems
from nearer.stages.shared import (
    corpus_of,
    dev_of,
    missing_of,
    split_of,
    systems_of,
    without_missing,
)
from nearer.types import Judgments, Run, Split
from nearer.workspace import StepContext


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of every measured system on one split; `today` names the one users get."""

    today: str
    split: str
    runs: Mapping[str, Run]
    scores: Mapping[str, Scores]
    summary: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [f"{self.summary['n_queries']} {self.split} queries"]
        if lost := self.summary["missing"]["queries_without_any"]:
            lines.append(f"{lost} of them ask for documents that the corpus lacks, and count 0")
        for row in self.summary["systems"]:
            measures = "  ".join(
                f"{name} {value['mean']:.3f}" for name, value in row["measures"].items()
            )
            lines.append(
                f"{row['name']:>8}  {measures}{'   ← today' if row['name'] == self.today else ''}"
            )
        return "\n".join(lines)


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
    names = list(dict.fromkeys([systems.today, *settings.baselines]))
    measures = list(dict.fromkeys([settings.primary, *settings.measures]))
    if "convex" in names:
        systems.tune(split, settings.primary)
    runs = {name: systems.search(name, split) for name in names}
    scores = {name: score(run, split, measures, systems.item_to_item) for name, run in runs.items()}
    intervals = {name: _measures(scores[name], measures) for name in names}
    slices = slices_of(split, systems.corpus, min_grade, trained)
    today = scores[systems.today]
    table = slice_table(today, slices, settings.primary, settings.min_slice)
    missing = missing_of(split, systems.corpus)
    summary = {
        "system": describe(systems, systems.today),
        "split": split.name,
        "n_queries": len(today),
        "skipped_queries": len(today.skipped),
        "measures": intervals[systems.today],
        "slices": {
            row["slice"]: {
                "n": row["n"],
                "measures": {settings.primary: {"mean": row["mean"], "ci": row["ci"]}},
            }
            for row in table
        },
        "systems": [
            {"name": name, **describe(systems, name), "measures": intervals[name]} for name in names
        ],
        "missing": missing,
    }
    if missing["documents"]:
        findable = score(runs[systems.today], without_missing(split, systems.corpus), measures)
        summary["without_missing"] = {
            "n_queries": len(findable),
            "measures": _measures(findable, measures),
        }
    return Evaluation(systems.today, split.name, runs, scores, summary)


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


def step(context: StepContext) -> dict[str, Any]:
    """Files: `summary.json`, `scores.jsonl` and `run.trec` of today's system, and `systems/NAME.*` of all."""
    settings = context.config
    systems = systems_of(context, corpus_of(context))
    split = dev_of(context)
    result = evaluate(
        systems,
        split,
        settings.evaluate,
        trained=split_of(context, "train").judgments,
        min_grade=settings.data.min_grade,
    )
    for name, run in result.runs.items():
        write_run(context.out / "systems" / f"{name}.trec", run)
        write_jsonl(context.out / "systems" / f"{name}.scores.jsonl", result.scores[name].rows())
    write_run(context.out / "run.trec", result.runs[result.today])
    write_jsonl(context.out / "scores.jsonl", result.scores[result.today].rows())
    write_json(context.out / "summary.json", result.summary)
    primary = settings.evaluate.primary
    return {
        "measure": primary,
        "n_queries": result.summary["n_queries"],
        "today": result.today,
        "systems": {name: round(scores.mean(primary), 4) for name, scores in result.scores.items()},
    }
