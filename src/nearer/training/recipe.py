"""How a model is trained: the settings, the loss that they name, and where checkpoints go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nearer.config import Train
from nearer.embed.encoder import SentenceEncoder
from nearer.training import processes
from nearer.training.examples import TrainingSet
from nearer.training.losses import ChosenLoss, choose_loss, losses_of
from nearer.training.merging import Scores
from nearer.training.schedule import Budget

#: A model in training → its score on dev under the primary measure.
DevScore = Callable[[SentenceEncoder], float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a model is trained, apart from the model and its examples."""

    settings: Train
    loss: ChosenLoss
    checkpoints: Path  # of this training alone; it goes on from the newest whole one
    measure: str = "nDCG@10"  # of the dev score
    root: Path | None = None  # where modules of the user's own are looked for
    budget: Budget = field(default_factory=Budget)  # runs from the moment it is made
    final_look: bool = True  # whether the kept model is judged once more, per query

    @classmethod
    def of(
        cls,
        settings: Train,
        checkpoints: Path,
        *,
        measure: str = "nDCG@10",
        root: Path | None = None,
        rows: TrainingSet | None = None,
    ) -> Recipe:
        """With the loss that `settings.loss` names; the user's own is looked for in `root`.

        With planned `rows` (`nearer.training.parts`) the losses are those of their parts.

        Raises ConfigError and SearchSystemError, as `choose_loss` does.
        """
        loss = choose_loss(settings.loss, root)
        if rows is not None:
            loss = losses_of(rows, settings.loss, root)
        budget = Budget(settings.budget or math.inf)
        return cls(settings, loss, checkpoints, measure, root, budget)


@dataclass(frozen=True, slots=True)
class Judging:
    """How a model is judged while it trains: on dev, and on ordinary language where there is a set.

    `look` is the cheap score that checkpoints are compared by, and `score` the one on all of dev
    that decides; where looks need no sample they are the same function.
    """

    score: Callable[[], float]  # on dev, of the model as it is at that moment
    before: float  # the base model's
    look: Callable[[], float]
    look_before: float
    seconds: float = 0.0  # that one score took
    look_seconds: float = 0.0
    general: Callable[[], float] | None = None  # on the general set of training
    general_before: float | None = None

    @property
    def scores_before(self) -> Scores:
        """The base model's."""
        return Scores(self.before, self.general_before)

    def scores(self) -> Scores:
        """Of the model as it is at that moment."""
        general = None
        if self.general is not None:
            general = self.general()
        return Scores(self.score(), general)

    def agreed_scores(self) -> Scores:
        """The same scores in every process: the first one's."""
        return processes.agreed(self.scores)

    @property
    def sampled(self) -> bool:
        return self.look is not self.score
