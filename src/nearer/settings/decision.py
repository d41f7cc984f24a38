"""Sections of decide and its guardrails."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from nearer.settings.base import Fraction, Section, named
from nearer.settings.tasks import TaskGuard

GuardrailName = Annotated[str, named("guardrail")]
FixName = Annotated[str, named("fix")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]


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
    memory_ratio: Annotated[float, Field(ge=1.0)] = Field(
        3.0, description="largest index accepted, as a ratio to the size of today's"
    )
    more: tuple[GuardrailName, ...] = Field(
        (), description="also run: my_module:MyGuardrail, installed ones"
    )


class Decide(Section):
    """Ship or not."""

    #: Asked by a cut-over, after the decision.
    without_effect: ClassVar[frozenset[str]] = frozenset({"require_sign_off"})

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
    queries_per_day: Annotated[float, Field(gt=0)] | None = Field(
        None, description="traffic, for what a gain is worth; without it nobody can say if it pays"
    )
    value_per_query: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="what one more query that finds its answer is worth, priced as cost_per_hour",
    )
    payback_days: Annotated[float, Field(gt=0)] = Field(
        90, description="days within which a re-index must have earned back what it costs"
    )
    require_sign_off: bool = Field(
        True, description="no cut-over to a decision that no person signed (`nearer sign-off`)"
    )
    clusters: str = Field(
        "auto",
        min_length=1,
        description="what is independent: `auto` notices queries that share a document, a template, "
        "a text or a user; `none`: every query; or a field of queries.jsonl",
    )
    must_pass: tuple[str, ...] = Field(
        (),
        description="ids of queries that must not be lost, beside those with `must_pass: true`",
    )
    high_risk: tuple[str, ...] = Field(
        (), description="ids of high-risk queries, beside those with `high_risk: true`"
    )
    guards: tuple[TaskGuard, ...] | None = Field(
        None,
        description="measures of tasks that must hold: {task: cluster, measure: V-measure, label: section, margin: 0.02} (null: the task's own)",
    )
    accept_generated: Reason | None = Field(
        None,
        description="why a verdict may rest on generated test queries (null: such a verdict ships nothing); the record shows it",
    )
    skip: dict[FixName, Reason] = Field(
        {},
        description="simpler fixes that are not tried, each with the reason, such as {reranking: no latency budget}; the record shows them",
    )
