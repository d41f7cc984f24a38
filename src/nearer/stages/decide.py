"""Ship it, take a simpler fix, or stop?  The only stage that opens the test split.

Which fine-tuned variant and which simpler fix stand for their kind is chosen on dev; test only
judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.corpus import Corpus
from nearer.data.general import load_general
from nearer.data.heldout import open_test
from nearer.data.load import load
from nearer.decision.candidates import (
    Finalists,
    MeasuredCandidate,
    measure_candidates,
    plan_candidates,
    time_candidates,
)
from nearer.decision.comparisons import (
    Statistics,
    compare_by_slice,
    compare_finalists,
    compare_margins,
)
from nearer.decision.examples import Changes
from nearer.decision.inputs import DecisionInputs
from nearer.decision.record import Record, TunedFindings
from nearer.embed.encoder import load_encoder
from nearer.errors import DataError
from nearer.files import read_json, read_jsonl, write_json
from nearer.guardrails import check_all, load_guardrails
from nearer.guardrails.base import Guardrail, GuardrailEvidence
from nearer.live.index.generations import Generations, for_chunks
from nearer.measure.verdict import TUNED, Candidate, Evidence
from nearer.search.costs import embedding_cost
from nearer.search.dense import Contents
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Latency, Systems, slices_of
from nearer.stages.shared import (
    corpus_of,
    missing_of,
    random_of,
    reranker_of_run,
    split_of,
    systems_of,
)
from nearer.types import Split
from nearer.workspace import StepContext


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision record, and what the report shows beside it."""

    record: dict[str, Any]
    examples: dict[str, Any]
    margins: dict[str, Any]

    def __str__(self) -> str:
        return str(self.record["sentence"])


def decide(inputs: DecisionInputs, rng: np.random.Generator) -> Decision:
    """Judge today's system, the simpler fixes and the fine-tuned model on held-out queries.

    Raises DataError when test has no judged query, and ConfigError for a guardrail that cannot be
    found.
    """
    settings, corpus, test = inputs.settings, inputs.base.corpus, inputs.test
    guardrails = load_guardrails(settings.decide.guardrails.more, inputs.base.root)
    statistics = Statistics.of(inputs, rng)
    plan = plan_candidates(inputs)
    candidates = measure_candidates(plan, inputs)
    finalists = Finalists.of(candidates)
    _require_judged(finalists.today)
    comparisons = compare_finalists(finalists, statistics)
    latencies = time_candidates(plan, inputs)
    findings = TunedFindings()
    if finalists.tuned is not None and inputs.tuned is not None:
        tuned = _Tuned(inputs, inputs.tuned, finalists.today, finalists.tuned)
        findings = tuned.findings(statistics, latencies, guardrails)
    evidence = Evidence(
        today=finalists.today,
        tuned=finalists.tuned,
        simple=finalists.simple,
        comparisons=comparisons,
        guardrails=findings.guardrails,
        primary=inputs.primary,
        min_gain=settings.decide.min_gain,
        alpha=settings.decide.alpha,
    )
    measured = MeasuredCandidate.all_of(plan, candidates, latencies)
    changes = Changes.of(finalists, test, corpus, inputs.primary)
    missing = missing_of(test, corpus)
    record = Record(inputs, evidence, measured, findings, changes, missing)
    examples = {"wins": [], "losses": []} if changes is None else changes.worst_and_best()
    return Decision(record.as_dict(), examples, findings.margins)


def _require_judged(candidate: Candidate) -> None:
    if not len(candidate.scores):
        raise DataError(
            "the test split has no judged query",
            where="check/split/test",
            next_step="add test judgments, then nearer check",
        )


@dataclass(frozen=True, slots=True)
class _Tuned:
    """The fine-tuned system that did best on dev, beside today's."""

    inputs: DecisionInputs
    systems: Systems
    today: Candidate
    candidate: Candidate

    def findings(
        self,
        statistics: Statistics,
        latencies: Mapping[str, Latency | None],
        guardrails: list[Guardrail],
    ) -> TunedFindings:
        """For whom it is better, what must not get worse, and what it costs."""
        inputs = self.inputs
        base, test, settings = inputs.base, inputs.test, inputs.settings
        slices = dict(
            slices_of(test, base.corpus, settings.data.min_grade, inputs.training_judgments)
        )
        rows = compare_by_slice(
            self.today, self.candidate, slices, statistics, settings.evaluate.min_slice
        )
        evidence = GuardrailEvidence(
            baseline=self.today,
            candidate=self.candidate,
            base=base,
            tuned=self.systems,
            test=test,
            slices=slices,
            slice_rows=rows,
            latencies=latencies,
            general_set=inputs.general_set,
            settings=settings.decide,
            primary=inputs.primary,
        )
        return TunedFindings(
            slices=rows,
            guardrails=[row.as_dict() for row in check_all(guardrails, evidence)],
            cost=embedding_cost(
                self.systems.encoder, Contents(base.corpus), settings.decide.cost_per_hour
            ),
            margins=compare_margins(base, self.systems, test),
        )


def general_set_of(settings: config.Config, root: Path) -> tuple[Corpus, Split] | None:
    """The general-ability set that the configuration names."""
    general = settings.decide.guardrails.general
    if general is None:
        return None
    if general == "builtin":
        return load_general()
    loaded = load(config.Data(folder=general), root)
    first = next(iter(loaded.judgments.values()))
    judgments = loaded.judgments.get("test") or loaded.judgments.get("dev") or first
    queries = [loaded.queries[query_id] for query_id in judgments if query_id in loaded.queries]
    return loaded.corpus, Split("general", tuple(queries), judgments)


def _general_set(context: StepContext) -> tuple[Corpus, Split] | None:
    context.uses("guard")
    return general_set_of(context.config, context.root)


def step(context: StepContext) -> dict[str, Any]:
    """Files: `decision.json`, `examples.json`, `margins.json`, and a line in `test_looks.jsonl` of the run."""
    settings = context.config
    corpus = corpus_of(context)
    looks = context.run_dir / "test_looks.jsonl"
    test = open_test(context.earlier("check/split"), looks, f"decide, run {settings.run}")
    base = systems_of(context, corpus, splits=("dev", "test"))
    fixes = read_json(context.earlier("fix/summary.json"))
    ladder = fixes.get("best")
    pipeline = Pipeline.from_dict(ladder) if ladder else None
    if pipeline is not None and pipeline.rerank:
        base.reranker = reranker_of_run(context, base)
    folder = context.earlier("train") / "model"
    tuned, bridge = None, None
    if settings.decide.bridge:
        context.uses("bridge")
        generations = Generations(context.root, settings)
        bridge = generations.manifest(settings.decide.bridge)
        bridged = for_chunks(generations.encoder(bridge), None)
        tuned = systems_of(context, corpus, encoder=bridged, bm25=base.bm25)
        tuned.reranker = base.reranker
    elif folder.is_dir():
        encoder = load_encoder(
            settings.model.as_saved(),
            context.root,
            cache=context.cache,
            path=folder,
            name=TUNED,
        )
        tuned = systems_of(context, corpus, encoder=encoder, bm25=base.bm25)
        tuned.reranker = base.reranker
    inputs = DecisionInputs(
        base=base,
        tuned=tuned,
        dev=split_of(context, "dev"),
        test=test,
        training_judgments=split_of(context, "train").judgments,
        general_set=_general_set(context),
        best_fix=pipeline,
        not_tried=fixes.get("not_tried"),
        mined=read_json(context.earlier("mine/summary.json")),
        diagnosis=read_json(context.earlier("diagnose/summary.json")),
        looks=sum(1 for _ in read_jsonl(looks)),
    )
    decision = decide(inputs, random_of(context))
    if bridge is not None and bridge.bridge:
        kept = f"its queries find {bridge.bridge['kept']['recall@10']:.3f} of the new model's ten nearest"
        across = f"judged across the bridge {bridge.id} ({bridge.bridge['kind']}): {kept}"
        decision.record["bridge"] = {
            "generation": bridge.id,
            **bridge.bridge,
            "fingerprint": bridge.fingerprint.id,
        }
        decision.record["reasons"] = [*decision.record["reasons"], across]
    write_json(context.out / "decision.json", decision.record)
    write_json(context.out / "examples.json", decision.examples)
    write_json(context.out / "margins.json", decision.margins)
    told = (
        "verdict",
        "recommended",
        "sentence",
        "primary",
        "n_queries",
        "test_looks",
        "candidates",
        "comparisons",
    )
    return {key: decision.record[key] for key in told}
