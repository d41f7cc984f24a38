"""Guardrails: what must not get worse, whatever the primary measure gains.

`base.py` states the contract; every other file is one guardrail.  A new one of ours is a new file
here, one line in the seam `guardrail` of `nearer.plugins`, and its name in `ALWAYS`; the user's own
are named by `decide.guardrails.more`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nearer import plugins
from nearer.errors import ConfigError
from nearer.guardrails.base import (
    DoesNotApply,
    Guardrail,
    GuardrailEvidence,
    NotMeasured,
    NotTried,
    Row,
)

#: Run in every decision about a fine-tuned model, in this order.
ALWAYS = ("slices", "general", "latency", "named", "leakage", "tasks", "memory")


def load_guardrails(more: Sequence[str] = (), root: Path | None = None) -> list[Guardrail]:
    """Ours, then those that `more` names: installed ones, or `"module:Class"` (first in `root`).

    Raises ConfigError for an unknown name and for something that is not a guardrail,
    SearchSystemError when the user's module cannot be imported.
    """
    names = dict.fromkeys([*ALWAYS, *more])
    return [_load(name, root) for name in names]


def _load(name: str, root: Path | None) -> Guardrail:
    make = plugins.find("guardrail", name, root)
    try:
        guardrail = make()
    except Exception as error:
        raise ConfigError(
            f"the guardrail {name} cannot be made: {type(error).__name__}: {error}",
            where="decide.guardrails.more",
            next_step="mend it: a guardrail is made without arguments",
        ) from error
    if not isinstance(guardrail, Guardrail):
        raise ConfigError(
            f"{name} is not a guardrail: it needs a `name` and a method `check(evidence)`",
            where="decide.guardrails.more",
            next_step="see nearer.guardrails.base",
        )
    return guardrail


def check_all(guardrails: Sequence[Guardrail], evidence: GuardrailEvidence) -> list[Row]:
    """The rows of all guardrails, in their order: at least one of each.

    One that could not be checked, or whose check raises, is inconclusive with the reason: it never
    counts as passed.  One that has nothing to guard, or nothing to measure, says so.
    """
    rows: list[Row] = []
    for guardrail in guardrails:
        rows += _check(guardrail, evidence)
    return rows


def _check(guardrail: Guardrail, evidence: GuardrailEvidence) -> list[Row]:
    name = str(guardrail.name)
    try:
        outcome = guardrail.check(evidence)
        if isinstance(outcome, DoesNotApply):
            return [Row.without_object(name, outcome.reason)]
        if isinstance(outcome, NotMeasured):
            return [Row.not_measured(name, outcome.reason)]
        if isinstance(outcome, NotTried):
            return [Row.unchecked(name, f"not tried: {outcome.reason}; {outcome.next_step}")]
        rows = list(outcome)
        if not rows:
            return [Row.unchecked(name, "its check gave no row")]
        json.dumps([row.as_dict() for row in rows], allow_nan=False)
    except Exception as error:  # noqa: BLE001 - whatever it raises, the guardrail did not pass
        return [Row.unchecked(name, f"its check raised {type(error).__name__}: {error}")]
    return rows
