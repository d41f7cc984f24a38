"""sentence-transformers' Trainer as a training uses it: its arguments, callbacks and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.config import Train
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ModelError, NearerError
from nearer.training import processes
from nearer.training.callbacks import (
    checkpointer_of,
    planner_of,
    silence,
    users_own,
    watcher_of,
)
from nearer.training.checkpoints import LOSS_FILE
from nearer.training.examples import TrainingSet
from nearer.training.losses import ChosenLoss
from nearer.training.recipe import Judging, Recipe
from nearer.training.reporting import logging_to
from nearer.training.schedule import Planner, Schedule
from nearer.training.sharing import SharedModel
from nearer.training.work import WorkClock


@dataclass(frozen=True, slots=True)
class Job:
    """One optimisation: the model, its examples, and how it is trained."""

    encoder: SentenceEncoder
    rows: TrainingSet
    recipe: Recipe
    judging: Judging | None
    sampler: Any
    schedule: Schedule


def make_trainer(job: Job, clock: WorkClock, planner: Planner | None, bar: progress.Task) -> Any:
    """The Trainer of a job; `train()` of it optimises the encoder's model in place.

    Raises ConfigError for callbacks and loggers that cannot be made, ModelError for such a loss.
    """
    import transformers
    from datasets import Dataset

    from nearer.training.batches import Collator

    encoder, recipe, judging = job.encoder, job.recipe, job.judging
    settings = recipe.settings
    callbacks = [
        # The time of a step is counted before the plan looks at it, and the plan may ask to save.
        watcher_of(bar, recipe.measure, clock.work),
        planner_of(job.schedule, planner, clock.work, bar),
        checkpointer_of(settings.checkpoint_steps),
    ]
    evaluator = None
    if judging is not None:
        callbacks.append(transformers.EarlyStoppingCallback(settings.patience))
        evaluator = _evaluator(judging.look, recipe.measure)
    callbacks += users_own(settings.callbacks, recipe.root)
    trainer = _trainer_class(job, clock, planner)(
        model=encoder.model,
        args=_arguments(job),
        train_dataset=Dataset.from_dict({"row": list(range(len(job.rows)))}),
        loss=_loss(recipe.loss, encoder.model, settings),
        evaluator=evaluator,
        data_collator=Collator(job.rows, encoder.features, _most_negatives(settings)),
        callbacks=callbacks,
    )
    silence(trainer)
    return trainer


def _most_negatives(settings: Train) -> int:
    """How many documents may join a batch as hard negatives alone."""
    if settings.negatives_per_batch is None:
        return settings.batch_size // 2
    return settings.negatives_per_batch


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


def _arguments(job: Job) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    settings, schedule = job.recipe.settings, job.schedule
    judged = job.judging is not None
    device = job.encoder.model.device.type
    return SentenceTransformerTrainingArguments(
        output_dir=str(job.recipe.checkpoints),
        # The steps that are planned are fewer where there is a budget: callbacks.planner_of.
        max_steps=schedule.most_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=schedule.learning_rate,
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        bf16=job.encoder.precision.name == "bf16",
        use_cpu=device == "cpu",
        eval_strategy="steps" if judged else "no",
        save_strategy="steps",
        eval_steps=schedule.evaluate_every,
        save_steps=schedule.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=judged,
        metric_for_best_model=f"eval_{job.recipe.measure}",
        greater_is_better=True,
        # Without this, a resumed training forgets how long dev has not gained, and stops later.
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, min(10, schedule.steps_per_epoch // 4)),
        seed=settings.seed,
        data_seed=settings.seed,
        report_to=logging_to(settings.report_to, job.recipe),
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        # Each process encodes its share of a batch; buffers hold nothing that training changes.
        ddp_backend="gloo" if processes.count() > 1 and device == "cpu" else None,
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=True,  # a pooling head that vectors do not go through
    )


def _trainer_class(job: Job, clock: WorkClock, planner: Planner | None) -> Any:
    """sentence-transformers' Trainer with our batches, and checkpoints without pickled settings.

    Every step is counted in the clock's work, and each checkpoint holds the work done so far.
    """
    # Longer than fifty lines: one class, whose methods share what this function is given.
    import torch
    from sentence_transformers import SentenceTransformerTrainer

    class Trainer(SentenceTransformerTrainer):  # type: ignore[misc,unused-ignore]
        lr_scheduler: Any

        def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
            return job.sampler

        def get_train_dataloader(self) -> Any:
            if processes.count() == 1:
                return super().get_train_dataloader()
            # Every process gets every batch whole, and encodes its share of the texts.
            loader = self._build_dataloader(
                self.train_dataset, self.args.train_batch_size, dataset_kind="train"
            )
            loader.set_epoch = job.sampler.set_epoch  # the Trainer looks for it here
            return loader

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            def factor(step: int) -> float:
                return job.schedule.factor(step)  # a function: checkpoints leave it out

            if self.lr_scheduler is None:
                self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                    optimizer or self.optimizer, factor
                )
                self._created_lr_scheduler = True
            return self.lr_scheduler

        def override_model_in_loss(self, loss: Any, model: Any) -> Any:
            if processes.count() > 1 and not isinstance(model, SharedModel):
                model = SharedModel(model)
            return super().override_model_in_loss(loss, model)

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

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            started = time.monotonic()
            super()._save_checkpoint(model, trial)
            if planner is not None:
                planner.checkpoint_seconds = time.monotonic() - started

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder, create_model_card=False)
            own = _own_weights(self.loss, self.model)
            if own:
                torch.save(own, Path(folder) / LOSS_FILE)
            clock.save(Path(folder))

        def _load_from_checkpoint(self, checkpoint_path: str) -> None:
            super()._load_from_checkpoint(checkpoint_path)
            path = Path(checkpoint_path) / LOSS_FILE
            if path.is_file():
                self.loss.load_state_dict(torch.load(path, weights_only=True), strict=False)

    return Trainer


def _own_weights(loss: Any, model: Any) -> dict[str, Any]:
    """What a loss learns besides the model: without it a resumed training begins it anew.

    What it holds and does not train (a teacher, say) is made again when the loss is.
    """
    of_model = {id(parameter) for parameter in model.parameters()}
    weights = {}
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad and id(parameter) not in of_model:
            weights[name] = parameter.detach().cpu()
    return weights


def _evaluator(look: Callable[[], float], measure: str) -> Any:
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
            return {measure: look()}

    return DevEvaluator()
