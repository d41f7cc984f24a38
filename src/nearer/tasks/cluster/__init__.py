"""Clustering: documents that belong together, judged by labels, by use, and by what stays the same.

`data.py` makes questions of labels, `items.py` says which documents are measured, `grouping.py`
groups them, `measures.py` measures, `naming.py` says what clusters are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearer.config import Config, TaskGuard
from nearer.data.load import Loaded
from nearer.errors import DataError
from nearer.measure.clusters import WITH_LABELS, Agreement, numbered
from nearer.tasks.base import Cannot, Findings, GuardInputs, Task, TaskInputs, Verdict
from nearer.tasks.bounds import of_columns, of_draws, unknown
from nearer.tasks.cluster import data
from nearer.tasks.cluster.grouping import Grouping
from nearer.tasks.cluster.items import Items, items_of_corpus, items_of_split
from nearer.tasks.cluster.measures import IN_USE, KEPT, Space, findings


class ClusterTask(Task):
    name = "cluster"
    question = "Which documents belong together?"

    def load(self, settings: Config, root: Path) -> Loaded:
        return data.load(settings, root)

    def asks_with_items(self, settings: Config) -> bool:
        return True

    def source(self, settings: Config) -> str:
        return "Labels"

    def measure(self, inputs: TaskInputs) -> Findings:
        return findings(inputs)

    def guards(self, settings: Config) -> Sequence[TaskGuard]:
        """Clusters agree with labels, and few examples find labels, as well as today."""
        return (
            TaskGuard(task=self.name, measure="V-measure", margin=0.03),
            TaskGuard(task=self.name, measure="Few-shot", margin=0.03),
        )

    def check(self, guard: TaskGuard, inputs: GuardInputs) -> Verdict:
        if guard.measure not in (*WITH_LABELS, *IN_USE, KEPT):
            raise unknown(guard, (*WITH_LABELS, *IN_USE, KEPT))
        items = _items(guard, inputs)
        try:
            return self._checked(guard, items, inputs)
        except DataError as error:  # too few documents for so many clusters
            raise Cannot(error.what, error.next_step or "ask for fewer clusters") from None

    def _checked(self, guard: TaskGuard, items: Items, inputs: GuardInputs) -> Verdict:
        """The verdict on one measure.  Raises Cannot, and DataError for what cannot be grouped."""
        settings = inputs.base.config.cluster
        before = Space("before", items, items.vectors(inputs.base), settings, inputs.seed)
        after = Space("after", items, items.vectors(inputs.tuned), settings, inputs.seed)
        if guard.measure == KEPT:
            return _kept(guard, before, after, inputs)
        if guard.measure in IN_USE:
            return _in_use(guard, before, after, inputs)
        return of_draws(
            guard,
            lambda weights: before.agreement.value(guard.measure, weights),
            lambda weights: after.agreement.value(guard.measure, weights),
            len(items),
            inputs,
        )


def _items(guard: TaskGuard, inputs: GuardInputs) -> Items:
    """Those of the test split in a cluster task; in others every document with the label."""
    settings = inputs.base.config
    if settings.task == "cluster" and guard.label in (None, settings.cluster.label):
        return items_of_split(inputs.base, inputs.split)
    field = guard.label or settings.cluster.label
    if field is None:
        raise Cannot(
            "the guard names no label",
            "add label, the metadata field that says where documents belong",
        )
    return items_of_corpus(inputs.base, field)


def _in_use(guard: TaskGuard, before: Space, after: Space, inputs: GuardInputs) -> Verdict:
    columns = before.column(guard.measure), after.column(guard.measure)
    if columns[0] is None or columns[1] is None:
        raise Cannot(
            f"a label has too few documents for {guard.measure}",
            "lower cluster.shots, or leave rare labels out",
        )
    told = ~(np.isnan(columns[0]) | np.isnan(columns[1]))
    if not told.any():
        raise Cannot(
            f"{guard.measure} is known for no document",
            "lower cluster.shots, or label more documents",
        )
    return of_columns(guard, columns[0][told], columns[1][told], inputs)


def _kept(guard: TaskGuard, before: Space, after: Space, inputs: GuardInputs) -> Verdict:
    """How far the candidate's clusters are today's, beside how far today's are those of another seed.

    ARI of two clusterings of the same documents: a clustering that depends on its seed cannot be
    kept by any model.
    """
    again = Grouping(before.settings, inputs.seed + 1)
    repeated = again.clusters(before.vectors, before.items.n_labels)
    today = numbered(before.clusters)
    by_seed, by_model = Agreement(repeated, today), Agreement(after.clusters, today)
    return of_draws(
        guard,
        lambda weights: by_seed.value("ARI", weights),
        lambda weights: by_model.value("ARI", weights),
        len(today),
        inputs,
    )
