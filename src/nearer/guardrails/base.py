"""The contract of a guardrail: what it may look at, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from nearer import config
from nearer.data.corpus import Corpus
from nearer.data.leakage import Leakage
from nearer.measure.named import NamedOutcome
from nearer.measure.significance import Guard
from nearer.measure.verdict import Candidate
from nearer.search.costs import Latency
from nearer.search.systems import Systems
from nearer.types import Split

Status = Literal["pass", "fail", "inconclusive", "not measured", "does not apply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailEvidence:
    """What a guardrail may look at: the baseline and the fine-tuned candidate, measured on test."""

    baseline: Candidate  # today's system: its run, and its scores per query
    candidate: Candidate  # the fine-tuned one, scored on the same queries in the same order
    base: Systems  # over the base model: encoder, corpus, settings
    tuned: Systems  # over the fine-tuned model
    test: Split
    slices: Mapping[str, set[str]]  # query ids by slice
    slice_rows: Sequence[Mapping[str, Any]]  # one row per slice, as in decision.json
    latencies: Mapping[str, Latency | None]  # by name of the candidate; None: cannot be timed
    general_set: tuple[Corpus, Split] | None  # None: decide.guardrails.general is null
    settings: config.Decide
    primary: str  # the measure that decides
    labels: np.ndarray | None = None  # (n_queries,) clusters; None: every query by itself
    named: Sequence[NamedOutcome] = ()  # what became of must-pass and high-risk queries
    leakage: Leakage | None = None  # None: nobody knows what the model was trained on
    #: bytes of what each candidate searches, by its name; None: not known
    index_bytes: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def change(self) -> np.ndarray:
        """(n_queries,) float64: what each test query gained in the primary measure."""
        after, before = self.candidate.scores, self.baseline.scores
        change: np.ndarray = after.column(self.primary) - before.column(self.primary)
        return change


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `guardrails` in decision.json.

    `not measured` is a guardrail of ours whose quantity nobody can measure here: it does not hold a
    release back, and the verdict names it.  `does not apply` is one with nothing to guard.  Both
    have a `reason`.  Raises ValueError for an unknown status: a misspelt one must not pass.
    """

    name: str
    status: Status
    margin: float | None = None  # the largest loss accepted
    delta: float | None = None  # the change that was measured
    lower_bound: float | None = None  # of the change
    upper_bound: float | None = None  # left out of the line where there is none
    n: int | None = None  # queries
    queries_needed: int | None = None  # that would settle an inconclusive one
    more: Mapping[str, Any] = field(default_factory=dict)  # further keys

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"status {self.status!r} is none of {', '.join(get_args(Status))}")

    @classmethod
    def of(cls, name: str, guard: Guard, **more: Any) -> Row:
        """The row of a test that the candidate is not inferior."""
        measured = guard.as_dict()
        if "clusters" in measured:
            more = {"clusters": measured.pop("clusters"), **more}
        return cls(name=name, **measured, more=more)

    @classmethod
    def of_ratio(cls, name: str, ratio: float, limit: float, **more: Any) -> Row:
        """The row of a cost: how many times today's it is, and how many times it may be."""
        status: Status = "fail" if ratio > limit else "pass"
        return cls(name=name, status=status, margin=limit, delta=round(ratio, 3), more=more)

    @classmethod
    def unchecked(cls, name: str, reason: str) -> Row:
        """The row of a guardrail that could not be checked, which holds a release back."""
        return cls(name=name, status="inconclusive", more={"reason": reason})

    @classmethod
    def not_measured(cls, name: str, reason: str) -> Row:
        """The row of a guardrail of ours that cannot be measured here."""
        return cls(name=name, status="not measured", more={"reason": reason})

    @classmethod
    def without_object(cls, name: str, reason: str) -> Row:
        """The row of a guardrail that has nothing to guard."""
        return cls(name=name, status="does not apply", more={"reason": reason})

    def as_dict(self) -> dict[str, Any]:
        line: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "margin": self.margin,
            "delta": self.delta,
            "lower_bound": self.lower_bound,
        }
        if self.upper_bound is not None:
            line["upper_bound"] = self.upper_bound
        line |= {"n": self.n, "queries_needed": self.queries_needed}
        return line | dict(self.more)


@dataclass(frozen=True, slots=True)
class DoesNotApply:
    """There is nothing to guard here; the decision says so, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """There is something to guard, and its quantity cannot be measured here.

    For guardrails that run in every decision whether or not anybody asked for them: it does not
    hold a release back, and the verdict names it.  One that somebody asked for answers `NotTried`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class NotTried:
    """It could not be checked; the decision holds it as inconclusive, with the reason."""

    reason: str
    next_step: str  # what would let it be checked


def cannot_be_measured(
    reason: str, setting: str, settings: config.Guardrails
) -> NotMeasured | NotTried:
    """What a guardrail with a limit in the settings answers where its quantity cannot be measured.

    Somebody who changed the limit, `setting`, asked for it to be kept: it is then not tried, which
    holds a release back.  `nearer init` writes every default into nearer.yaml, so that a limit
    which equals its default tells of nobody's wish.
    """
    default = config.Guardrails.model_fields[setting].default
    if getattr(settings, setting) == default:
        return NotMeasured(reason)
    name = f"decide.guardrails.{setting}"
    return NotTried(f"{reason}, and {name} sets a limit", f"remove {name}, or make it measurable")


#: What the check of a guardrail answers: at least one row, or why there is none.
Outcome = Sequence[Row] | DoesNotApply | NotMeasured | NotTried


@runtime_checkable
class Guardrail(Protocol):
    """Made without arguments.  `name` names its row where it gives none of its own."""

    name: str

    def check(self, evidence: GuardrailEvidence) -> Outcome:
        """Has the candidate lost more than may be lost?

        A row passes only when the loss is shown to stay within its margin, and fails only when it
        is shown to exceed it (`nearer.measure.significance.non_inferior`); an exception makes the
        guardrail inconclusive.
        """
