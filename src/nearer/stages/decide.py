"""Ship it, take a simpler fix, or stop?  The only stage that opens the test split.

Which fine-tuned variant and which simpler fix stand for their kind is chosen on dev; test only
judges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nearer.data.heldout import open_test
from nearer.data.missing import missing_documents
from nearer.decision.building import Findings, TunedFindings
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
from nearer.decision.inputs import DecisionInputs, general_set_of
from nearer.decision.record import CandidateRecord, DecisionRecord
from nearer.decision.tasks import measure_task
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder
from nearer.embed.opening import open_encoder
from nearer.errors import DataError
from nearer.files import read_json, read_jsonl, write_json
from nearer.guardrails import check_all, load_guardrails
from nearer.guardrails.base import Guardrail, GuardrailEvidence
from nearer.live.index.generations import Generations, for_chunks
from nearer.live.index.manifest import Manifest
from nearer.measure.verdict import TUNED, Candidate, Evidence
from nearer.project import Project
from nearer.results import Block, Line, Result, Row, Table
from nearer.search.costs import Latency, embedding_cost
from nearer.search.dense import Contents
from nearer.search.pipeline import Pipeline
from nearer.search.slices import slices_of
from nearer.search.systems import Systems
from nearer.tasks.showing import blocks_of
from nearer.training.mining import Mined
from nearer.types import Split

#: What `step.json` repeats of the record.
_BRIEF = (
    "verdict",
    "recommended",
    "sentence",
    "primary",
    "n_queries",
    "test_looks",
    "candidates",
    "comparisons",
)
#: Without these a file is no decision.
_NEEDED = ("verdict", "recommended", "sentence", "reasons", "primary", "candidates")
_SHOWN_MEASURES = ("nDCG@10", "R@10", "R@100", "RR@10", "Judged@10")
_TONES = {
    "ship": "good",
    "use_simpler_fix": "simpler",
    "do_not_ship": "bad",
    "inconclusive": "doubt",
}


@dataclass(frozen=True)
class Decision(Result):
    """The decision record, and what the report shows beside it."""

    decided: DecisionRecord
    examples: dict[str, Any]
    margins: dict[str, Any]
    task: dict[str, Any] = field(default_factory=dict)  # what the task measured besides

    @property
    def verdict(self) -> str:
        """`ship`, `use_simpler_fix`, `do_not_ship` or `inconclusive`."""
        return self.decided.verdict

    @cached_property
    def record(self) -> dict[str, Any]:
        """`decision.json` as plain JSON values."""
        return self.decided.as_dict()

    def save(self, folder: Path) -> None:
        """`decision.json`, `examples.json`, `margins.json`; `task.json` where there is one."""
        write_json(folder / "decision.json", self.record)
        write_json(folder / "examples.json", self.examples)
        write_json(folder / "margins.json", self.margins)
        if self.task:
            write_json(folder / "task.json", self.task)

    @classmethod
    def load(cls, folder: Path) -> Decision:
        record = read_json(folder / "decision.json")
        missing = [key for key in _NEEDED if key not in record]
        if missing:
            raise DataError(
                f"this decision lacks {', '.join(missing)}",
                where=str(folder / "decision.json"),
                next_step="nearer decide --force",
            )
        examples = folder / "examples.json"
        margins, task = folder / "margins.json", folder / "task.json"
        return cls(
            DecisionRecord.of(record),
            read_json(examples) if examples.is_file() else {},
            read_json(margins) if margins.is_file() else {},
            read_json(task) if task.is_file() else {},
        )

    def brief(self) -> dict[str, Any]:
        return {key: self.record[key] for key in _BRIEF}

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per candidate: its name, role, and the mean of each measure."""
        for row in self.decided.candidates:
            means = {name: measure.mean for name, measure in row.measures.items()}
            yield {"name": row.name, "role": row.role, **means}

    def blocks(self) -> list[Block]:
        decided = self.decided
        primary = decided.primary
        measured = decided.candidates[0].measures if decided.candidates else {}
        names = [primary, *(n for n in _SHOWN_MEASURES if n in measured and n != primary)]
        rows = [_candidate_row(row, names, decided.recommended) for row in decided.candidates]
        columns = ("system", f"{primary} (interval)", *names[1:], "p50 ms")
        tone = _TONES.get(decided.verdict, "bold")
        reasons = [Line(f"  · {reason}", "dim") for reason in decided.reasons]
        verdict: list[Block] = [Line(""), Line(decided.sentence, tone), Table(columns, rows)]
        return [*verdict, *reasons, *blocks_of(self.task)]


def _candidate_row(row: CandidateRecord, names: Sequence[str], recommended: str) -> Row:
    label = f"{row.name} (today)" if row.role == "today" else row.name
    first = _shown(row.mean(names[0]))
    interval = row.measures[names[0]].ci if names[0] in row.measures else None
    if interval is not None:
        low, high = interval
        first += f" ({low:.3f}–{high:.3f})"
    others = [_shown(row.mean(name)) for name in names[1:]]
    latency = _shown(None if row.latency is None else row.latency.p50_ms, 1)
    tone = "bold" if row.name == recommended else ""
    return Row((label, first, *others, latency), tone)


def _shown(value: float | None, places: int = 3) -> str:
    return "–" if value is None else f"{value:.{places}f}"


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
        guardrails=[row.as_dict() for row in findings.guardrails],
        primary=inputs.primary,
        min_gain=settings.decide.min_gain,
        alpha=settings.decide.alpha,
    )
    measured = MeasuredCandidate.all_of(plan, candidates, latencies)
    changes = Changes.of(finalists, test, corpus, inputs.primary)
    found = Findings(inputs, evidence, measured, findings, changes, missing_documents(test, corpus))
    examples = {"wins": [], "losses": []} if changes is None else changes.worst_and_best()
    return Decision(found.record(), examples, findings.margins, measure_task(inputs, candidates))


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
        return TunedFindings.of(
            slices=rows,
            guardrails=[row.as_dict() for row in check_all(guardrails, evidence)],
            cost=embedding_cost(
                self.systems.encoder, Contents(base.corpus), settings.decide.cost_per_hour
            ),
            margins=compare_margins(base, self.systems, test),
        )


def run(
    project: Project,
    trained: Tuned | str | Path | None = None,
    mined: Mined | None = None,
    *,
    diagnoses: Summarised | None = None,
    fixes: Laddered | None = None,
) -> Decision:
    """Ship, take a simpler fix, or stop?  Opens the test queries.

    In a notebook `trained` is what `nearer.train` returned, or a model folder (None judges the
    simpler fixes alone), `mined`, `diagnoses` and `fixes` are what those stages returned; `fixes`
    brings the best simple system among the candidates.  In a run all of them come from its files.
    """
    settings = project.settings
    project.uses("guard")
    project.uses("guardrails")
    # A guardrail that cannot be found is refused before test is opened: a look is not spent on it.
    load_guardrails(settings.decide.guardrails.more, project.root)
    test, looks = _opened_test(project)
    ladder = fixes.ladder if fixes else project.saved_summary("fix")
    best = (ladder or {}).get("best")
    pipeline = Pipeline.from_dict(best) if best else None
    base = project.systems
    if pipeline is not None and pipeline.rerank:
        base = project.systems_with_reranker
    bridge: Manifest | None = None
    encoder: TextEncoder | None
    if settings.decide.bridge and project.run_dir is not None:
        project.uses("bridge")
        generations = Generations(project.root, settings)
        bridge = generations.manifest(str(settings.decide.bridge))
        encoder = for_chunks(generations.encoder(bridge), None)
    else:
        encoder = _tuned_encoder(project, trained)
    tuned = None
    if encoder is not None:
        tuned = project.systems_over(encoder, bm25=base.bm25, reranker=base.reranker)
    inputs = DecisionInputs(
        base=base,
        tuned=tuned,
        dev=project.split("dev"),
        test=test,
        training_judgments=project.split("train").judgments,
        general_set=general_set_of(settings, project.root),
        best_fix=pipeline,
        not_tried=ladder.get("not_tried") if ladder else None,
        mined=mined.summary() if mined else project.saved_summary("mine"),
        diagnosis=diagnoses.summary if diagnoses else project.saved_summary("diagnose"),
        looks=looks,
    )
    decision = decide(inputs, project.rng("decide"))
    if bridge is not None and bridge.bridge:
        return replace(decision, decided=_across(decision.decided, bridge))
    return decision


RESULT = Decision


class Tuned(Protocol):
    """What `train` returns, as far as it matters here."""

    @property
    def model(self) -> Any:
        """The fine-tuned SentenceTransformer; None where there is none."""

    @property
    def encoder(self) -> TextEncoder | None:
        """What gives its vectors; None where nothing was trained."""


class Summarised(Protocol):
    """What `diagnose` returns, as far as it matters here."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """`diagnose/summary.json`."""


class Laddered(Protocol):
    """What `fix` returns, as far as it matters here."""

    @property
    def ladder(self) -> Mapping[str, Any]:
        """`fix/summary.json`."""


def _opened_test(project: Project) -> tuple[Split, int]:
    """The test split, and how often it has been opened; in a run the look is written down."""
    if project.run_dir is None:
        return project.checked.splits["test"], 1
    looks = project.run_dir / "test_looks.jsonl"
    reason = f"decide, run {project.settings.run}"
    test = open_test(project.earlier("check/split"), looks, reason)
    return test, sum(1 for _ in read_jsonl(looks))


def _tuned_encoder(project: Project, trained: Tuned | str | Path | None) -> TextEncoder | None:
    """The encoder of the fine-tuned model; None where nothing was trained."""
    model = project.settings.model
    if trained is None and project.run_dir is not None:
        folder = project.earlier("train") / "model"
        trained = folder if folder.is_dir() else None
    if trained is None:
        return None
    if isinstance(trained, str | Path):
        # By name, as a folder that somebody hands over is not trusted like one of the project's.
        saved = model.as_saved().model_copy(update={"name": str(trained)})
        return open_encoder(saved, project.root, cache=project.cache, name=TUNED)
    if trained.model is None:
        return trained.encoder
    return SentenceEncoder(
        trained.model,
        query_prompt=model.query_prompt,
        document_prompt=model.document_prompt,
        precision=model.precision,
        batch_tokens=model.batch_tokens,
        cache=project.cache,
        name=TUNED,
    )


def _across(decided: DecisionRecord, manifest: Manifest) -> DecisionRecord:
    """The record, saying that it was judged across a bridge, and what the bridge keeps."""
    bridge = manifest.bridge or {}
    recall = bridge["kept"]["recall@10"]
    kept = f"its queries find {recall:.3f} of the new model's ten nearest"
    across = f"judged across the bridge {manifest.id} ({bridge['kind']}): {kept}"
    described = {"generation": manifest.id, **bridge, "fingerprint": manifest.fingerprint.id}
    return replace(decided, bridge=described, reasons=(*decided.reasons, across))
