"""What the task measures on test beside the measures of search: every candidate, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nearer.decision.inputs import DecisionInputs
from nearer.measure.verdict import TUNED, Candidate
from nearer.tasks import task_of
from nearer.tasks.base import Model, TaskInputs


def measure_task(inputs: DecisionInputs, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """`task.json`; empty for a task without measures of its own."""
    base, tuned = inputs.base, inputs.tuned
    task = task_of(inputs.settings, base.root)
    models = [Model("today", base)]
    if tuned is not None:
        models.append(Model(TUNED, tuned))
    found = task.measure(
        TaskInputs(
            runs={candidate.name: candidate.run for candidate in candidates},
            models=models,
            split=inputs.test,
            trained=inputs.training_judgments or {},
            seed=inputs.settings.seed,
        )
    )
    return {} if found is None else found.as_dict(task.name)
