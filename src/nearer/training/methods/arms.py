"""The settings that a search tries: the user's own, and others around them drawn at random."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearer.config import Train
from nearer.training.methods import lora
from nearer.training.methods.naming import parse

#: Where the search names no values: shares of the user's own, which is always among them.
_RATES = (1.0, 0.5, 2.0, 3.0)
_EPOCHS = (1.0, 2.0)
_BATCHES = (1.0, 0.5, 2.0)
_ANCHORS = (1.0, 1 / 3, 3.0)
#: Names of settings as people see them.
_NAMES = {
    "learning_rate": "learning rate",
    "epochs": "epochs",
    "batch_size": "batch",
    "anchor": "anchor",
    "negatives_per_batch": "negatives per batch",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One combination of settings; `changes` are those of `train` that differ from the user's."""

    number: int
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tells it from the others, for people."""
        parts = [self.method]
        for name, value in self.changes.items():
            if name in _NAMES:
                parts.append(f"{_NAMES[name]} {_shown(value)}")
        if not self.changes:
            parts.append("your settings")
        return ", ".join(parts)


def _shown(value: Any) -> str:
    if value is None:
        return "half of the batch"
    return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the values to try depend on beside the settings.

    `learning_rate` is the model's own, `layers` how many a transformer has (0: it has none that
    could be frozen), and `has_negatives` whether any example brings hard negatives.
    """

    learning_rate: float
    layers: int
    has_negatives: bool


def arms_of(settings: Train, surroundings: Surroundings) -> list[Arm]:
    """At most `settings.search.arms` different combinations, the user's own settings first.

    The others are drawn at random by `train.seed`; asking for fewer gives the first ones of the
    same list.
    """
    values = _values(settings, surroundings)
    own = Arm(0, settings.method)
    arms = [own]
    seen = {_key(own)}
    combinations = list(itertools.product(*values.values()))
    order = np.random.default_rng(settings.seed).permutation(len(combinations))
    for position in order.tolist():
        if len(arms) >= settings.search.arms:
            break
        chosen = dict(zip(values, combinations[position], strict=True))
        arm = _arm(len(arms), chosen, settings, surroundings)
        if _key(arm) not in seen:
            seen.add(_key(arm))
            arms.append(arm)
    return arms


def _values(settings: Train, surroundings: Surroundings) -> dict[str, Sequence[Any]]:
    """The values to try of each setting; learning rates as shares of the method's own."""
    search = settings.search
    methods: Sequence[str] = search.method or (settings.method,)
    if not search.method and settings.method == "full" and surroundings.layers > 1:
        methods = ("full", f"top:{surroundings.layers // 2}")
    batches = [max(2, round(share * settings.batch_size)) for share in _BATCHES]
    negatives: Sequence[int | None] = (settings.negatives_per_batch,)
    if surroundings.has_negatives:
        negatives = search.negatives_per_batch or (settings.negatives_per_batch, 0)
    anchors = [round(share * settings.anchor, 6) for share in _ANCHORS]
    return {
        "method": methods,
        "learning_rate": search.learning_rate or _RATES,
        "epochs": search.epochs or [share * settings.passes for share in _EPOCHS],
        "batch_size": search.batch_size or batches,
        "anchor": search.anchor or anchors,
        "negatives_per_batch": negatives,
    }


def _arm(
    number: int, chosen: Mapping[str, Any], settings: Train, surroundings: Surroundings
) -> Arm:
    """The arm of chosen values: what equals the user's own is no change."""
    changes = dict(chosen)
    method = changes.pop("method")
    rate = changes.pop("learning_rate")
    if not settings.search.learning_rate:
        rate *= settings.learning_rate or _usual_rate(method, surroundings)
    own = settings.learning_rate or _usual_rate(settings.method, surroundings)
    kept = {"learning_rate": float(f"{rate:.6g}"), **changes}
    if method == settings.method and kept["learning_rate"] == own:
        kept.pop("learning_rate")
    for name in changes:
        if kept[name] == getattr(settings, name):
            kept.pop(name)
    if method != settings.method:
        kept["method"] = method
    return Arm(number, method, kept)


def _usual_rate(method: str, surroundings: Surroundings) -> float:
    """The learning rate of a method where none is set."""
    if parse(method).kind == "lora":
        return lora.LEARNING_RATE
    return surroundings.learning_rate


def _key(arm: Arm) -> tuple[Any, ...]:
    return (arm.method, *sorted(arm.changes.items()))
