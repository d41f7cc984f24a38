"""Recommendation: items that go with an item, or with a history, judged by what people did.

`data.py` reads it, `measures.py` measures what lists do besides being right; this file puts both
behind the contract of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearer.config import Config, TaskGuard
from nearer.data.load import Loaded
from nearer.measure.recommendation import LESS_IS_BETTER, OF_ALL, PER_LIST, of_all, per_list
from nearer.tasks.base import Cannot, Findings, GuardInputs, Task, TaskInputs, Verdict
from nearer.tasks.bounds import of_columns, of_draws, unknown
from nearer.tasks.recommend import data
from nearer.tasks.recommend.measures import (
    cut_of,
    findings,
    judged_ids,
    lists_of,
    relevant_items,
    shared_catalogue,
)
from nearer.tasks.search import of_searches


class RecommendTask(Task):
    name = "recommend"
    question = "Which items go with this one, or with what somebody engaged with?"
    baselines = ("popularity", "item_knn", "item_hybrid")
    judges_exposure = True

    def load(self, settings: Config, root: Path) -> Loaded:
        return data.load(settings, root)

    def asks_with_items(self, settings: Config) -> bool:
        return settings.recommend.interactions is not None

    def source(self, settings: Config) -> str:
        return "Interactions" if settings.recommend.interactions else super().source(settings)

    def measure(self, inputs: TaskInputs) -> Findings:
        return findings(inputs)

    def guards(self, settings: Config) -> Sequence[TaskGuard]:
        """Nobody ships a model that shows fewer items, or only the popular ones."""
        k = settings.recommend.k
        return (
            TaskGuard(task=self.name, measure=f"Coverage@{k}", keep=0.95),
            TaskGuard(task=self.name, measure=f"Bias@{k}", margin=0.05),
        )

    def check(self, guard: TaskGuard, inputs: GuardInputs) -> Verdict:
        base, _, _ = guard.measure.partition("@")
        if base not in (*PER_LIST, *OF_ALL):
            return of_searches(guard, inputs)
        k = cut_of(guard.measure)
        if k is None:
            raise unknown(guard, [f"{name}@k" for name in (*PER_LIST, *OF_ALL)])
        if not inputs.base.trained and base in ("Popularity", "Bias", "Novelty"):
            raise Cannot(
                "no training relations say which items are popular",
                "give training judgments or recommend.interactions",
            )
        sign = -1 if base in LESS_IS_BETTER else 1
        ids = judged_ids(inputs.split)
        catalogue = shared_catalogue(inputs.base, base == "Diversity")
        before = lists_of(inputs.before, ids, catalogue, k)
        after = lists_of(inputs.after, ids, catalogue, k)
        if not ids:
            raise Cannot("no query of the split is judged", "add judgments, then nearer check")
        if base in OF_ALL:
            n_items = len(catalogue.ids)
            return of_draws(
                guard,
                lambda weights: of_all(base, before, n_items, weights),
                lambda weights: of_all(base, after, n_items, weights),
                len(ids),
                inputs,
                sign,
                inputs.clusters.labels(ids),
            )
        relevant = relevant_items(inputs.split)
        old = per_list(base, before, catalogue, relevant)
        new = per_list(base, after, catalogue, relevant)
        told = ~(np.isnan(old) | np.isnan(new))
        if not told.any():
            raise Cannot("the lists of one of the systems are empty", "see decide/task.json")
        labels = inputs.clusters.labels(ids)
        kept = None if labels is None else labels[told]
        return of_columns(guard, old[told], new[told], inputs, sign, kept)
