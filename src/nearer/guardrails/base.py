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

Status = Literal["pass", "fail", "inconclusive"]


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

    Raises ValueError for an unknown status: a misspelt one must not pass.
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
        """The row of a guardrail that could not be checked."""
        return cls(name=name, status="inconclusive", more={"reason": reason})

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
    """There is nothing to guard here; the decision says nothing of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotTried:
    """It could not be checked; the decision holds it as inconclusive, with the reason."""

    reason: str
    next_step: str  # what would let it be checked


@runtime_checkable
class Guardrail(Protocol):
    """Made without arguments.  `name` names its row where it gives none of its own."""

    name: str

    def check(self, evidence: GuardrailEvidence) -> Sequence[Row] | DoesNotApply | NotTried:
        """Has the candidate lost more than may be lost?

        A row passes only when the loss is shown to stay within its margin, and fails only when it
        is shown to exceed it (`nearer.measure.significance.non_inferior`); an exception makes the
        guardrail inconclusive.
        """
