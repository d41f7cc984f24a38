"""The optimisation: sentence-transformers' Trainer with our batches, loss and dev evaluation.

It goes on from the newest whole checkpoint after a kill, keeps to a budget of time, and ends with
the checkpoint in the model that is best on all of dev.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.embed.encoder import SentenceEncoder
from nearer.training import processes
from nearer.training.borrowed import borrowed
from nearer.training.checkpoints import (
    best_of,
    checkpoint_state,
    finished_state,
    newest_checkpoint,
    require_restored,
    saved_weights,
    timed,
)
from nearer.training.engine import Job, make_trainer
from nearer.training.examples import TrainingSet
from nearer.training.recipe import Judging, Recipe
from nearer.training.schedule import LOOKS_WITHOUT_MERGING, Planner, Schedule
from nearer.training.work import Work, WorkClock

#: Learning rates where train.learning_rate is not set.
TRANSFORMER_LEARNING_RATE = 1e-4
STATIC_LEARNING_RATE = 2e-2


@dataclass(frozen=True, slots=True)
class Fitted:
    """How the optimisation went, over all the processes that took turns at it."""

    log: Sequence[dict[str, Any]]
    steps: int
    best_step: int
    schedule: Schedule
    work: Work
    resumed_from: str | None
    dev: float | None = None  # of the kept checkpoint, on all of dev
    planner: Planner | None = None  # where there is a budget

    @property
    def planned_steps(self) -> int:
        return self.schedule.steps

    @property
    def learning_rate(self) -> float:
        return self.schedule.learning_rate

    def summary(self) -> dict[str, Any]:
        """The keys of train/summary.json that speak of it."""
        work = self.work
        return {
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "best_step": self.best_step,
            "stopped": self._stopped(),
            "learning_rate": self.learning_rate,
            "train_loss": round(self.train_loss, 6),
            "seconds": round(work.seconds, 1),
            "training_seconds": round(work.training_seconds, 1),
            "pairs_per_second": _rate(work.pairs, work.training_seconds, 2),
            "tokens_per_second": _rate(work.tokens, work.training_seconds, 1),
            "resumed_from": self.resumed_from,
            "budget": self._budget(),
            "processes": processes.count(),
        }

    def _stopped(self) -> str:
        if self.steps < self.schedule.steps:
            return "early"
        if self.schedule.steps < self.schedule.most_steps:
            return "at the end of the budget"
        return "at the end"

    def _budget(self) -> dict[str, Any] | None:
        if self.planner is None:
            return None
        return {
            "seconds": self.planner.budget.seconds,
            "steps_without": self.schedule.most_steps,
            "reserve": round(self.planner.reserve, 1),
        }

    @property
    def train_loss(self) -> float:
        """Mean loss per step."""
        return self.work.loss / max(1, self.work.steps)

    def is_worse_than(self, dev: float) -> bool:
        """Whether the kept checkpoint has a smaller score on all of dev."""
        return self.dev is not None and self.dev < dev

    def time_for_another_score(self) -> bool:
        """Whether the budget allows one more score on all of dev, and saving after it."""
        planner = self.planner
        return planner is None or processes.agreed(planner.allows_score)


def _rate(count: int, seconds: float, digits: int) -> float | None:
    return round(count / seconds, digits) if seconds else None


def fit(
    encoder: SentenceEncoder, rows: TrainingSet, recipe: Recipe, judging: Judging | None
) -> Fitted:
    """Optimise the encoder's model in place; the best checkpoint is left in it.

    Without `judging` the last checkpoint is kept.
    """
    processes.join()
    resume = newest_checkpoint(recipe.checkpoints)
    clock = WorkClock(resume, recipe.budget.started)
    job = _job(encoder, rows, recipe, judging, resume)
    planner = _planner(job, clock)
    with progress.task(f"train on {len(rows)} examples", job.schedule.steps, "steps") as bar:
        if judging is not None:
            bar.note(f"dev {recipe.measure} {judging.look_before:.3f} before")
        state = finished_state(resume)
        if state is None:
            trainer = make_trainer(job, clock, planner, bar)
            with borrowed(encoder.model), processes.together():
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            state = trainer.state
        else:
            # Only what follows training was interrupted: nothing is trained again.
            best = best_of(state, resume, recipe.checkpoints)
            encoder.model.load_state_dict(saved_weights(best))
            bar.reach(state.global_step)
    kept = _kept(encoder.model, state, job, planner)
    processes.meet()  # the first one removes the checkpoints that the others have read by now
    return Fitted(
        log=state.log_history,
        steps=state.global_step,
        best_step=kept.step or state.global_step,
        schedule=job.schedule,
        work=clock.now(),
        resumed_from=resume.name if resume else None,
        dev=kept.score,
        planner=planner,
    )


def _job(
    encoder: SentenceEncoder,
    rows: TrainingSet,
    recipe: Recipe,
    judging: Judging | None,
    resume: Path | None,
) -> Job:
    from nearer.training.batches import batches_of

    settings = recipe.settings
    sampler = batches_of(rows, settings)
    schedule = Schedule(
        most_steps=max(1, math.ceil(len(sampler) * settings.passes)),
        steps_per_epoch=len(sampler),
        learning_rate=settings.learning_rate or default_learning_rate(encoder.model),
        warmup=settings.warmup,
        evaluate_every=max(1, len(sampler) // settings.evaluations),
    )
    earlier = checkpoint_state(resume)
    if earlier is not None:
        # What was planned by the measured speed stays planned.
        schedule.steps = min(schedule.most_steps, earlier.max_steps)
        schedule.evaluate_every = int(earlier.eval_steps)
    return Job(encoder, rows, recipe, judging, sampler, schedule)


def _planner(job: Job, clock: WorkClock) -> Planner | None:
    budget, judging = job.recipe.budget, job.judging
    if not budget.limited:
        return None
    look_seconds = 0.0 if judging is None else judging.look_seconds
    score_seconds = 0.0 if judging is None else judging.seconds
    planner = Planner(job.schedule, budget, clock.earlier, look_seconds, score_seconds)
    if job.recipe.settings.merge_tolerance <= 0:
        planner.final_looks = LOOKS_WITHOUT_MERGING
    return planner


def default_learning_rate(model: Any) -> float:
    """The learning rate where none is set: by what there is to train.

    A transformer is tuned gently.  A static model is one table of word vectors, which that rate
    does not move (measured: docs/training.md).
    """
    if getattr(model, "transformers_model", None) is None:
        return STATIC_LEARNING_RATE
    return TRANSFORMER_LEARNING_RATE


@dataclass(frozen=True, slots=True)
class _Kept:
    """The checkpoint that was left in the model: its step, and its score on all of dev."""

    step: int | None = None
    score: float | None = None


def _kept(model: Any, state: Any, job: Job, planner: Planner | None) -> _Kept:
    """Leave the best checkpoint in the model, which holds the one that looked best.

    Looks at a sample choose among all checkpoints; between that choice and the last one, which the
    sample may have misjudged, all of dev decides.
    """
    judging, folder = job.judging, job.recipe.checkpoints
    if judging is None:
        return _Kept()
    best = best_of(state, newest_checkpoint(folder), folder)
    if not judging.sampled:
        require_restored(model, best)
        return _Kept(state.best_global_step, state.best_metric)
    kept = _Kept(_step_of(best), _whole(judging, best))
    last = newest_checkpoint(folder)
    time_is_left = planner is None or processes.agreed(planner.allows_score)
    if last is not None and last != best and time_is_left:
        model.load_state_dict(saved_weights(last))
        score = _whole(judging, last)
        if kept.score is not None and score > kept.score:
            best, kept = last, _Kept(_step_of(last), score)
        else:
            model.load_state_dict(saved_weights(best))
    require_restored(model, best)
    return kept


def _whole(judging: Judging, checkpoint: Path) -> float:
    """The score on all of dev of the model as it is, which holds this checkpoint."""
    path = checkpoint.with_name(f"score_{checkpoint.name}.json")
    return timed(path, judging.score)[0]


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
