"""Search: queries and the documents that answer them.  What all stages are made for."""

from __future__ import annotations

from pathlib import Path

from nearer.config import Config, TaskGuard
from nearer.data.load import Loaded, load
from nearer.measure.metrics import score
from nearer.tasks.base import Cannot, GuardInputs, Task, Verdict
from nearer.tasks.bounds import of_columns


class SearchTask(Task):
    name = "search"
    question = "Which documents answer this query?"

    def load(self, settings: Config, root: Path) -> Loaded:
        return load(settings.data, root)

    def check(self, guard: TaskGuard, inputs: GuardInputs) -> Verdict:
        return of_searches(guard, inputs)


def of_searches(guard: TaskGuard, inputs: GuardInputs) -> Verdict:
    """The verdict on a measure of search per query.  Raises ConfigError for an unknown name."""
    known = inputs.scores
    if known is not None and guard.measure in known[0].values:
        measured = list(known)
    else:
        items = inputs.base.item_to_item
        runs = (inputs.before, inputs.after)
        measured = [score(run, inputs.split, [guard.measure], items) for run in runs]
    before, after = (scores.column(guard.measure) for scores in measured)
    if not len(before):
        raise Cannot("no query of the split is judged", "add judgments, then nearer check")
    labels = inputs.clusters.labels(measured[0].query_ids)
    return of_columns(guard, before, after, inputs, labels=labels)
