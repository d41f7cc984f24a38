"""Trains what the settings name, one after the other, beside the references; dev decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nearer import progress
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder
from nearer.training import processes
from nearer.training.methods.contest import Entry, Table, best_of, choose
from nearer.training.methods.job import Candidate, Job, SharedTime
from nearer.training.methods.naming import Method
from nearer.training.methods.references import LINEAR, NUDGE, Reference, Workbench
from nearer.training.methods.search import search
from nearer.training.methods.weights import train_weights


@dataclass(frozen=True)
class Outcome:
    """The candidate that dev chose, and the table of all (`train/candidates.json`).

    `others` are the models that were trained and not chosen, by method and seed: `decide` shows
    them beside the chosen one.
    """

    candidate: Candidate
    table: dict[str, Any]
    others: Mapping[str, TextEncoder] = field(default_factory=dict)


def run_candidates(job: Job) -> Outcome:
    """Run the references and train every method of the settings; raises what `train` raises.

    With `train.search` its trainings take the place of those methods.
    """
    job = replace(job, time=_shared_time(job))
    bench, not_tried = _workbench(job)
    references = _references(job, bench)
    for line in not_tried:
        progress.info(f"{line['name']} was not tried: {line['reason']}")
    best, trained, models = _trained(job, bench)
    # Only the first process has computed them.
    entries = processes.agreed(lambda: [reference.entry for reference in references])
    chosen = choose(trained, entries, job.settings.seed)
    if chosen.entry.reference:
        number = entries.index(chosen.entry)
        objection = processes.agreed(lambda: _objection(job, references[number]))
        if objection:
            chosen = replace(choose(trained, [], job.settings.seed), reason=objection)
        elif references:
            best = _taken(job, references[number], bench)
        progress.info(chosen.reason)
    table = Table(
        measure=job.measure,
        base=_base_scores(job, bench),
        seen=_seen(job),
        entries=[*trained, *entries],
        chosen=chosen,
        not_tried=not_tried,
        seed=job.settings.seed,
    )
    others = {name: model for name, model in models.items() if model is not best.encoder}
    return Outcome(best, table.as_dict(), others)


def _trained(
    job: Job, bench: Workbench | None
) -> tuple[Candidate, list[Entry], dict[str, TextEncoder]]:
    """The best on dev of what the settings ask for, the figures of each, and all models by name."""
    if job.settings.search.arms:
        found = search(job)
        return found, [found.entry], dict(found.others)
    candidates: list[Candidate] = []
    models: dict[str, TextEncoder] = {}
    for method in job.methods:
        candidate = _linear(job, bench) if method.kind == LINEAR else train_weights(job, method)
        candidates.append(candidate)
        models |= {candidate.entry.name: candidate.encoder, **candidate.others}
    trained = [candidate.entry for candidate in candidates]
    # By the rule of the table, so that the model is the one that the table names.
    entry = best_of(trained)
    best = next(candidate for candidate in candidates if candidate.entry is entry)
    return best, trained, models


def train_method(job: Job, method: Method) -> Candidate:
    """Train one method alone, whatever the budget; raises what `train` raises."""
    if method.kind == LINEAR:
        return _linear(job, _workbench(job)[0])
    return train_weights(job, method)


def _shared_time(job: Job) -> SharedTime:
    trainings = [method for method in job.methods if method.kind != LINEAR]
    return SharedTime(job.settings.budget or math.inf, len(trainings) * job.settings.seeds)


def _objection(job: Job, reference: Reference) -> str:
    """Why a reference that is better on dev is not taken: it forgets too much; empty where it may."""
    if job.general is None or reference.make is None:
        return ""
    base, adapted = job.systems.encoder, reference.make()
    if not (isinstance(base, SentenceEncoder) and isinstance(adapted, SentenceEncoder)):
        return ""  # weights trained beside it, so this is a model with weights
    lost = job.general(base) - job.general(adapted)
    if lost <= job.settings.forget:
        return ""
    name = reference.entry.name
    return f"{name} is better on dev, and loses {lost:.3f} on the general set of training"


def _workbench(job: Job) -> tuple[Workbench | None, list[dict[str, str]]]:
    """The vectors for what takes seconds; None with the reason where nothing of it is wanted."""
    wants_linear = any(method.kind == LINEAR for method in job.methods)
    if not (processes.first() or wants_linear):
        return None, []  # the first process computes the references, and the others wait for it
    not_tried = []
    if job.search_judge is None:
        reason = "there are no dev queries to judge it on"
        not_tried = [{"name": name, "reason": reason} for name in (LINEAR, NUDGE)]
        if not wants_linear:
            return None, not_tried
        not_tried = not_tried[1:]
    bench = Workbench.of(job.systems.encoder, job.learned, job.search_judge, job.settings)
    return bench, not_tried


def _references(job: Job, bench: Workbench | None) -> list[Reference]:
    if bench is None or job.search_judge is None or not processes.first():
        return []
    references = [bench.nudge()]
    if all(method.kind != LINEAR for method in job.methods):
        references.insert(0, bench.linear())
    return references


def _base_scores(job: Job, bench: Workbench | None) -> np.ndarray | None:
    """float64 (n_queries,): dev scores of the base model; None where queries judge nothing."""
    if bench is None or job.search_judge is None:
        return None
    return bench.base_scores


def _seen(job: Job) -> np.ndarray:
    """bool (n_dev_queries,): those with a relevant document that has training queries."""
    judge = job.search_judge
    if judge is None:
        return np.zeros(0, bool)
    positives = {job.rows.documents[positive] for _, positive, _ in job.rows.rows}
    return judge.seen(positives)


# -- methods over fixed vectors -------------------------------------------------------------------


def _linear(job: Job, bench: Workbench | None) -> Candidate:
    """The adapter as what was asked for."""
    assert bench is not None  # noqa: S101 - it is made whenever the method is asked for
    reference = bench.linear()
    return _taken(job, replace(reference, entry=replace(reference.entry, reference=False)), bench)


def _taken(job: Job, reference: Reference, bench: Workbench | None) -> Candidate:
    """A reference as the model of the stage, with the figures that a training reports."""
    assert reference.make is not None  # noqa: S101 - only entries with a model are chosen
    assert bench is not None  # noqa: S101 - references come from it
    encoder, entry = reference.make(), reference.entry
    measure = job.measure
    before = after = None
    history: list[dict[str, Any]] = []
    if job.search_judge is not None and entry.scores is not None:
        before, after = float(bench.base_scores.mean()), entry.mean
        history = [
            {"step": 0, "epoch": 0.0, measure: before},
            {"step": reference.epochs, "epoch": float(reference.epochs), measure: after},
        ]
    pairs = reference.epochs * reference.pairs
    summary = {
        **_base_of(job),
        "method": entry.name,
        "seed": job.settings.seed,
        "seeds": 1,
        "steps": reference.epochs,
        "best_step": reference.epochs,
        "seconds": round(entry.seconds, 1),
        "pairs_per_second": round(pairs / max(entry.seconds, 1e-9), 2),
        "precision": "fp32",
        "loss": "ranking",
        "dev": {"measure": measure, "before": before, "after": after},
        "examples": len(job.rows),
        "distinct_queries": len(job.rows.queries),
        "distinct_documents": len(job.rows.documents),
        "settings": job.settings.model_dump(mode="json"),
    }
    return Candidate(entry, encoder, history, summary)


def _base_of(job: Job) -> dict[str, Any]:
    return {
        "base_model": job.systems.config.model.name,
        "base_fingerprint": job.systems.encoder.fingerprint.id,
    }
