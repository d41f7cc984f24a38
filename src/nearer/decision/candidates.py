"""The systems that a decision chooses from: which they are, and how they are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nearer.decision.inputs import DecisionInputs
from nearer.measure.metrics import score
from nearer.measure.verdict import TUNED, Candidate, best_on_dev
from nearer.rag.contexts import measured
from nearer.search.costs import Latency, slowdown
from nearer.search.pipeline import HYBRIDS, Pipeline
from nearer.search.systems import Systems
from nearer.tasks import task_of


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    """A candidate before it is measured: whose systems, which pipeline, and what it stands for."""

    systems: Systems
    pipeline: Pipeline
    role: str  # today, baseline, candidate or variant, as in decision.json
    name: str


def plan_candidates(inputs: DecisionInputs) -> list[PlannedCandidate]:
    """Today's system, plain systems, the steps of the ladder and its end, the fine-tuned ones.

    A `variant` is another model that training made: dev preferred a different one, so it is shown
    and never chosen.
    """
    base, tuned = inputs.base, inputs.tuned
    base.tune(inputs.dev, inputs.primary)
    plan = list(_plain(inputs))
    ladder = list(inputs.steps)
    if inputs.best_fix is not None:
        ladder.append(inputs.best_fix)
    for step in ladder:
        if not _is_among(step, plan):
            plan.append(PlannedCandidate(base, step, "baseline", step.label))
    if tuned is not None:
        tuned.tune(inputs.dev, inputs.primary)
        plan += _fine_tuned(tuned, inputs, inputs.best_fix)
    for name, systems in inputs.variants.items():
        plan.append(PlannedCandidate(systems, systems.base("dense"), "variant", name))
    return plan


def _plain(inputs: DecisionInputs) -> Iterable[PlannedCandidate]:
    base = inputs.base
    baselines = task_of(base.config, base.root).baselines
    for name in dict.fromkeys([base.today, *inputs.settings.evaluate.baselines, *baselines]):
        role = "today" if name == base.today else "baseline"
        yield PlannedCandidate(base, base.base(name), role, name)


def _fine_tuned(
    tuned: Systems, inputs: DecisionInputs, best_fix: Pipeline | None
) -> list[PlannedCandidate]:
    """The plain systems over the fine-tuned model, and the best fix over it.

    The weight of a fusion is tuned anew, since words add less to a better model; the same without
    the fusion is a candidate as well.
    """
    plan = [PlannedCandidate(tuned, tuned.base("dense"), "candidate", TUNED)]
    for name in HYBRIDS:
        plan.append(PlannedCandidate(tuned, tuned.base(name), "candidate", f"{TUNED} {name}"))
    if best_fix is not None and best_fix.dense:
        plain = replace(best_fix, model=None, compression="float32", weight=None)
        unfused = replace(plain, system="dense", title_weight=None)
        for pipeline in (tuned.tuned(plain, inputs.dev, inputs.primary), unfused):
            if not _is_among(pipeline, plan):
                name = f"{TUNED} {pipeline.label}"
                plan.append(PlannedCandidate(tuned, pipeline, "candidate", name))
    return plan


def _is_among(pipeline: Pipeline, plan: Iterable[PlannedCandidate]) -> bool:
    """Whether a pipeline is planned already; names stand for candidates, so none comes twice."""
    names = {pipeline.label, f"{TUNED} {pipeline.label}"}
    return any(planned.pipeline == pipeline or planned.name in names for planned in plan)


def measure_candidates(plan: Sequence[PlannedCandidate], inputs: DecisionInputs) -> list[Candidate]:
    """Every planned system, searched on dev (for choices) and on test (for judgment)."""
    return [_measure(planned, inputs) for planned in plan]


def _measure(planned: PlannedCandidate, inputs: DecisionInputs) -> Candidate:
    systems, pipeline, primary = planned.systems, planned.pipeline, inputs.primary
    dev, test = inputs.dev, inputs.test
    items = systems.item_to_item
    measures = list(dict.fromkeys([primary, *inputs.settings.evaluate.measures]))
    on_dev = score(systems.run(pipeline, dev), dev, [primary], items)
    run = replace(systems.run(pipeline, test), name=planned.name)
    return Candidate(
        name=planned.name,
        role=planned.role,
        system=pipeline.system,
        run=run,
        scores=measured(systems, pipeline, run, test, measures),
        dev=on_dev.mean(primary),
        described=_described(systems, pipeline),
    )


def _described(systems: Systems, pipeline: Pipeline) -> dict[str, Any]:
    """What computes a candidate's results, for the record."""
    described: dict[str, Any] = {"pipeline": pipeline.as_dict()}
    if pipeline.dense:
        space = systems.space_of(pipeline.model)
        described["model"] = space.name
        described["fingerprint"] = space.fingerprint.id
        described["identity"] = space.fingerprint.as_record()
    if pipeline.rerank and systems.reranker is not None:
        described["reranker"] = {
            "source": getattr(systems.reranker, "source", ""),
            "fingerprint": systems.reranker.fingerprint,
        }
    if pipeline.system == "convex":
        described["dense_weight"] = pipeline.weight
    return described


def time_candidates(
    plan: Sequence[PlannedCandidate], inputs: DecisionInputs
) -> dict[str, Latency | None]:
    """Latency by name of the candidate, over the dev queries; None where there is none to time."""
    queries = inputs.dev.queries
    return {planned.name: planned.systems.latency(planned.pipeline, queries) for planned in plan}


@dataclass(frozen=True, slots=True)
class Finalists:
    """The systems that are compared: those that did best on dev, each for its kind."""

    today: Candidate
    tuned: Candidate | None  # the fine-tuned one
    simple: Candidate | None  # the simpler fix
    candidates: Sequence[Candidate] = ()  # all that they were chosen from

    @classmethod
    def of(
        cls,
        candidates: Sequence[Candidate],
        latencies: Mapping[str, Latency | None],
        latency_ratio: float,
    ) -> Finalists:
        """The best on dev.

        A fine-tuned system that answers later than the guardrail allows cannot ship, so one that is
        fast enough goes before it where there is one.
        """
        today = next(candidate for candidate in candidates if candidate.role == "today")
        before = latencies[today.name]
        swift = []
        for candidate in candidates:
            ratio = slowdown(before, latencies[candidate.name])
            if ratio is None or ratio <= latency_ratio:
                swift.append(candidate)
        tuned = best_on_dev(swift, "candidate") or best_on_dev(candidates, "candidate")
        return cls(today, tuned, best_on_dev(candidates, "baseline"), candidates)

    @property
    def challenger(self) -> Candidate | None:
        """The one that the record and the report set against today's system."""
        return self.tuned or self.simple

    def pairs(self) -> list[tuple[Candidate, Candidate]]:
        """(baseline, candidate) of each comparison that can be made."""
        wanted = ((self.today, self.tuned), (self.today, self.simple), (self.simple, self.tuned))
        pairs = []
        for baseline, candidate in wanted:
            if baseline is not None and candidate is not None:
                pairs.append((baseline, candidate))
        return pairs


@dataclass(frozen=True, slots=True)
class MeasuredCandidate:
    """A candidate with what its record says beside its scores."""

    candidate: Candidate
    latency: Latency | None
    index_bytes: int | None

    @classmethod
    def all_of(
        cls,
        plan: Sequence[PlannedCandidate],
        candidates: Sequence[Candidate],
        latencies: Mapping[str, Latency | None],
    ) -> list[MeasuredCandidate]:
        measured = []
        for planned, candidate in zip(plan, candidates, strict=True):
            size = planned.systems.index_bytes(planned.pipeline)
            measured.append(cls(candidate, latencies[candidate.name], size))
        return measured
