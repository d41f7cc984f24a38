"""Fine-tuning from beginning to end: optimise, see how far the model moved, merge it with its base.

Ours are the batches, the mask of the loss, the dev evaluation and the proof that what is saved is
the best checkpoint, whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nearer import progress
from nearer.embed.declared import max_length
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ModelError
from nearer.training import processes
from nearer.training.anchor import Anchor
from nearer.training.checkpoints import timed
from nearer.training.examples import TrainingSet
from nearer.training.looks import DevJudge
from nearer.training.merging import Merged, MergeRule, back_to_base, merge
from nearer.training.modes import training_mode
from nearer.training.movement import Movement, sampled_vectors
from nearer.training.optimise import Fitted, fit
from nearer.training.overfit import Final, final_look
from nearer.training.recipe import DevScore, Judging, Recipe


@dataclass(frozen=True, slots=True)
class Trained:
    """A fine-tuned model (a SentenceTransformer) with how it got there."""

    model: Any
    history: tuple[dict[str, Any], ...]
    summary: dict[str, Any] = field(default_factory=dict)
    dev_scores: np.ndarray | None = None  # per dev query, float64 (n_queries,); None: not measured


def train(
    encoder: SentenceEncoder,
    rows: TrainingSet,
    dev_score: DevScore | None,
    recipe: Recipe,
    general_score: DevScore | None = None,
) -> Trained:
    """Fine-tune the encoder's model in place and leave the best checkpoint in it.

    `dev_score` judges checkpoints (None: the last one is kept); `general_score` says how well a
    model still searches ordinary language (None: unknown), and takes part in choosing how far to
    go back towards the base.  Goes on from the newest whole checkpoint of the recipe.  Raises
    ModelError when the loss is not finite or when the best checkpoint cannot be restored whole.
    """
    # Longer than fifty lines, since the order of these steps is what this function is about.
    import transformers

    from nearer.training.batches import planned_batches

    model, settings = encoder.model, recipe.settings
    transformers.set_seed(settings.seed)
    length = settings.max_seq_length or _needed_length(encoder, rows)
    base = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    vectors_before = sampled_vectors(encoder.without_cache(), rows)
    if settings.anchor:
        batches = planned_batches(rows, settings)
        anchor = Anchor.of_base(encoder, settings.anchor_texts, settings.seed, batches)
        rows = replace(rows, anchor=anchor)
    merged = Merged()
    with training_mode(model, settings, length):
        judging = _judging(encoder, dev_score, general_score, recipe)
        fitted = fit(encoder, rows, recipe, judging)
        _require_finite(fitted, encoder.name)
        vectors_after = sampled_vectors(encoder.without_cache(), rows)
        movement = Movement.between(vectors_before, vectors_after)
        go_on = fitted.time_for_another_score
        if judging is not None and movement.moved:
            rule = MergeRule(settings.merge_tolerance, settings.keep, settings.forget)
            before = judging.scores_before
            if go_on():
                merged = merge(model, base, before, judging.agreed_scores, rule, go_on)
            elif rule.tolerance > 0 and fitted.is_worse_than(before.dev):
                merged = back_to_base(model, base, before)
        final = None
        if recipe.final_look:
            final = _final_look(encoder, dev_score, rows, fitted)
    if not movement.moved:
        progress.warn(
            "training did not move the model "
            f"(mean cosine to its base {movement.mean_cosine:.5f}): "
            f"raise train.learning_rate, {fitted.learning_rate:g} now"
        )
    if merged.weight == 0.0:
        progress.warn(
            "training made dev worse at every weight: the model that is kept is its base "
            "(nearer diagnose says what may help instead)"
        )
    course = _Course(recipe, judging, fitted, movement, merged)
    history = tuple(course.history())
    summary = course.summary(rows)
    if final is not None:
        summary["dev"]["interval"] = list(final.interval)
        summary["gap"] = final.gap()
    summary |= {
        "max_seq_length": length,
        "precision": encoder.precision.name,
        "precision_reason": encoder.precision.reason,
        "loss": recipe.loss.name,
        "loss_reason": recipe.loss.reason,
        "settings": settings.model_dump(mode="json"),
    }
    return Trained(model, history, summary, None if final is None else final.per_query)


def judged_base(
    encoder: SentenceEncoder, rows: TrainingSet, dev_score: DevScore | None, recipe: Recipe
) -> Judging:
    """The base model on dev as `train` would judge it.  Raises ValueError without `dev_score`."""
    length = recipe.settings.max_seq_length or _needed_length(encoder, rows)
    with training_mode(encoder.model, recipe.settings, length):
        judging = _judging(encoder, dev_score, None, recipe)
    if judging is None:
        raise ValueError("there is nothing to judge by")
    return judging


def _judging(
    encoder: SentenceEncoder,
    dev_score: DevScore | None,
    general_score: DevScore | None,
    recipe: Recipe,
) -> Judging | None:
    if dev_score is None:
        return None
    sample = dev_score.sample if isinstance(dev_score, DevJudge) else None

    def score() -> float:
        return _judge(encoder, dev_score)

    before, seconds = timed(recipe.checkpoints / "before.json", score)
    look, look_before, look_seconds = score, before, seconds
    if sample is not None:

        def look() -> float:
            return _judge(encoder, sample)

        look_before, look_seconds = timed(recipe.checkpoints / "look_before.json", look)
    judging = Judging(score, before, look, look_before, seconds, look_seconds)
    if general_score is None:
        return judging

    def general() -> float:
        return _judge(encoder, general_score)

    general_before, general_seconds = timed(recipe.checkpoints / "general_before.json", general)
    return replace(
        judging,
        general=general,
        general_before=general_before,
        seconds=seconds + general_seconds,
    )


def _final_look(
    encoder: SentenceEncoder, dev_score: DevScore | None, rows: TrainingSet, fitted: Fitted
) -> Final | None:
    """The final model on dev and on training queries, where there is time for it."""
    if not isinstance(dev_score, DevJudge) or not fitted.time_for_another_score():
        return None
    encoder.model.eval()
    rng = np.random.default_rng(0)
    return processes.agreed(lambda: final_look(encoder, dev_score.whole, rows, rng))


def _judge(encoder: SentenceEncoder, dev_score: DevScore) -> float:
    encoder.model.eval()
    return dev_score(encoder)


@dataclass(frozen=True, slots=True)
class _Course:
    """What happened to the model, from its base to what is saved."""

    recipe: Recipe
    judging: Judging | None
    fitted: Fitted
    movement: Movement
    merged: Merged

    def history(self) -> Iterator[dict[str, Any]]:
        """Lines of `train/history.jsonl`: losses, and dev scores from the base model's on."""
        measure = self.recipe.measure
        if self.judging is not None:
            yield {"step": 0, "epoch": 0.0, measure: self.judging.look_before}
        for line in self.fitted.log:
            if "loss" in line:
                yield {
                    "step": line["step"],
                    "epoch": line["epoch"],
                    "loss": line["loss"],
                    "learning_rate": line.get("learning_rate"),
                }
            elif f"eval_{measure}" in line:
                score = line[f"eval_{measure}"]
                yield {"step": line["step"], "epoch": line["epoch"], measure: score}

    def summary(self, rows: TrainingSet) -> dict[str, Any]:
        """Keys of `train/summary.json`."""
        measure, movement = self.recipe.measure, self.movement
        return {
            "seed": self.recipe.settings.seed,
            "seeds": 1,
            **self.fitted.summary(),
            "dev": {
                "measure": measure,
                "before": self._dev_before(),
                "after": self._dev_after(),
            },
            "moved": {"moved": movement.moved, "mean_cosine": round(movement.mean_cosine, 6)},
            "merge": {"weight": self.merged.weight, "curve": list(self._merge_curve())},
            "forgetting": self._forgetting(),
            "examples": len(rows),
            "distinct_queries": len(rows.queries),
            "distinct_documents": len(rows.documents),
        }

    def _dev_before(self) -> float | None:
        if self.judging is None:
            return None
        return self.judging.before

    def _dev_after(self) -> float | None:
        if self.merged.scores is not None:
            return self.merged.scores.dev
        return self.fitted.dev

    def _merge_curve(self) -> Iterator[dict[str, Any]]:
        for weight, scores in self.merged.curve:
            point: dict[str, Any] = {"weight": weight, self.recipe.measure: scores.dev}
            if scores.general is not None:
                point["general"] = scores.general
            yield point

    def _forgetting(self) -> dict[str, Any] | None:
        """The general set's score before and after; None where there is none or nothing was merged."""
        if self.judging is None or self.judging.general_before is None:
            return None
        after = self.merged.scores
        return {
            "measure": "nDCG@10",
            "before": self.judging.general_before,
            "after": after.general if after is not None else None,
        }


def _require_finite(fitted: Fitted, name: str) -> None:
    if not math.isfinite(fitted.train_loss):
        raise ModelError(
            "the training loss is not finite",
            where=name,
            next_step="lower train.learning_rate, or set train.precision=fp32",
        )


def _needed_length(encoder: SentenceEncoder, rows: TrainingSet) -> int:
    """The 95th percentile of the documents' tokens, within the model's own maximum.

    The few longer texts are cut while training; padding every batch to them costs more than they
    teach.
    """
    counts = encoder.token_counts(rows.documents)
    needed = max(16, math.ceil(float(np.percentile(counts, 95))))
    longest = max_length(encoder.model)
    return needed if longest is None else min(longest, needed)
