"""What the trainings of one run share: what is learned from, what judges, and the time there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer import config
from nearer.embed.base import TextEncoder
from nearer.search.systems import Systems
from nearer.training.examples import TrainingSet
from nearer.training.looks import DevJudge, Judge
from nearer.training.methods.contest import Entry
from nearer.training.methods.naming import Method, parse
from nearer.training.methods.references import Learned
from nearer.training.recipe import DevScore
from nearer.training.schedule import Budget
from nearer.training.scored import ScoredJudge


class SharedTime:
    """The time of `train.budget`, divided among the trainings that are still to come."""

    def __init__(self, seconds: float = math.inf, trainings: int = 1) -> None:
        self._budget = Budget(seconds)
        self._trainings = trainings

    def share(self) -> Budget:
        """That of the next training: what the ones before left over goes to the others."""
        left = max(1.0, self._budget.left())
        share = Budget(left / max(1, self._trainings))
        self._trainings -= 1
        return share

    def left(self) -> float:
        """Seconds that are left for all of them; below zero once they are overdrawn."""
        return self._budget.left()


@dataclass(frozen=True)
class Job:
    """What is trained on what, and how it is judged: on dev, and on ordinary language (`general`).

    Either may be None: there are no dev queries, or there is no such set.  `changes` are settings
    of `train` that differ from those of the project, `epochs` how many it is
    trained for (passes.py).  A `trial` only has to be compared with others:
    it is neither merged with its base nor judged on the general set.
    """

    systems: Systems
    learned: Learned
    dev: DevJudge | ScoredJudge | None
    checkpoints: Path
    general: DevScore | None = None
    time: SharedTime = field(default_factory=SharedTime)
    changes: Mapping[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    trial: bool = False
    base_scores: Path | None = None  # folder with the base model's scores, where they are known

    @property
    def rows(self) -> TrainingSet:
        return self.learned.rows

    @property
    def settings(self) -> config.Train:
        return self.systems.config.train.model_copy(update={"epochs": self.epochs, **self.changes})

    @property
    def judge(self) -> Judge | ScoredJudge | None:
        """Judges on all of dev."""
        return self.dev.whole if isinstance(self.dev, DevJudge) else self.dev

    @property
    def search_judge(self) -> Judge | None:
        """The same where dev has queries: what ranks documents."""
        return self.dev.whole if isinstance(self.dev, DevJudge) else None

    @property
    def measure(self) -> str:
        """The measure of dev scores."""
        if isinstance(self.dev, ScoredJudge):
            return self.dev.measure
        return self.systems.config.evaluate.primary

    @property
    def methods(self) -> tuple[Method, ...]:
        """In the order of the settings, each once."""
        names = self.settings.candidates or (self.settings.method,)
        return tuple(parse(name) for name in dict.fromkeys(names))


@dataclass(frozen=True)
class Candidate:
    """A model with how it came to be."""

    entry: Entry
    encoder: TextEncoder
    history: Sequence[Mapping[str, Any]]
    summary: dict[str, Any]
    others: Mapping[str, TextEncoder] = field(default_factory=dict)  # of seeds that were not taken
