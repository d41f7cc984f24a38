"""Trains what the settings name, one after the other, beside the references; dev decides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.search.systems import Systems
from nearer.training.examples import TrainingSet
from nearer.training.looks import DevJudge, Judge
from nearer.training.methods import lora
from nearer.training.methods.contest import Entry, Table, choose
from nearer.training.methods.frozen import upper_layers
from nearer.training.methods.naming import Method, parse
from nearer.training.methods.query_side import fixed_documents
from nearer.training.methods.references import LINEAR, NUDGE, Learned, Reference, Workbench
from nearer.training.methods.seeds import WeightAverage, spread
from nearer.training.methods.towers import with_query_tower
from nearer.training.recipe import DevScore, Recipe
from nearer.training.schedule import Budget
from nearer.training.teacher import with_vectors
from nearer.training.trainer import train


class SharedTime:
    """The time of `train.budget`, divided among the trainings that are still to come."""

    def __init__(self, seconds: float = math.inf, trainings: int = 1) -> None:
        self._budget = Budget(seconds)
        self._trainings = trainings

    def share(self) -> Budget:
        """That of the next training: what the ones before left over goes to the others."""
        left = max(1.0, self._budget.left())
        share = Budget(left / max(1, self._trainings))
        self._trainings -= 1
        return share


@dataclass(frozen=True)
class Job:
    """What is trained on what, and how it is judged: on dev, and on ordinary language (`general`).

    Either may be None: there are no dev queries, or there is no such set.
    """

    systems: Systems
    learned: Learned
    dev: DevJudge | None
    checkpoints: Path
    general: DevScore | None = None
    time: SharedTime = field(default_factory=SharedTime)

    @property
    def rows(self) -> TrainingSet:
        return self.learned.rows

    @property
    def settings(self) -> config.Train:
        return self.systems.config.train

    @property
    def judge(self) -> Judge | None:
        """Judges on all of dev."""
        return None if self.dev is None else self.dev.whole

    @property
    def methods(self) -> tuple[Method, ...]:
        """In the order of the settings, each once."""
        names = self.settings.candidates or (self.settings.method,)
        return tuple(parse(name) for name in dict.fromkeys(names))


@dataclass(frozen=True)
class Candidate:
    """A model with how it came to be."""

    entry: Entry
    encoder: TextEncoder
    history: Sequence[Mapping[str, Any]]
    summary: dict[str, Any]
    others: Mapping[str, TextEncoder] = field(default_factory=dict)  # of seeds that were not taken


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
    """Run the references and train every method of the settings; raises what `train` raises."""
    job = replace(job, time=_shared_time(job))
    bench, not_tried = _workbench(job)
    references = _references(job, bench)
    for line in not_tried:
        progress.info(f"{line['name']} was not tried: {line['reason']}")
    best: Candidate | None = None
    trained: list[Entry] = []
    models: dict[str, TextEncoder] = {}
    for method in job.methods:
        candidate = _linear(job, bench) if method.kind == LINEAR else _trained(job, method)
        trained.append(candidate.entry)
        models |= {candidate.entry.name: candidate.encoder, **candidate.others}
        if best is None or candidate.entry.mean > best.entry.mean:
            best = candidate
    assert best is not None  # noqa: S101 - there is at least one method
    entries = [reference.entry for reference in references]
    chosen = choose(trained, entries, job.settings.seed)
    if chosen.entry.reference:
        reference = references[entries.index(chosen.entry)]
        objection = _objection(job, reference)
        if objection:
            chosen = replace(choose(trained, [], job.settings.seed), reason=objection)
        else:
            best = _taken(job, reference, bench)
        progress.info(chosen.reason)
    table = Table(
        measure=job.systems.config.evaluate.primary,
        base=None if bench is None or job.dev is None else bench.base_scores,
        seen=_seen(job),
        entries=[*trained, *entries],
        chosen=chosen,
        not_tried=not_tried,
        seed=job.settings.seed,
    )
    others = {name: model for name, model in models.items() if model is not best.encoder}
    return Outcome(best, table.as_dict(), others)


def train_method(job: Job, method: Method) -> Candidate:
    """Train one method alone, whatever the budget; raises what `train` raises."""
    if method.kind == LINEAR:
        return _linear(job, _workbench(job)[0])
    return _trained(job, method)


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
    not_tried = []
    if job.dev is None:
        reason = "there are no dev queries to judge it on"
        not_tried = [{"name": name, "reason": reason} for name in (LINEAR, NUDGE)]
        if not wants_linear:
            return None, not_tried
        not_tried = not_tried[1:]
    bench = Workbench.of(job.systems.encoder, job.learned, job.judge, job.settings)
    return bench, not_tried


def _references(job: Job, bench: Workbench | None) -> list[Reference]:
    if bench is None or job.dev is None:
        return []
    references = [bench.nudge()]
    if all(method.kind != LINEAR for method in job.methods):
        references.insert(0, bench.linear())
    return references


def _seen(job: Job) -> np.ndarray:
    """bool (n_dev_queries,): those with a relevant document that has training queries."""
    judge = job.judge
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
    measure = job.systems.config.evaluate.primary
    before = after = None
    history: list[dict[str, Any]] = []
    if job.dev is not None and entry.scores is not None:
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


# -- methods that train weights -------------------------------------------------------------------


def _trained(job: Job, method: Method) -> Candidate:
    """The best of the seeds' models and of their average, on dev."""
    count = job.settings.seeds
    average = WeightAverage()
    best: Candidate | None = None
    scores: list[float] = []
    models: dict[str, TextEncoder] = {}
    seconds = 0.0
    for number in range(count):
        candidate = _train_once(job, method, number)
        models[f"{method.name} seed {job.settings.seed + number}"] = candidate.encoder
        seconds += candidate.entry.seconds
        scores.append(candidate.entry.mean)
        if count > 1:
            average.add(_with_weights(candidate.encoder).model)
        if best is None or candidate.entry.mean > best.entry.mean:
            best = candidate
    assert best is not None  # noqa: S101 - there is at least one seed
    if count == 1:
        return best
    best.summary["seeds"] = count
    if job.dev is not None:
        best = _with_average(job, best, average, scores, seconds)
    others = {name: model for name, model in models.items() if model is not best.encoder}
    return replace(best, others=others)


def _with_average(
    job: Job, best: Candidate, average: WeightAverage, scores: Sequence[float], seconds: float
) -> Candidate:
    """The average of the seeds where dev likes it at least as well as the best of them."""
    assert job.dev is not None  # noqa: S101 - it was asked before
    averaged = average.applied_to(_with_weights(best.encoder))
    column = job.dev.whole.values(averaged)
    figures = {**spread(scores), "average": float(column.mean())}
    taken = "one seed"
    encoder: TextEncoder = best.encoder
    kept = best.entry.scores
    if float(column.mean()) >= best.entry.mean:
        taken, encoder, kept = "average", averaged, column
        best.summary["dev"]["after"] = float(column.mean())
    figures["taken"] = taken
    best.summary["seed_scores"] = figures
    more = {**best.entry.more, "seeds": figures}
    entry = replace(best.entry, seconds=seconds, scores=kept, more=more)
    return replace(best, entry=entry, encoder=encoder)


def _train_once(job: Job, method: Method, number: int) -> Candidate:
    """One training, with the seed of that number."""
    started = time.monotonic()
    systems = job.systems
    settings = _settings_of(job, method, number)
    in_training = systems.config.model.model_copy(update={"precision": settings.precision})
    encoder = load_encoder(in_training, systems.root)
    base = encoder.fingerprint.id
    recipe = Recipe.of(
        settings,
        _checkpoints(job, method, number),
        measure=systems.config.evaluate.primary,
        root=systems.root,
        rows=job.rows,
    )
    recipe = replace(recipe, budget=job.time.share())
    rows = with_vectors(job.rows, systems, encoder.dimension)
    with _part(job, method, encoder) as finish:
        trained = train(encoder, rows, job.dev, recipe, job.general)
        final = finish()
    summary = {
        "base_model": systems.config.model.name,
        "base_fingerprint": base,
        "method": method.name,
        **trained.summary,
    }
    scores = None
    if job.dev is not None:
        scores = trained.dev_scores
        if scores is None:
            scores = job.dev.whole.values(final)
    entry = Entry(
        method.name,
        max(time.monotonic() - started, summary["seconds"]),
        method.reindex,
        _size(final.model),
        scores,
        more={"general": summary.get("forgetting")},
    )
    return Candidate(entry, final, trained.history, summary)


def _settings_of(job: Job, method: Method, number: int) -> config.Train:
    """The settings of one training: its seed, and the learning rate where its method has its own."""
    changes: dict[str, Any] = {"seed": job.settings.seed + number}
    if method.kind == "lora" and job.settings.learning_rate is None:
        changes["learning_rate"] = lora.LEARNING_RATE
    return job.settings.model_copy(update=changes)


def _checkpoints(job: Job, method: Method, number: int) -> Path:
    """A folder of its own for each training; the first of `full` has the outer one."""
    if method.kind == "full" and number == 0:
        return job.checkpoints
    return job.checkpoints / f"{method.name.replace(':', '-')}-{number}"


@contextmanager
def _part(
    job: Job, method: Method, encoder: SentenceEncoder
) -> Iterator[Callable[[], SentenceEncoder]]:
    """While it lasts, only the part that the method names trains; gives what makes the result."""

    def finish() -> SentenceEncoder:
        return encoder

    if method.kind == "top":
        with upper_layers(encoder, method.size):
            yield finish
    elif method.kind == "lora":
        with lora.low_rank_changes(encoder.model, method.size):
            yield finish
    elif method.kind == "query":
        base = _with_weights(job.systems.encoder)
        with fixed_documents(encoder, base):
            yield lambda: with_query_tower(base, encoder.model)
    else:
        yield finish


def _with_weights(encoder: TextEncoder) -> SentenceEncoder:
    """The encoder, which is one over a model that is here: only such ones are trained."""
    assert isinstance(encoder, SentenceEncoder)  # noqa: S101 - the stage has asked before
    return encoder


def _size(model: Any) -> int:
    """Bytes of the weights, those that routes share counted once."""
    weights = {id(tensor): tensor for tensor in model.parameters()}
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
