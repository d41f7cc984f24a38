"""Losses: what training minimises.  `base.py` states the contract; most other files are one loss.

`composed.py` puts them together: one loss per part of the training set, several widths, mini-batches.
A new one is a new file here and one line in the seam `loss` of `nearer.plugins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import plugins
from nearer.config import Train
from nearer.errors import ConfigError
from nearer.training.examples import TrainingSet
from nearer.training.kinds import KINDS, PAIRS, SCORED_PAIRS

__all__ = [
    "DEFAULT",
    "PAIRS",
    "SCORED_PAIRS",
    "ChosenLoss",
    "choose_loss",
    "learns_from_scores",
    "losses_of",
]

#: The loss of plain pairs: what `train.loss: auto` is where nothing is known of the examples.
DEFAULT = "ranking"


@dataclass(frozen=True, slots=True)
class ChosenLoss:
    """The loss, or one per part of the training set: `make(model, settings)` gives what is minimised."""

    name: str
    classes: tuple[type, ...]
    reason: str = ""  # why it was chosen, in a sentence

    @property
    def takes(self) -> str:
        """What the examples of the first part must bring, one of `KINDS`."""
        return str(getattr(self.classes[0], "takes", PAIRS))

    @property
    def unit_scores(self) -> bool:
        """Whether scores are brought to 0 to 1 before the loss sees them."""
        return bool(getattr(self.classes[0], "unit_scores", False))

    def make(self, model: Any, settings: Train) -> Any:
        """The module that sentence-transformers' Trainer calls.

        Raises ConfigError where the settings of losses do not fit the model.
        """
        from nearer.training.losses.composed import composed

        return composed(self.classes, model, settings)


def choose_loss(name: str, root: Path | None = None) -> ChosenLoss:
    """The loss called `name` in the registry, or the user's own `"module:Class"` (looked for in `root`).

    `auto` is the loss of plain pairs: `losses_of` chooses by the examples.  Raises ConfigError for
    an unknown name and for something that is not a loss, SearchSystemError when the user's module
    cannot be imported.
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
    if _computes_nothing(loss):
        raise ConfigError(
            f"{resolved} has neither of_vectors nor forward",
            where="train.loss",
            next_step="write one of them: see nearer.training.losses.base.Loss",
        )
    chosen = ChosenLoss(resolved, (loss,))
    if chosen.takes not in KINDS:
        kinds = ", ".join(map(repr, KINDS))
        raise ConfigError(
            f"{resolved}.takes is {chosen.takes!r}, not one of {kinds}",
            where="train.loss",
            next_step="say what its examples must bring",
        )
    return chosen


def _computes_nothing(loss: type) -> bool:
    """Whether a class took over both ways to compute a loss from `Loss`, which has neither."""
    from nearer.training.losses.base import Loss

    if not issubclass(loss, Loss):
        return False
    return loss.of_vectors is Loss.of_vectors and loss.forward is Loss.forward


def losses_of(rows: TrainingSet, name: str, root: Path | None = None) -> ChosenLoss:
    """The losses of the parts of a planned training set, and why; `name` where it is not planned.

    Raises what `choose_loss` raises.
    """
    if not rows.parts:
        return choose_loss(name, root)
    chosen = [choose_loss(part.loss, root) for part in rows.parts]
    names = dict.fromkeys(loss.name for loss in chosen)
    classes = tuple(loss.classes[0] for loss in chosen)
    return ChosenLoss(" + ".join(names), classes, rows.reason)


def learns_from_scores(name: str, root: Path | None = None) -> bool:
    """Whether scored pairs teach with this `train.loss` as they are, without being positives."""
    if name == "auto":
        return True
    return choose_loss(name, root).takes == SCORED_PAIRS
