"""Trains weights by one method: once, or once per seed with the average of their weights beside."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.embed.base import TextEncoder
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.measure.significance import mean_interval
from nearer.training.methods import lora
from nearer.training.methods.contest import Entry
from nearer.training.methods.frozen import upper_layers
from nearer.training.methods.job import Candidate, Job
from nearer.training.methods.naming import Method, parse
from nearer.training.methods.query_side import fixed_documents
from nearer.training.methods.seeds import WeightAverage, spread
from nearer.training.methods.towers import with_query_tower
from nearer.training.recipe import Judging, Recipe
from nearer.training.teacher import with_vectors
from nearer.training.trainer import judged_base, train


def train_weights(job: Job, method: Method) -> Candidate:
    """The best of the seeds' models and of their average, on dev; raises what `train` raises."""
    count = job.settings.seeds
    average = WeightAverage()
    best: Candidate | None = None
    scores: list[float] = []
    models: dict[str, TextEncoder] = {}
    seconds = 0.0
    for number in range(count):
        candidate = train_once(job, method, number)
        models[f"{method.name} seed {job.settings.seed + number}"] = candidate.encoder
        seconds += candidate.entry.seconds
        scores.append(candidate.entry.mean)
        if count > 1:
            average.add(with_weights(candidate.encoder).model)
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
    """The average of the seeds where dev likes it at least as well as the best of them.

    It must not forget more of the general set than `train.forget`, or than that best seed.
    """
    judge = job.judge
    assert judge is not None  # noqa: S101 - it was asked before
    averaged = average.applied_to(with_weights(best.encoder))
    column = judge.values(averaged)
    figures = {**spread(scores), "average": float(column.mean()), "taken": "one seed"}
    encoder: TextEncoder = best.encoder
    kept = best.entry.scores
    general = None if job.general is None else job.general(averaged)
    forgets = _forgets_more(best, general, job.settings.forget)
    if general is not None:
        figures["average_general"] = general
    if float(column.mean()) >= best.entry.mean and not forgets:
        figures["taken"] = "average"
        encoder, kept = averaged, column
        _describe_average(best.summary, column, general)
    best.summary["seed_scores"] = figures
    more = {**best.entry.more, "seeds": figures, "general": best.summary.get("forgetting")}
    entry = replace(best.entry, seconds=seconds, scores=kept, more=more)
    return replace(best, entry=entry, encoder=encoder)


def _forgets_more(best: Candidate, general: float | None, forget: float) -> bool:
    """Whether an average with this general score loses more than is allowed, and than `best` does."""
    known = best.summary.get("forgetting")
    if general is None or not known:
        return False
    allowed = forget
    if known["after"] is not None:
        allowed = max(forget, known["before"] - known["after"])
    return bool(known["before"] - general > allowed)


def _describe_average(summary: dict[str, Any], dev: np.ndarray, general: float | None) -> None:
    """Make the figures of the summary those of the average; `dev` is float64 (n_queries,)."""
    summary["dev"]["after"] = float(dev.mean())
    if "interval" in summary["dev"]:
        bounds = mean_interval(dev)
        summary["dev"]["interval"] = [bounds.low, bounds.high]
    if summary.get("forgetting") and general is not None:
        summary["forgetting"] = {**summary["forgetting"], "after": general}


def judge_base(job: Job) -> Judging:
    """How the base model does on dev, and how long it takes to say; kept in `job.checkpoints`."""
    encoder, recipe = _begun(job, parse("full"), 0)
    return judged_base(encoder, job.rows, job.dev, recipe)


def _begun(job: Job, method: Method, number: int) -> tuple[SentenceEncoder, Recipe]:
    """The base model in the precision of training, and how it is trained."""
    systems = job.systems
    settings = _settings_of(job, method, number)
    in_training = systems.config.model.model_copy(update={"precision": settings.precision})
    encoder = load_encoder(in_training, systems.root)
    recipe = Recipe.of(
        settings,
        checkpoints_of(job, method, number),
        measure=job.measure,
        root=systems.root,
        rows=job.rows,
    )
    if job.base_scores is not None:
        shutil.copytree(job.base_scores, recipe.checkpoints, dirs_exist_ok=True)
    return encoder, recipe


def train_once(job: Job, method: Method, number: int = 0) -> Candidate:
    """One training, with the seed of that number; its dev scores per query are None in a trial."""
    started = time.monotonic()
    systems = job.systems
    encoder, recipe = _begun(job, method, number)
    base = encoder.fingerprint.id
    recipe = replace(recipe, budget=job.time.share(), final_look=not job.trial)
    rows = with_vectors(job.rows, systems, encoder.dimension)
    general = None if job.trial else job.general
    with _part(job, method, encoder) as finish:
        trained = train(encoder, rows, job.dev, recipe, general)
        final = finish()
    summary = {
        "base_model": systems.config.model.name,
        "base_fingerprint": base,
        "method": method.name,
        **trained.summary,
    }
    scores = None
    if job.judge is not None and not job.trial:
        scores = trained.dev_scores
        if scores is None:
            scores = job.judge.values(final)
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
    if job.trial:
        changes["merge_tolerance"] = 0.0
    return job.settings.model_copy(update=changes)


def checkpoints_of(job: Job, method: Method, number: int) -> Path:
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
        base = with_weights(job.systems.encoder)
        with fixed_documents(encoder, base):
            yield lambda: with_query_tower(base, encoder.model)
    else:
        yield finish


def with_weights(encoder: TextEncoder) -> SentenceEncoder:
    """The encoder, which is one over a model that is here: only such ones are trained."""
    assert isinstance(encoder, SentenceEncoder)  # noqa: S101 - the stage has asked before
    return encoder


def _size(model: Any) -> int:
    """Bytes of the weights, those that routes share counted once."""
    weights = {id(tensor): tensor for tensor in model.parameters()}
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
