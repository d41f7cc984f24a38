"""What the same model does elsewhere: clustering, recommending, another search (`decide.guards`).

One embedding model often serves several products.  Each entry of `decide.guards` names a task of
the seam `task`; the task measures its own data under both models, and the loss must stay within
the margin of the entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from nearer import config, plugins
from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
from nearer.measure.significance import non_inferior
from nearer.search.systems import Systems


@runtime_checkable
class Task(Protocol):
    """Made without arguments.  Measures one task under the model of some systems."""

    def values(self, systems: Systems, guard: config.TaskGuard) -> np.ndarray:
        """(n_items,) float64 in [0, 1]: how well each item fares.

        The same items in the same order for every model; `guard` says which data and measure.
        Raises nearer's errors for data that cannot be read: the guardrail is then inconclusive.
        """


class TasksGuardrail:
    """One row per entry of `decide.guards`, paired item by item."""

    name = "tasks"

    def check(self, evidence: GuardrailEvidence) -> Sequence[Row] | DoesNotApply:
        guards = evidence.settings.guards
        if not guards:
            return DoesNotApply("decide.guards names no task")
        return [_row(guard, evidence) for guard in guards]


def _row(guard: config.TaskGuard, evidence: GuardrailEvidence) -> Row:
    """One task; what it cannot measure is inconclusive and does not hide the other tasks."""
    name = f"task {guard.name or guard.task}"
    try:
        task: Task = plugins.find("task", guard.task, evidence.base.root)()
        before = task.values(evidence.base, guard)
        after = task.values(evidence.tuned, guard)
        result = non_inferior(after - before, guard.margin, evidence.settings.alpha)
    except Exception as error:  # noqa: BLE001 - whatever it raises, the guardrail did not pass
        return Row.unchecked(name, f"its check raised {type(error).__name__}: {error}")
    return Row.of(name, result, before=float(before.mean()), after=float(after.mean()))
