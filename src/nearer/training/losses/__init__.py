"""Losses: what training minimises.  `base.py` states the contract; every other file is one loss.

A new one is a new file here and one line in the seam `loss` of `nearer.plugins`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import plugins
from nearer.config import Train
from nearer.errors import ConfigError
from nearer.training.examples import refuse_low_scores, refuse_missing_scores
from nearer.types import Example

#: The loss that `train.loss: auto` stands for.
DEFAULT = "ranking"

#: What the examples of a loss must bring (`Loss.takes`).
PAIRS, SCORED_PAIRS = "pairs", "scored pairs"


@dataclass(frozen=True, slots=True)
class ChosenLoss:
    """The loss that the settings name: `make(model, settings)` gives the module that is minimised."""

    name: str
    make: Callable[[Any, Train], Any]
    takes: str

    def refuse_unusable(self, examples: Sequence[Example], min_score: float | None) -> None:
        """Raises DataError for an example from which this loss would learn something wrong.

        `min_score` is `mine.min_score`, from which on a scored pair is a positive.
        """
        if self.takes == SCORED_PAIRS:
            refuse_missing_scores(examples, self.name)
        else:
            refuse_low_scores(examples, min_score)


def choose_loss(name: str, root: Path | None = None) -> ChosenLoss:
    """The loss called `name` in the registry, or the user's own `"module:Class"` (looked for in `root`).

    Raises ConfigError for an unknown name and for something that is not a loss, SearchSystemError
    when the user's module cannot be imported.
    """
    import torch

    resolved = DEFAULT if name == "auto" else name
    loss = plugins.find("loss", resolved, root)
    if not (isinstance(loss, type) and issubclass(loss, torch.nn.Module)):
        raise ConfigError(
            f"{resolved} is not a class of torch.nn.Module",
            where="train.loss",
            next_step="derive it from nearer.training.losses.base.Loss",
        )
    takes = getattr(loss, "takes", PAIRS)
    if takes not in (PAIRS, SCORED_PAIRS):
        raise ConfigError(
            f"{resolved}.takes is {takes!r}, not {PAIRS!r} or {SCORED_PAIRS!r}",
            where="train.loss",
            next_step="say what its examples must bring",
        )
    return ChosenLoss(resolved, loss, takes)
