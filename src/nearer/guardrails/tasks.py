"""What the vectors are used for besides: measures of tasks that must hold, also on other tasks.

A model that was tuned for search serves recommendations and clusters of the same documents as
well; `decide.guards` names what must hold there.  Without it the task's own guards apply.
"""

from __future__ import annotations

from collections.abc import Sequence

from nearer.config import TaskGuard
from nearer.data.clusters import QueryClusters
from nearer.guardrails.base import DoesNotApply, GuardrailEvidence, Row
from nearer.tasks import find_task, task_of
from nearer.tasks.base import Cannot, GuardInputs, Verdict


class TaskGuardrail:
    """One row per guard: its bound is shown to hold, shown to be broken, or open."""

    name = "tasks"

    def check(self, evidence: GuardrailEvidence) -> list[Row] | DoesNotApply:
        guards = guards_of(evidence)
        if not guards:
            return DoesNotApply("decide.guards names nothing, and the task guards nothing itself")
        inputs = GuardInputs(
            before=evidence.baseline.run,
            after=evidence.candidate.run,
            base=evidence.base,
            tuned=evidence.tuned,
            split=evidence.test,
            alpha=evidence.settings.alpha,
            seed=evidence.base.config.seed,
            scores=(evidence.baseline.scores, evidence.candidate.scores),
            clusters=_clusters(evidence),
        )
        return [_row(guard, inputs) for guard in guards]


def _clusters(evidence: GuardrailEvidence) -> QueryClusters:
    if evidence.labels is None:
        return QueryClusters()
    query_ids, labels = evidence.candidate.scores.query_ids, evidence.labels.tolist()
    return QueryClusters(dict(zip(query_ids, labels, strict=True)))


def guards_of(evidence: GuardrailEvidence) -> Sequence[TaskGuard]:
    """What the settings name, else the task's own."""
    if evidence.settings.guards is not None:
        return evidence.settings.guards
    settings = evidence.base.config
    return task_of(settings, evidence.base.root).guards(settings)


def _row(guard: TaskGuard, inputs: GuardInputs) -> Row:
    name = f"{guard.task}: {guard.measure}"
    if guard.gain is not None:
        name += " (goal)"
    try:
        found = find_task(guard.task, inputs.base.root).check(guard, inputs)
    except Cannot as reason:
        return Row.unchecked(name, f"cannot say: {reason.why}; {reason.next_step}")
    except Exception as error:  # noqa: BLE001 - whatever it raises, the other guards are checked
        return Row.unchecked(name, f"its check raised {type(error).__name__}: {error}")
    return Row(
        name=name,
        status=found.status,
        margin=_margin(guard),
        delta=round(found.change, 6),
        lower_bound=found.low,
        upper_bound=found.high,
        n=found.n,
        more=_more(guard, found),
    )


def _margin(guard: TaskGuard) -> float | None:
    """The largest loss accepted; a goal accepts less than none."""
    if guard.gain is not None:
        return -guard.gain
    return guard.margin


def _more(guard: TaskGuard, found: Verdict) -> dict[str, object]:
    """Keys beside those of every guardrail; the reasons of the decision repeat what did not pass."""
    more: dict[str, object] = {
        "before": found.before,
        "after": found.after,
        "bound": found.bound,
        "sentence": found.sentence,
    }
    if guard.keep is not None:
        more["keep"] = guard.keep
    if found.status != "pass":
        more["reason"] = found.sentence
    return more
