"""Merges a fine-tuned model with its base, so that it forgets less.

Weights are base + w · (tuned - base) (LM-Cocktail, arXiv 2311.13534).  How far to go back is chosen
on dev and on the general set of training, never on the guardrail's, which still judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nearer import progress

#: Of LoRA's change B·A, the factor that stays as it was trained: B alone is 0 in the base, so that
#: the merged weight is W + w·(B·A), as for every other method.
_KEPT_FACTOR = ".lora_A."

#: Shares of the way from base to tuned, tried in this order; 1 is the tuned model itself.
MERGE_WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
#: Tried besides where training made dev worse, before the base model itself.
RESCUE_WEIGHTS = (0.3, 0.1)


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's scores on dev and on the general set (None: there is none)."""

    dev: float
    general: float | None = None


@dataclass(frozen=True, slots=True)
class MergeRule:
    """How far a merge may go back towards the base.

    `keep` is the share of the dev gain that must remain.  `forget` is the loss on the general set
    that is small enough: with such a set, going back ends there.  `tolerance` is the loss on dev
    that is accepted without one; 0: nothing is merged.
    """

    tolerance: float
    keep: float
    forget: float

    def floor(self, base: Scores, tuned: Scores) -> float:
        """The smallest dev score that a merged model may have, where it can: never below the base's."""
        if base.general is None:
            return max(base.dev, tuned.dev - self.tolerance)
        return base.dev + self.keep * max(0.0, tuned.dev - base.dev)

    def is_enough(self, base: Scores, merged: Scores) -> bool:
        """Whether so little is forgotten that going back further gains nothing."""
        if base.general is None or merged.general is None:
            return False
        return base.general - merged.general <= self.forget


@dataclass(frozen=True, slots=True)
class Merged:
    """How far the model went from its base (1 = all the way), and the scores at each weight tried."""

    weight: float = 1.0
    curve: tuple[tuple[float, Scores], ...] = ()

    @property
    def scores(self) -> Scores | None:
        """Those of the model that was kept; None where nothing was merged."""
        return dict(self.curve).get(self.weight)


def merge(
    model: Any,
    base: Mapping[str, Any],
    before: Scores,
    judge: Callable[[], Scores],
    rule: MergeRule,
    go_on: Callable[[], bool] = lambda: True,
) -> Merged:
    """Move the model back towards its base as far as the rule allows.

    `base` is the state before training and `before` its scores; `judge` scores the model as it is
    at that moment, and `go_on` says whether there is time for another weight.  Without a general
    set, the smallest weight that dev allows is kept.  With one, going back ends at the first weight
    that forgets little enough; where none does, the smallest weight that dev allows is kept.  Where
    every weight is worse on dev than the base model, the way back is followed to its end: no model
    that comes out is worse on dev than its base.
    """
    if rule.tolerance <= 0:
        return Merged()
    tuned = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    curve: dict[float, Scores] = {}
    with progress.task("merge with the base model", len(MERGE_WEIGHTS), "weights") as bar:
        for weight in MERGE_WEIGHTS:
            _load(model, base, tuned, weight)
            curve[weight] = judge()
            bar.advance()
            if _is_end(before, curve, rule) or not go_on():
                break
        chosen = _smallest_allowed(before, curve, rule)
        if max(scores.dev for scores in curve.values()) < before.dev:
            for weight in RESCUE_WEIGHTS:
                if not go_on():
                    break
                _load(model, base, tuned, weight)
                curve[weight] = judge()
                if curve[weight].dev >= before.dev:
                    break
            if max(scores.dev for scores in curve.values()) < before.dev:
                curve[0.0] = before  # known without another score
            chosen = max(curve, key=lambda weight: curve[weight].dev)
    _load(model, base, tuned, chosen)
    return Merged(chosen, tuple(curve.items()))


def back_to_base(model: Any, base: Mapping[str, Any], before: Scores) -> Merged:
    """Make the model its base again, whose scores are `before`: where there is no time to try more."""
    model.load_state_dict(dict(base))
    return Merged(0.0, ((0.0, before),))


def _is_end(before: Scores, curve: Mapping[float, Scores], rule: MergeRule) -> bool:
    """Whether going back further from the last weight tried would gain nothing, or lose too much."""
    tuned, last = curve[1.0], list(curve.values())[-1]
    if tuned.dev < before.dev:
        return False
    return last.dev < rule.floor(before, tuned) or rule.is_enough(before, last)


def _smallest_allowed(before: Scores, curve: Mapping[float, Scores], rule: MergeRule) -> float:
    """The smallest weight that dev allows; the tuned model itself is always allowed."""
    floor = rule.floor(before, curve[1.0])
    allowed = [weight for weight, scores in curve.items() if scores.dev >= floor]
    return min(allowed, default=1.0)


def _load(model: Any, base: Mapping[str, Any], tuned: Mapping[str, Any], weight: float) -> None:
    """Integer tensors (position ids) are the same in both and stay."""
    mixed = dict(tuned)
    for name, tensor in tuned.items():
        if weight != 1.0 and tensor.is_floating_point() and _KEPT_FACTOR not in name:
            change = tensor - base[name]
            mixed[name] = base[name] + weight * change
    model.load_state_dict(mixed)
