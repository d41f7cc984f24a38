"""Ship it, take a simpler fix, or stop?  The only stage that opens the test split.

Which fine-tuned variant and which simpler fix stand for their kind is chosen on dev; test only
judges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.clusters import ClusterRules, query_clusters, require_field
from nearer.data.generated import origins
from nearer.data.heldout import QueryNames, open_test, open_test_pairs, require_pairs
from nearer.data.leakage import Leakage, find_leakage
from nearer.data.missing import missing_documents
from nearer.data.named import named_queries, refuse_unknown
from nearer.data.sources import is_only_training
from nearer.decision.bridged import across_a_bridge
from nearer.decision.building import Findings, TunedFindings
from nearer.decision.candidates import (
    Finalists,
    MeasuredCandidate,
    measure_candidates,
    plan_candidates,
    time_candidates,
)
from nearer.decision.comparisons import (
    SliceComparisons,
    Statistics,
    compare_finalists,
    compare_judged,
    compare_margins,
    compare_requests,
    find_reversals,
)
from nearer.decision.examples import Changes
from nearer.decision.gathering import EXAMPLES, completed, with_hashes
from nearer.decision.handed import Laddered, Summarised, Tuned
from nearer.decision.inputs import DecisionInputs, general_set_of, kept_steps
from nearer.decision.named import with_named_outcomes
from nearer.decision.queries import QueryFindings
from nearer.decision.result import Decision
from nearer.decision.scored import PairsEvidence, decide_on_pairs
from nearer.decision.shown import Shown
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder
from nearer.embed.opening import open_encoder
from nearer.errors import DataError
from nearer.files import read_jsonl
from nearer.guardrails import check_all, load_guardrails
from nearer.guardrails.base import Guardrail, GuardrailEvidence
from nearer.guardrails.named import named_rows
from nearer.live.index.generations import Generations, for_chunks
from nearer.live.index.manifest import Manifest
from nearer.measure.named import NamedOutcome
from nearer.measure.verdict import TUNED, Candidate, Evidence
from nearer.project import Project
from nearer.rag.evaluation import require_usable
from nearer.search.costs import embedding_cost
from nearer.search.dense import Contents
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.training.examples import read_examples
from nearer.training.methods.naming import OTHERS
from nearer.training.mining import Mined
from nearer.types import Example, Split

__all__ = ["RESULT", "Decision", "decide", "general_set_of", "run"]


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
    latencies = time_candidates(plan, inputs)
    measured = MeasuredCandidate.all_of(plan, candidates, latencies)
    limit = settings.decide.guardrails.latency_ratio
    finalists = Finalists.of(candidates, latencies, limit)
    _require_judged(finalists.today)
    finalists, named = with_named_outcomes(inputs, plan, finalists)
    comparisons = compare_finalists(finalists, statistics)
    by_slice = SliceComparisons.of(finalists, inputs, statistics)
    facts = _facts(inputs, finalists, by_slice, measured, named)
    findings = TunedFindings() if facts is None else _tuned_findings(inputs, facts, guardrails)
    evidence = Evidence(
        today=finalists.today,
        tuned=finalists.tuned,
        simple=finalists.simple,
        comparisons=comparisons,
        guardrails=[row.as_dict() for row in findings.guardrails],
        primary=inputs.primary,
        min_gain=settings.decide.min_gain,
        alpha=settings.decide.alpha,
        fix_guardrails=_fix_guardrails(finalists, named),
        clusters=statistics.units(finalists.today),
        generated=inputs.generated,
        accepted=settings.decide.accept_generated or "",
    )
    changes = Changes.of(finalists, test, corpus, inputs.primary)
    missing = missing_documents(test, corpus)
    queries = QueryFindings(
        clusters=inputs.clusters.as_dict(finalists.today.scores.query_ids),
        requests=compare_requests(finalists, statistics),
        named=named,
        judged=compare_judged(finalists, test, inputs.primary),
        reversals=find_reversals(finalists, by_slice, statistics, settings.decide),
        leakage=inputs.leakage,
    )
    requests = statistics.requests(finalists.today)
    found = Findings(inputs, evidence, measured, findings, changes, missing, queries, requests)
    examples = {"wins": [], "losses": []} if changes is None else changes.worst_and_best()
    shown = Shown.of(plan, finalists, changes, inputs)
    return Decision(shown.added_to(found.record()), examples, findings.margins, shown)


def _require_judged(candidate: Candidate) -> None:
    if not len(candidate.scores):
        raise DataError(
            "the test split has no judged query",
            where="check/split/test",
            next_step="add test judgments, then nearer check",
        )


def _facts(
    inputs: DecisionInputs,
    finalists: Finalists,
    by_slice: SliceComparisons,
    measured: Sequence[MeasuredCandidate],
    named: Mapping[str, Sequence[NamedOutcome]],
) -> GuardrailEvidence | None:
    """What guardrails look at; None without a fine-tuned system."""
    candidate = finalists.tuned
    if candidate is None or inputs.tuned is None:
        return None
    return GuardrailEvidence(
        baseline=finalists.today,
        candidate=candidate,
        base=inputs.base,
        tuned=inputs.tuned,
        test=inputs.test,
        slices=by_slice.slices,
        slice_rows=by_slice.rows,
        latencies={row.candidate.name: row.latency for row in measured},
        index_bytes={row.candidate.name: row.index_bytes for row in measured},
        general_set=inputs.general_set,
        settings=inputs.settings.decide,
        primary=inputs.primary,
        labels=inputs.clusters.labels(candidate.scores.query_ids),
        leakage=inputs.leakage,
        named=named[candidate.name],
    )


def _tuned_findings(
    inputs: DecisionInputs, facts: GuardrailEvidence, guardrails: list[Guardrail]
) -> TunedFindings:
    """For whom the fine-tuned system is better, what must not get worse, and what it costs."""
    base, tuned = facts.base, facts.tuned
    price = facts.settings.cost_per_hour
    return TunedFindings.of(
        slices=[dict(row) for row in facts.slice_rows],
        guardrails=[row.as_dict() for row in check_all(guardrails, facts)],
        cost=embedding_cost(tuned.encoder, Contents(base.corpus), price),
        margins=compare_margins(base, tuned, inputs.test),
    )


def _fix_guardrails(
    finalists: Finalists, named: Mapping[str, Sequence[NamedOutcome]]
) -> list[dict[str, Any]]:
    """What must not be lost by a simpler fix either: the named queries."""
    if finalists.simple is None:
        return []
    return [row.as_dict() for row in named_rows(named[finalists.simple.name])]


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
    project.uses("graded")
    require_usable(settings.rag, project.root)
    # A guardrail that cannot be found is refused before test is opened: a look is not spent on it.
    guardrails = load_guardrails(settings.decide.guardrails.more, project.root)
    if is_only_training(settings.data):
        return _on_pairs(project, trained, guardrails)
    inputs, bridge, ladder = _gathered(project, trained, mined, diagnoses, fixes)
    decision = decide(inputs, project.rng("decide"))
    decided = decision.decided
    if bridge is not None and bridge.bridge:
        decided = across_a_bridge(decided, bridge.id, bridge.bridge, bridge.fingerprint.id)
    decided, found = completed(decided, inputs, project, ladder)
    return replace(decision, decided=decided, mistakes=found)


def _gathered(
    project: Project,
    trained: Tuned | str | Path | None,
    mined: Mined | None,
    diagnoses: Summarised | None,
    fixes: Laddered | None,
) -> tuple[DecisionInputs, Manifest | None, Mapping[str, Any] | None]:
    """All that a decision rests on, the bridge that is judged, if one is, and the ladder.  Opens test."""
    settings = project.settings
    train, dev = project.split("train"), project.split("dev")
    test, looks = _opened_test(project, (train, dev))
    ladder = fixes.ladder if fixes else project.saved_summary("fix")
    best = (ladder or {}).get("best")
    pipeline = Pipeline.from_dict(best) if best else None
    base = project.systems
    if pipeline is not None and pipeline.rerank:
        base = project.systems_with_reranker
    encoder, bridge = _judged_encoder(project, trained)
    tuned = None
    if encoder is not None:
        tuned = project.systems_over(encoder, bm25=base.bm25, reranker=base.reranker)
    examples = _examples(project, trained, mined)
    inputs = DecisionInputs(
        base=base,
        tuned=tuned,
        dev=dev,
        test=test,
        training_judgments=train.judgments,
        general_set=general_set_of(settings, project.root),
        best_fix=pipeline,
        not_tried=ladder.get("not_tried") if ladder else None,
        mined=mined.summary() if mined else project.saved_summary("mine"),
        diagnosis=diagnoses.summary if diagnoses else project.saved_summary("diagnose"),
        looks=looks,
        steps=kept_steps(ladder or {}),
        variants=_variants(project, trained, base),
        clusters=query_clusters(test, ClusterRules.of(settings, project.item_to_item)),
        named=named_queries(settings.decide, (train, dev, test)),
        leakage=_leakage(examples, (train, dev, test), settings.check.near_duplicate),
        queries_from={split.name: origins(split.queries) for split in (train, dev, test)},
    )
    return inputs, bridge, ladder


RESULT = Decision


def _opened_test(project: Project, others: Sequence[Split]) -> tuple[Split, int]:
    """The test split, and how often it has been opened; in a run the look is written down.

    Raises ConfigError, before the look, where the settings name a query or a field that no split has.
    """
    if project.run_dir is None:
        return project.checked.splits["test"], 1
    elsewhere = {query.id for split in others for query in split.queries}
    looks = project.run_dir / "test_looks.jsonl"
    reason = f"decide, run {project.settings.run}"

    def refuse(test: QueryNames) -> None:
        refuse_unknown(project.settings.decide, elsewhere.union(test.ids))
        require_field(project.settings.decide.clusters, test.fields)

    test = open_test(project.earlier("check/split"), looks, reason, refuse)
    return test, sum(1 for _ in read_jsonl(looks))


def _on_pairs(
    project: Project, trained: Tuned | str | Path | None, guardrails: Sequence[Guardrail]
) -> Decision:
    """Where scored pairs are all the data.  Raises DataError where none were held out."""
    if project.run_dir is None:
        pairs, looks = project.checked.pairs.get("test", ()), 1
        require_pairs(pairs)
    else:
        log = project.run_dir / "test_looks.jsonl"
        folder = project.earlier("check/split")
        pairs = open_test_pairs(folder, log, f"decide, run {project.settings.run}")
        looks = sum(1 for _ in read_jsonl(log))
    evidence = PairsEvidence(
        pairs=pairs,
        base=project.systems.encoder,
        tuned=_tuned_encoder(project, trained),
        general_set=general_set_of(project.settings, project.root),
        settings=project.settings,
        looks=looks,
        guardrails=guardrails,
    )
    decided = decide_on_pairs(evidence, project.rng("decide"))
    return Decision(with_hashes(decided, project), {}, {})


def _examples(
    project: Project, trained: Tuned | str | Path | None, mined: Mined | None
) -> Sequence[Example] | None:
    """What the model was trained on; None where nobody knows it."""
    if mined is not None:
        return mined.examples
    if trained is None and project.run_dir is not None:
        return read_examples(project.earlier(EXAMPLES))
    return None


def _leakage(
    examples: Sequence[Example] | None, splits: tuple[Split, Split, Split], near_duplicate: float
) -> Leakage | None:
    """Held-out queries among the examples; None where these are not known.

    `splits` are train, dev and test.
    """
    if examples is None:
        return None
    train, *held_out = splits
    texts = {query.id: query.text for query in train.queries}
    return find_leakage(examples, texts, held_out, near_duplicate)


def _judged_encoder(
    project: Project, trained: Tuned | str | Path | None
) -> tuple[TextEncoder | None, Manifest | None]:
    """The encoder of the fine-tuned model, or that of the bridge that the settings name."""
    settings = project.settings
    if not settings.decide.bridge or project.run_dir is None:
        return _tuned_encoder(project, trained), None
    project.uses("bridge")
    generations = Generations(project.root, settings)
    bridge = generations.manifest(str(settings.decide.bridge))
    return for_chunks(generations.encoder(bridge), None), bridge


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


def _variants(
    project: Project, trained: Tuned | str | Path | None, base: Systems
) -> dict[str, Systems]:
    """Systems over the models that `train` made beside the one that dev chose."""
    encoders: dict[str, TextEncoder] = {}
    if trained is None and project.run_dir is not None:
        folder = project.earlier("train") / OTHERS
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            encoder = _tuned_encoder(project, path)
            if encoder is not None:
                encoders[path.name] = encoder
    elif trained is not None and not isinstance(trained, str | Path):
        encoders.update(trained.others)
    return {
        f"{TUNED} ({name})": project.systems_over(encoder, bm25=base.bm25)
        for name, encoder in encoders.items()
    }
