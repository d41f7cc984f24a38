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
    """One system, as measured on test.  `role` is today, baseline, candidate or variant."""

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
    clusters: int | None = number(optional=True)  # independent units, where queries are none


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
    """What must not get worse: `status` is one of `guardrails.base: Status`."""

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
    """A query that lost its results altogether; `before` is the measure that it had."""

    query_id: str = text()
    text: str = text()
    before: float | None = number(optional=True)


@dataclass(frozen=True, kw_only=True)
class FlipsRecord(Record):
    """How many queries lost all their results from one system to another, and how many found some."""

    n: int | None = number()
    negative: int | None = number()
    positive: int | None = number()


@dataclass(frozen=True, kw_only=True)
class NoticedRecord(Record):
    """One reason why queries hang together: clusters of two or more, and the queries in them."""

    kind: str = text()
    clusters: int | None = number()
    queries: int | None = number()
    largest: int | None = number()


@dataclass(frozen=True, kw_only=True)
class ClustersRecord(Record):
    """The units of every interval and p: `unit` is what they are, `query` where each stands alone."""

    unit: str = text()
    n: int | None = number()
    queries: int | None = number()
    largest: int | None = number()
    noticed: tuple[NoticedRecord, ...] = records(NoticedRecord)

    def sentence(self) -> str:
        """What is drawn at random in place of queries; empty where each query stands alone."""
        if self.n is None or self.unit in ("", "query"):
            return ""
        largest = f"{self.unit}; the largest has {self.largest or 0:,}"
        return (
            f"{self.queries or 0:,} queries are {self.n:,} clusters ({largest}): "
            "intervals and p are of clusters"
        )


@dataclass(frozen=True, kw_only=True)
class NamedRecord(Record):
    """A must-pass or high-risk query: `fate` is kept, lost, found or missed (by both systems)."""

    group: str = text()
    query_id: str = text()
    split: str = text()
    candidate: str = text()
    before: float | None = number()
    after: float | None = number()
    fate: str = text()
    text: str = text()


@dataclass(frozen=True, kw_only=True)
class JudgedRecord(Record):
    """Judged@k of both systems, and what the unjudged results could make of the difference."""

    measure: str = text()
    baseline: float | None = number()
    candidate: float | None = number()
    unjudged: int | None = number()
    delta: float | None = number()
    worst: float | None = number()
    best: float | None = number()


@dataclass(frozen=True, kw_only=True)
class ReversalRecord(Record):
    """A way to look at the queries in which the change has the other sign."""

    by: str = text()
    name: str = text()
    delta: float | None = number()
    overall: float | None = number()
    n: int | None = number()
    shown: bool | None = flag()


@dataclass(frozen=True, kw_only=True)
class LeakedRecord(Record):
    """A test query that the training examples hold, exactly or nearly."""

    query_id: str = text()
    kind: str = text()
    examples: int | None = number()
    text: str = text()


@dataclass(frozen=True, kw_only=True)
class LeakageRecord(Record):
    """The training examples that were compared with the test queries, and those that collide."""

    examples: int | None = number()
    queries: tuple[LeakedRecord, ...] = records(LeakedRecord)


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
    rag: Json | None = mapping(optional=True)  # contexts and answers of a language model
    pays: Json | None = mapping(optional=True)  # does the gain justify re-indexing?
    hashes: Json | None = mapping(optional=True)  # of what it rests on, and of what was found
    clusters: ClustersRecord | None = perhaps_record(ClustersRecord, optional=True)
    #: comparisons with each query counted as often as users ask it
    requests: tuple[ComparisonRecord, ...] | None = records(ComparisonRecord, optional=True)
    named_queries: tuple[NamedRecord, ...] | None = records(NamedRecord, optional=True)
    judged: JudgedRecord | None = perhaps_record(JudgedRecord, optional=True)
    reversals: tuple[ReversalRecord, ...] | None = records(ReversalRecord, optional=True)
    flips: FlipsRecord | None = perhaps_record(FlipsRecord, optional=True)
    leakage: LeakageRecord | None = perhaps_record(LeakageRecord, optional=True)
    skipped: tuple[SkippedRecord, ...] | None = records(SkippedRecord, optional=True)
    #: queries of people and generated ones by split; `accepted`: why generated ones may decide
    queries_from: Json | None = mapping(optional=True)

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

    A decision (`path`, `hash`, `verdict`, the `pipeline` and the `reranker` that it judged, and the
    person's `sign_off`), a person's `override`, or that it is the `first` one, of the configured model.
    """

    override: str | None = perhaps_text(optional=True)
    first: bool | None = flag(optional=True)
    path: str | None = perhaps_text(optional=True)
    hash: str | None = perhaps_text(optional=True)
    verdict: str | None = perhaps_text(optional=True)
    pipeline: Json | None = mapping(optional=True)
    reranker: Json | None = mapping(optional=True)
    sign_off: Json | None = mapping(optional=True)
