"""The optimisation: sentence-transformers' Trainer with our batches, loss and dev evaluation.

It goes on from the newest whole checkpoint after a kill, and ends with the best one in the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.config import Train
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ModelError, NearerError
from nearer.training.borrowed import borrowed
from nearer.training.callbacks import silence, watcher_of
from nearer.training.checkpoints import (
    best_of,
    finished_state,
    newest_checkpoint,
    require_restored,
    saved_weights,
)
from nearer.training.examples import TrainingSet
from nearer.training.losses import ChosenLoss
from nearer.training.recipe import Judging, Recipe
from nearer.training.work import Work, WorkClock

#: Learning rates where train.learning_rate is not set.
TRANSFORMER_LEARNING_RATE = 5e-5
STATIC_LEARNING_RATE = 2e-2


@dataclass(frozen=True, slots=True)
class Fitted:
    """How the optimisation went, over all the processes that took turns at it."""

    log: Sequence[dict[str, Any]]
    steps: int
    planned_steps: int
    best_step: int
    learning_rate: float
    work: Work
    resumed_from: str | None

    def summary(self) -> dict[str, Any]:
        """The keys of train/summary.json that speak of it."""
        work = self.work
        return {
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "best_step": self.best_step,
            "stopped": "early" if self.steps < self.planned_steps else "at the end",
            "learning_rate": self.learning_rate,
            "train_loss": round(self.train_loss, 6),
            "seconds": round(work.seconds, 1),
            "training_seconds": round(work.training_seconds, 1),
            "pairs_per_second": _rate(work.pairs, work.training_seconds, 2),
            "tokens_per_second": _rate(work.tokens, work.training_seconds, 1),
            "resumed_from": self.resumed_from,
        }

    @property
    def train_loss(self) -> float:
        """Mean loss per step."""
        return self.work.loss / max(1, self.work.steps)


def _rate(count: int, seconds: float, digits: int) -> float | None:
    return round(count / seconds, digits) if seconds else None


@dataclass(frozen=True, slots=True)
class _Schedule:
    """How many steps a training takes, and how large they are."""

    steps: int
    steps_per_epoch: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class _Job:
    """One optimisation: the model, its examples, and how it is trained."""

    encoder: SentenceEncoder
    rows: TrainingSet
    recipe: Recipe
    judging: Judging | None
    sampler: Any
    schedule: _Schedule


def fit(
    encoder: SentenceEncoder, rows: TrainingSet, recipe: Recipe, judging: Judging | None
) -> Fitted:
    """Optimise the encoder's model in place; the best checkpoint is left in it.

    Without `judging` the last checkpoint is kept.
    """
    job = _job(encoder, rows, recipe, judging)
    resume = newest_checkpoint(recipe.checkpoints)
    clock = WorkClock(resume)
    schedule = job.schedule
    with progress.task(f"train on {len(rows)} examples", schedule.steps, "steps") as bar:
        if judging is not None:
            bar.note(f"dev {recipe.measure} {judging.before:.3f} before")
        trainer = _trainer(job, clock, bar)
        state = finished_state(resume)
        if state is None:
            with borrowed(encoder.model):
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            state = trainer.state
        else:
            # Only what follows training was interrupted: nothing is trained again.
            best = best_of(state, resume, recipe.checkpoints)
            encoder.model.load_state_dict(saved_weights(best))
            bar.reach(state.global_step)
        if state.best_model_checkpoint:
            require_restored(encoder.model, best_of(state, resume, recipe.checkpoints))
    return Fitted(
        log=state.log_history,
        steps=state.global_step,
        planned_steps=schedule.steps,
        best_step=state.best_global_step or state.global_step,
        learning_rate=schedule.learning_rate,
        work=clock.now(),
        resumed_from=resume.name if resume else None,
    )


def _job(
    encoder: SentenceEncoder, rows: TrainingSet, recipe: Recipe, judging: Judging | None
) -> _Job:
    from nearer.training.batches import batches_of

    settings = recipe.settings
    sampler = batches_of(rows, settings)
    schedule = _Schedule(
        steps=max(1, math.ceil(len(sampler) * settings.epochs)),
        steps_per_epoch=len(sampler),
        learning_rate=settings.learning_rate or default_learning_rate(encoder.model),
    )
    return _Job(encoder, rows, recipe, judging, sampler, schedule)


def default_learning_rate(model: Any) -> float:
    """The learning rate where none is set: by what there is to train.

    A transformer is tuned gently.  A static model is one table of word vectors, which that rate
    does not move (measured: docs/training.md).
    """
    if getattr(model, "transformers_model", None) is None:
        return STATIC_LEARNING_RATE
    return TRANSFORMER_LEARNING_RATE


def _trainer(job: _Job, clock: WorkClock, bar: progress.Task) -> Any:
    import transformers
    from datasets import Dataset

    from nearer.training.batches import Collator

    encoder, recipe, judging = job.encoder, job.recipe, job.judging
    callbacks = [watcher_of(bar, recipe.measure, clock.work)]
    evaluator = None
    if judging is not None:
        callbacks.append(transformers.EarlyStoppingCallback(recipe.settings.patience))
        evaluator = _evaluator(judging.score, recipe.measure)
    trainer = _trainer_class(job.sampler, clock)(
        model=encoder.model,
        args=_arguments(job),
        train_dataset=Dataset.from_dict({"row": list(range(len(job.rows)))}),
        loss=_loss(recipe.loss, encoder.model, recipe.settings),
        evaluator=evaluator,
        data_collator=Collator(job.rows, encoder.features),
        callbacks=callbacks,
    )
    silence(trainer)
    return trainer


def _loss(chosen: ChosenLoss, model: Any, settings: Train) -> Any:
    try:
        return chosen.make(model, settings)
    except NearerError:
        raise
    except Exception as error:
        raise ModelError(
            f"the loss {chosen.name} cannot be made: {type(error).__name__}: {error}",
            where="train.loss",
            next_step="mend it: a loss is made as Class(model, settings)",
        ) from error


def _arguments(job: _Job) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    settings, schedule = job.recipe.settings, job.schedule
    judged = job.judging is not None
    every = max(1, schedule.steps_per_epoch // settings.evaluations)
    device = job.encoder.model.device.type
    return SentenceTransformerTrainingArguments(
        output_dir=str(job.recipe.checkpoints),
        max_steps=schedule.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=schedule.learning_rate,
        warmup_steps=math.ceil(schedule.steps * settings.warmup),
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        bf16=job.encoder.precision.name == "bf16",
        use_cpu=device == "cpu",
        eval_strategy="steps" if judged else "no",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=judged,
        metric_for_best_model=f"eval_{job.recipe.measure}",
        greater_is_better=True,
        # Without this, a resumed training forgets how long dev has not gained, and stops later.
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, min(10, schedule.steps_per_epoch // 4)),
        seed=settings.seed,
        data_seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
    )


def _trainer_class(sampler: Any, clock: WorkClock) -> Any:
    """sentence-transformers' Trainer with our batches, and checkpoints without pickled settings.

    Every step is counted in the clock's work, and each checkpoint holds the work done so far.
    """
    from sentence_transformers import SentenceTransformerTrainer

    class Trainer(SentenceTransformerTrainer):  # type: ignore[misc,unused-ignore]
        def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
            return sampler

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            labels = inputs["label"]
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss = result[0] if return_outputs else result
            clock.work.add(len(labels["target"]), int(labels["tokens"]), float(loss.detach()))
            return result

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """None: it would encode examples, for a card that is not written."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder, create_model_card=False)
            clock.save(Path(folder))

    return Trainer


def _evaluator(score: Callable[[], float], measure: str) -> Any:
    """What sentence-transformers' Trainer calls to judge a checkpoint."""
    from sentence_transformers.base.evaluation import BaseEvaluator

    class DevEvaluator(BaseEvaluator):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.primary_metric = measure
            self.greater_is_better = True

        def __call__(
            self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
        ) -> dict[str, float]:
            return {measure: score()}

    return DevEvaluator()
