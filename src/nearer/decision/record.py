"""The decision record, `decision.json`, as frozen values.

`decide` makes it, the report lays it out, a cut-over asks it for permission: all of them read it
here.  Reading is lenient and writing is exact (`nearer.records`), so that the records of earlier
versions stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nearer.records import (
    Json,
    Record,
    anything,
    flag,
    interval,
    mapping,
    number,
    perhaps_record,
    perhaps_text,
    record,
    records,
    records_by_name,
    text,
    texts,
)

SHIPPING = ("ship", "use_simpler_fix")


@dataclass(frozen=True, kw_only=True)
class Measure(Record):
    """A mean with its interval."""

    mean: float | None = number()
    ci: tuple[float, float] | None = interval()


@dataclass(frozen=True, kw_only=True)
class LatencyRecord(Record):
    """Milliseconds per query."""

    p50_ms: float | None = number()
    p95_ms: float | None = number()


@dataclass(frozen=True, kw_only=True)
class CandidateCost(Record):
    """What a candidate takes in production."""

    index_bytes: int | None = number()


@dataclass(frozen=True, kw_only=True)
class CandidateRecord(Record):
    """One system, as measured on test.  `role` is today, baseline or candidate."""

    name: str = text()
    role: str = text()
    system: str = text()
    pipeline: Json | None = mapping(optional=True)
    model: str | None = perhaps_text(optional=True)
    fingerprint: str | None = perhaps_text(optional=True)  # the id
    identity: Json | None = mapping(optional=True)  # the whole fingerprint
    reranker: Json | None = mapping(optional=True)
    dense_weight: float | None = number(optional=True)
    dev: float | None = number()
    measures: Mapping[str, Measure] = records_by_name(Measure)
    latency: LatencyRecord | None = perhaps_record(LatencyRecord)
    cost: CandidateCost = record(CandidateCost)

    def mean(self, measure: str) -> float | None:
        """Mean of a measure; None where it was not measured."""
        return self.measures[measure].mean if measure in self.measures else None


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord(Record):
    """One system against another, query by query."""

    baseline: str = text()
    candidate: str = text()
    measure: str = text()
    delta: float | None = number()
    ci: tuple[float, float] | None = interval()
    outcome: str = text()
    p: float | None = number()
    n: int | None = number()
    wins: int | None = number()
    ties: int | None = number()
    losses: int | None = number()
    sd: float | None = number()


@dataclass(frozen=True, kw_only=True)
class SliceRecord(Record):
    """The same within a slice; `p_holm` allows for the number of slices."""

    slice: str = text()
    baseline: float | None = number()
    candidate: float | None = number()
    delta: float | None = number()
    ci: tuple[float, float] | None = interval()
    outcome: str = text()
    p: float | None = number()
    n: int | None = number()
    wins: int | None = number()
    ties: int | None = number()
    losses: int | None = number()
    sd: float | None = number()
    p_holm: float | None = number()


@dataclass(frozen=True, kw_only=True)
class GuardrailRecord(Record):
    """What must not get worse: `status` is pass, fail or inconclusive."""

    name: str = text()
    status: str = text()
    margin: float | None = number()
    delta: float | None = number()
    lower_bound: float | None = number()
    upper_bound: float | None = number(optional=True)
    n: int | None = number()
    queries_needed: int | None = number()


@dataclass(frozen=True, kw_only=True)
class Answer(Record):
    """A question of the checklist: `answer` is yes, no, unknown or not tried."""

    question: str = text()
    answer: str = text()
    evidence: str = text()


@dataclass(frozen=True, kw_only=True)
class NotTriedRecord(Record):
    """A simpler fix that nobody tried, why, and the command that would."""

    fix: str = text()
    why: str = text()
    next: str = text()
    part: bool | None = flag(optional=True)  # other variants of the fix were tried


@dataclass(frozen=True, kw_only=True)
class SkippedRecord(Record):
    """A simpler fix that the settings declare an exception (`decide.skip`), with the reason."""

    fix: str = text()
    reason: str = text()


@dataclass(frozen=True, kw_only=True)
class CostRecord(Record):
    """What re-embedding the corpus takes; empty where nothing was trained."""

    documents: int | None = number(optional=True)
    tokens: int | None = number(optional=True)
    tokens_per_second: float | None = number(optional=True)
    seconds: float | None = number(optional=True)
    hours: float | None = number(optional=True)
    bytes: int | None = number(optional=True)
    price: float | None = number(optional=True)


@dataclass(frozen=True, kw_only=True)
class Compared(Record):
    """The systems that slices, margins and examples are about."""

    baseline: str | None = perhaps_text()
    candidate: str | None = perhaps_text()


@dataclass(frozen=True, kw_only=True)
class Flip(Record):
    """A query that lost its results altogether."""

    query_id: str = text()
    text: str = text()


@dataclass(frozen=True, kw_only=True)
class DecisionRecord(Record):
    """`decision.json`: the verdict, why, and everything that it rests on."""

    verdict: str = text()
    recommended: str = text()
    sentence: str = text()
    reasons: tuple[str, ...] = texts()
    not_tried: tuple[NotTriedRecord, ...] = records(NotTriedRecord)
    primary: str = text()
    n_queries: int | None = number()
    missing: Json = mapping()
    compared: Compared = record(Compared)
    min_gain: float | None = number()
    alpha: float | None = number()
    seeds: int | None = number()
    checklist: tuple[Answer, ...] = records(Answer)
    candidates: tuple[CandidateRecord, ...] = records(CandidateRecord)
    comparisons: tuple[ComparisonRecord, ...] = records(ComparisonRecord)
    slices: tuple[SliceRecord, ...] = records(SliceRecord)
    guardrails: tuple[GuardrailRecord, ...] = records(GuardrailRecord)
    cost: CostRecord = record(CostRecord)
    negative_flips: tuple[Flip, ...] = records(Flip)
    test_looks: int | None = number()
    sign_off: Any = anything()
    bridge: Json | None = mapping(optional=True)
    skipped: tuple[SkippedRecord, ...] | None = records(SkippedRecord, optional=True)

    @property
    def ships(self) -> bool:
        """Whether the verdict lets something else than the baseline answer."""
        return self.verdict in SHIPPING

    @property
    def chosen(self) -> CandidateRecord | None:
        """The candidate that is recommended; None where none has that name."""
        return self.candidate(self.recommended)

    def candidate(self, name: str | None) -> CandidateRecord | None:
        """The candidate of a name; None where there is none."""
        for row in self.candidates:
            if name and row.name == name:
                return row
        return None


@dataclass(frozen=True, kw_only=True)
class Permission(Record):
    """Why a generation may answer, in its manifest and in the history.

    A decision (`path`, `hash`, `verdict`, the `pipeline` and the `reranker` that it judged), a
    person's `override`, or that it is the `first` one, of the configured model.
    """

    override: str | None = perhaps_text(optional=True)
    first: bool | None = flag(optional=True)
    path: str | None = perhaps_text(optional=True)
    hash: str | None = perhaps_text(optional=True)
    verdict: str | None = perhaps_text(optional=True)
    pipeline: Json | None = mapping(optional=True)
    reranker: Json | None = mapping(optional=True)
