"""Sections of decide and its guardrails."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nearer.settings.base import Fraction, Section, named
from nearer.settings.tasks import TaskGuard

GuardrailName = Annotated[str, named("guardrail")]


class Guardrails(Section):
    """What must not get worse."""

    slice_margin: Fraction = Field(
        0.05, description="largest loss of the primary measure accepted in a slice"
    )
    general_margin: Fraction = Field(
        0.03,
        description="largest loss accepted on the general-ability set (its 1,040 queries can settle .02)",
    )
    general: str | None = Field("builtin", description="`builtin`, a BEIR folder, or null for none")
    latency_ratio: Annotated[float, Field(ge=1.0)] = Field(
        1.25, description="largest latency accepted, as a ratio to today's (p50 and p95)"
    )
    more: tuple[GuardrailName, ...] = Field(
        (), description="also run: my_module:MyGuardrail, installed ones"
    )


class Decide(Section):
    """Ship or not."""

    min_gain: Fraction = Field(
        0.01,
        description="smallest gain of the primary measure worth a re-index, declared beforehand",
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="error rate: intervals are 1 - alpha wide"
    )
    guardrails: Guardrails = Guardrails()
    bridge: str | None = Field(
        None,
        description="a generation of `nearer index bridge`, judged in place of the fine-tuned model",
    )
    cost_per_hour: Annotated[float, Field(ge=0)] | None = Field(
        None, description="price of the embedding machine, for the cost estimate"
    )
    guards: tuple[TaskGuard, ...] | None = Field(
        None,
        description="measures of tasks that must hold: {task: cluster, measure: V-measure, label: section, margin: 0.02} (null: the task's own)",
    )
