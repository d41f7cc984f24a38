"""Merges a fine-tuned model with its base, so that it forgets less."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nearer import progress

#: Shares of the way from base to tuned, tried in this order; 1 is the tuned model itself.
MERGE_WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True, slots=True)
class Merged:
    """How far the model went from its base (1 = all the way), and dev at each weight tried."""

    weight: float = 1.0
    curve: tuple[tuple[float, float], ...] = ()


def merge(
    model: Any,
    base: Mapping[str, Any],
    dev_score: Callable[[], float],
    tolerance: float,
    go_on: Callable[[], bool] = lambda: True,
) -> Merged:
    """Move the model back towards its base as far as dev allows.

    Weights are base + w · (tuned - base) (LM-Cocktail, arXiv 2311.13534).  The smallest w within
    `tolerance` of the tuned model's dev score is kept; it is chosen on dev alone, so that the
    general-ability set can still judge it.  `base` is the state before training, `dev_score` the
    score of the model as it is at that moment, `go_on` whether there is time for another one.
    """
    if tolerance <= 0:
        return Merged()
    tuned = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    scores: dict[float, float] = {}
    chosen = 1.0
    with progress.task("merge with the base model", len(MERGE_WEIGHTS), "weights") as bar:
        for weight in MERGE_WEIGHTS:
            _load(model, base, tuned, weight)
            scores[weight] = dev_score()
            bar.advance()
            if scores[weight] < scores[1.0] - tolerance:
                break
            chosen = weight
            if not go_on():
                break
    _load(model, base, tuned, chosen)
    return Merged(chosen, tuple(scores.items()))


def _load(model: Any, base: Mapping[str, Any], tuned: Mapping[str, Any], weight: float) -> None:
    """Integer tensors (position ids) are the same in both and stay."""
    mixed = dict(tuned)
    for name, tensor in tuned.items():
        if weight != 1.0 and tensor.is_floating_point():
            change = tensor - base[name]
            mixed[name] = base[name] + weight * change
    model.load_state_dict(mixed)
