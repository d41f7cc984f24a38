"""Fine-tuning on sentence-transformers' Trainer, which brings checkpoints, devices and callbacks.

Ours are the batches, the loss mask, the dev evaluation and the proof that what is saved is the best
checkpoint, whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Train
from nearer.embed.declared import max_length
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ModelError
from nearer.files import write_json
from nearer.training.borrowed import borrowed
from nearer.training.checkpoints import (
    WORK_FILE,
    best_of,
    finished_state,
    newest_checkpoint,
    read_state,
    remembered,
    require_restored,
    saved_weights,
)
from nearer.training.examples import TrainingSet
from nearer.training.modes import training_mode
from nearer.training.work import Work

#: Learning rates where train.learning_rate is not set.
TRANSFORMER_LEARNING_RATE = 5e-5
STATIC_LEARNING_RATE = 2e-2

#: A model whose vectors are this near to its base's (1 - mean cosine) has not moved: rounding to
#: bf16 alone makes a difference of 2e-5.
_SAME_VECTORS = 1e-4
_SAMPLED_TEXTS = 64  # of each kind, to see how far training moved the model

#: Shares of the way from base to tuned, tried in this order.
MERGE_WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)

#: A model in training → its score on dev under the primary measure.
DevScore = Callable[[SentenceEncoder], float]


@dataclass(frozen=True, slots=True)
class Trained:
    """A fine-tuned model (a SentenceTransformer) with how it got there."""

    model: Any
    history: tuple[dict[str, Any], ...]
    summary: dict[str, Any] = field(default_factory=dict)


def train(
    encoder: SentenceEncoder,
    rows: TrainingSet,
    dev_score: DevScore | None,
    settings: Train,
    *,
    checkpoints: Path,
    measure: str = "nDCG@10",
) -> Trained:
    """Fine-tune the encoder's model in place and leave the best checkpoint in it.

    `dev_score` judges checkpoints (None: the last one is kept).  Goes on from the newest whole
    checkpoint in `checkpoints`.  Raises ModelError when the loss is not finite or when the best
    checkpoint cannot be restored whole.
    """
    import transformers

    model = encoder.model
    transformers.set_seed(settings.seed)
    length = settings.max_seq_length or _needed_length(encoder, rows)
    base = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    sample = _sample(rows)
    vectors_before = encoder.without_cache().encode(sample, "document")
    before = None
    with training_mode(model, settings, length):
        if dev_score is not None:
            before = remembered(checkpoints / "before.json", lambda: _judge(encoder, dev_score))
        fitted = _fit(encoder, rows, dev_score, settings, Checkpoints(checkpoints, measure, before))
        _require_finite(fitted, encoder.name)
        moved = _movement(vectors_before, encoder.without_cache().encode(sample, "document"))
        merged = Merged(1.0, ())
        if dev_score is not None and moved.moved:
            merged = merge(encoder, base, dev_score, settings.merge_tolerance)
    if not moved.moved:
        progress.warn(
            f"training did not move the model (mean cosine to its base {moved.mean_cosine:.5f}): "
            f"raise train.learning_rate, {fitted.learning_rate:g} now"
        )
    history = tuple(_history(fitted.log, measure, before))
    evaluations = [line[measure] for line in history if measure in line and line["step"]]
    after = dict(merged.curve).get(merged.weight, max(evaluations, default=None))
    summary = {
        "seed": settings.seed,
        "seeds": 1,
        **fitted.summary(),
        "dev": {"measure": measure, "before": before, "after": after},
        "moved": {"moved": moved.moved, "mean_cosine": round(moved.mean_cosine, 6)},
        "merge": {
            "weight": merged.weight,
            "curve": [{"weight": w, measure: score} for w, score in merged.curve],
        },
        "examples": len(rows),
        "distinct_queries": len(rows.queries),
        "distinct_documents": len(rows.documents),
        "max_seq_length": length,
        "precision": encoder.precision.name,
        "precision_reason": encoder.precision.reason,
        "settings": settings.model_dump(mode="json"),
    }
    return Trained(model, history, summary)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where one training keeps its checkpoints, and what judges them."""

    folder: Path
    measure: str
    before: float | None  # the base model's score; None when nothing judges checkpoints


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
        seconds = work.training_seconds
        return {
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "best_step": self.best_step,
            "stopped": "early" if self.steps < self.planned_steps else "at the end",
            "learning_rate": self.learning_rate,
            "train_loss": round(self.train_loss, 6),
            "seconds": round(work.seconds, 1),
            "training_seconds": round(seconds, 1),
            "pairs_per_second": round(work.pairs / seconds, 2) if seconds else None,
            "tokens_per_second": round(work.tokens / seconds, 1) if seconds else None,
            "resumed_from": self.resumed_from,
        }

    @property
    def train_loss(self) -> float:
        """Mean loss per step."""
        return self.work.loss / max(1, self.work.steps)


def _fit(
    encoder: SentenceEncoder,
    rows: TrainingSet,
    dev_score: DevScore | None,
    settings: Train,
    kept: Checkpoints,
) -> Fitted:
    """Optimise in place, from the newest whole checkpoint on; the best checkpoint is left in the model."""
    import transformers
    from datasets import Dataset

    from nearer.training.batches import Collator, DocumentBatches, RankingLoss

    model = encoder.model
    sampler = DocumentBatches(
        rows, settings.batch_size, settings.queries_per_document, settings.seed
    )
    steps = max(1, math.ceil(len(sampler) * settings.epochs))
    learning_rate = settings.learning_rate or default_learning_rate(model)
    resume = newest_checkpoint(kept.folder)
    work = Work(**read_state(resume / WORK_FILE)) if resume else Work()
    earlier = work.seconds
    started = time.monotonic()

    def total() -> Work:
        work.seconds = earlier + time.monotonic() - started
        return work

    with progress.task(f"train on {len(rows)} examples", steps, "steps") as bar:
        if kept.before is not None:
            bar.note(f"dev {kept.measure} {kept.before:.3f} before")
        callbacks = [watcher_of(bar, kept.measure, work)]
        if dev_score is not None:
            callbacks.append(transformers.EarlyStoppingCallback(settings.patience))
        trainer = _trainer_class(sampler, total)(
            model=model,
            args=_arguments(encoder, settings, kept, steps, len(sampler), learning_rate),
            train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
            loss=RankingLoss(model, settings.scale, work),
            evaluator=_evaluator(encoder, dev_score, kept.measure) if dev_score else None,
            data_collator=Collator(rows, encoder.features),
            callbacks=callbacks,
        )
        for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
            trainer.remove_callback(callback)
        state = finished_state(resume)
        if state is None:
            with borrowed(model):
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            state = trainer.state
        else:
            # Only what follows training was interrupted: nothing is trained again.
            model.load_state_dict(saved_weights(best_of(state, resume, kept.folder)))
            bar.reach(state.global_step)
        if state.best_model_checkpoint:
            require_restored(model, best_of(state, resume, kept.folder))
    return Fitted(
        log=state.log_history,
        steps=state.global_step,
        planned_steps=steps,
        best_step=state.best_global_step or state.global_step,
        learning_rate=learning_rate,
        work=total(),
        resumed_from=resume.name if resume else None,
    )


def _arguments(
    encoder: SentenceEncoder,
    settings: Train,
    kept: Checkpoints,
    steps: int,
    steps_per_epoch: int,
    learning_rate: float,
) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    judged = kept.before is not None
    every = max(1, steps_per_epoch // settings.evaluations)
    device = encoder.model.device.type
    return SentenceTransformerTrainingArguments(
        output_dir=str(kept.folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=learning_rate,
        warmup_steps=math.ceil(steps * settings.warmup),
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        bf16=encoder.precision.name == "bf16",
        use_cpu=device == "cpu",
        eval_strategy="steps" if judged else "no",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=judged,
        metric_for_best_model=f"eval_{kept.measure}",
        greater_is_better=True,
        # Without this, a resumed training forgets how long dev has not gained, and stops later.
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, min(10, steps_per_epoch // 4)),
        seed=settings.seed,
        data_seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
    )


def default_learning_rate(model: Any) -> float:
    """The learning rate where none is set: by what there is to train.

    A transformer is tuned gently.  A static model is one table of word vectors, which that rate
    does not move (measured: docs/training.md).
    """
    if getattr(model, "transformers_model", None) is None:
        return STATIC_LEARNING_RATE
    return TRANSFORMER_LEARNING_RATE


def _require_finite(fitted: Fitted, name: str) -> None:
    if not math.isfinite(fitted.train_loss):
        raise ModelError(
            "the training loss is not finite",
            where=name,
            next_step="lower train.learning_rate, or set train.precision=fp32",
        )


@dataclass(frozen=True, slots=True)
class Movement:
    """How far training moved the vectors of the training texts: their mean cosine to the base's."""

    mean_cosine: float

    @property
    def moved(self) -> bool:
        """Whether the vectors differ by more than another number format would make them differ."""
        return 1.0 - self.mean_cosine > _SAME_VECTORS


def _movement(before: np.ndarray, after: np.ndarray) -> Movement:
    products = np.sum(before.astype(np.float64) * after.astype(np.float64), axis=1)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return Movement(float(np.mean(products / np.maximum(norms, 1e-12))))


def _sample(rows: TrainingSet) -> list[str]:
    """Some of the training texts, spread evenly over queries and documents."""
    chosen: list[str] = []
    for texts in (rows.queries, rows.documents):
        step = max(1, len(texts) // _SAMPLED_TEXTS)
        chosen += texts[::step][:_SAMPLED_TEXTS]
    return chosen


@dataclass(frozen=True, slots=True)
class Merged:
    """How far the model went from its base (1 = all the way), and dev at each weight tried."""

    weight: float
    curve: tuple[tuple[float, float], ...]


def merge(
    encoder: SentenceEncoder, base: Mapping[str, Any], dev_score: DevScore, tolerance: float
) -> Merged:
    """Go back towards the base as far as dev allows: what a model does not need to learn it need not forget.

    Weights are base + w · (tuned - base) (LM-Cocktail, arXiv 2311.13534).  The smallest w within
    `tolerance` of the tuned model's dev score is kept; chosen on dev alone, so that the
    general-ability set can still judge it.  `base` is the state before training.
    """
    if tolerance <= 0:
        return Merged(1.0, ())
    tuned = {name: tensor.detach().clone() for name, tensor in encoder.model.state_dict().items()}
    curve: list[tuple[float, float]] = []
    chosen = 1.0
    with progress.task("merge with the base model", len(MERGE_WEIGHTS), "weights") as bar:
        for weight in MERGE_WEIGHTS:
            _load(encoder.model, base, tuned, weight)
            curve.append((weight, _judge(encoder, dev_score)))
            bar.advance()
            if curve[-1][1] < curve[0][1] - tolerance:
                break
            chosen = weight
    _load(encoder.model, base, tuned, chosen)
    return Merged(chosen, tuple(curve))


def _load(model: Any, base: Mapping[str, Any], tuned: Mapping[str, Any], weight: float) -> None:
    """Integer tensors (position ids) are the same in both and stay."""
    mixed = {
        n: t if weight == 1.0 or not t.is_floating_point() else base[n] + weight * (t - base[n])
        for n, t in tuned.items()
    }
    model.load_state_dict(mixed)


def _judge(encoder: SentenceEncoder, dev_score: DevScore) -> float:
    encoder.model.eval()
    return dev_score(encoder)


def _trainer_class(sampler: Any, work: Callable[[], Work]) -> Any:
    """sentence-transformers' Trainer with our batches, and checkpoints without pickled settings.

    `work` says what has been done so far; each checkpoint holds it.
    """
    from sentence_transformers import SentenceTransformerTrainer

    class Trainer(SentenceTransformerTrainer):  # type: ignore[misc,unused-ignore]
        def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
            return sampler

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """None: it would encode examples, for a card that is not written."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder, create_model_card=False)
            write_json(Path(folder) / WORK_FILE, asdict(work()))

    return Trainer


def _evaluator(encoder: SentenceEncoder, dev_score: DevScore, measure: str) -> Any:
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
            return {measure: _judge(encoder, dev_score)}

    return DevEvaluator()


def watcher_of(bar: progress.Task, measure: str = "", work: Work | None = None) -> Any:
    """Callback that moves the bar and adds the time of each step to `work`."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc,unused-ignore]
        _began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.reach(state.global_step)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if work is not None:
                work.training_seconds += time.monotonic() - self._began
            bar.reach(state.global_step)

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any
        ) -> None:
            bar.note(f"dev {measure} {metrics[f'eval_{measure}']:.3f}")

    return Watcher()


def _needed_length(encoder: SentenceEncoder, rows: TrainingSet) -> int:
    """The 95th percentile of the documents' tokens, within the model's own maximum.

    The few longer texts are cut while training; padding every batch to them costs more than they teach.
    """
    counts = encoder.token_counts(rows.documents)
    needed = max(16, math.ceil(float(np.percentile(counts, 95))))
    own = max_length(encoder.model)
    return needed if own is None else min(own, needed)


def _history(
    log: Sequence[dict[str, Any]], measure: str, before: float | None
) -> Iterator[dict[str, Any]]:
    if before is not None:
        yield {"step": 0, "epoch": 0.0, measure: before}
    for line in log:
        if "loss" in line:
            yield {
                "step": line["step"],
                "epoch": line["epoch"],
                "loss": line["loss"],
                "learning_rate": line.get("learning_rate"),
            }
        elif f"eval_{measure}" in line:
            yield {"step": line["step"], "epoch": line["epoch"], measure: line[f"eval_{measure}"]}
