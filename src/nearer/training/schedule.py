"""How many steps a training takes, how large they are, and how both follow a budget of time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from nearer.training.work import Work

#: Steps, and share of the budget, after which the first estimate of the speed is made.
_FIRST_STEPS = 4
_FIRST_SHARE = 0.04
#: Planned steps change only where they are off by more than this share of what is left.
_TOLERANCE = 0.05
#: Dev evaluations that a planned training has at least, as far as it has that many steps.
_LOOKS = 4
#: Seconds kept for saving the model and for proving that what is saved is what was trained.
_SAVING = 4.0
#: Evaluations on the whole of dev kept for the choice of the checkpoint and for merging.
FINAL_LOOKS = 4
#: The same where nothing is merged.
LOOKS_WITHOUT_MERGING = 2
#: Never more than this share of the budget is kept back from training.
_MOST_RESERVED = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds that a training may take, from `started` on (time.monotonic), and `used` before that.

    `used` was spent by earlier processes of the same training; what passed between their last
    checkpoint and their end is not known and not counted.
    """

    seconds: float = math.inf
    started: float = field(default_factory=time.monotonic)

    @property
    def limited(self) -> bool:
        return math.isfinite(self.seconds)

    def left(self, used: float = 0.0) -> float:
        """Seconds that are left, below zero once it is overdrawn."""
        return self.seconds - used - (time.monotonic() - self.started)


@dataclass(slots=True)
class Schedule:
    """The learning rate by step: up during the warm-up, then down to zero at the last planned step.

    `steps` may be planned anew while the training runs; `most_steps` are those of `train.epochs`.
    """

    most_steps: int
    steps_per_epoch: int
    learning_rate: float
    warmup: float  # share of the steps
    evaluate_every: int  # steps
    steps: int = 0

    def __post_init__(self) -> None:
        self.steps = self.steps or self.most_steps

    def factor(self, step: int) -> float:
        """Share of the learning rate at `step`, counted from 0; as transformers' `linear`."""
        warmup = math.ceil(self.steps * self.warmup)
        if step < warmup:
            return step / warmup
        return max(0.0, (self.steps - step) / max(1, self.steps - warmup))

    def plan(self, steps: int) -> None:
        """Take so many steps in all, and evaluate often enough for a choice among checkpoints."""
        self.steps = max(1, min(self.most_steps, steps))
        self.evaluate_every = max(1, min(self.evaluate_every, self.steps // _LOOKS))


@dataclass(slots=True)
class Planner:
    """Plans the steps of a schedule so that a training ends within its budget.

    `look_seconds` is what one dev evaluation takes while training, `final_seconds` one on the whole
    of dev.
    """

    schedule: Schedule
    budget: Budget
    used: float  # seconds of earlier processes
    look_seconds: float
    final_seconds: float
    checkpoint_seconds: float = 0.0
    final_looks: int = FINAL_LOOKS

    @property
    def reserve(self) -> float:
        """Seconds kept for what follows the last step."""
        wanted = _SAVING + self.checkpoint_seconds + self.final_looks * self.final_seconds
        return min(wanted, _MOST_RESERVED * self.budget.seconds)

    def left(self) -> float:
        """Seconds that are left for training."""
        return self.budget.left(self.used) - self.reserve

    def allows_score(self) -> bool:
        """Whether there is time for one more score on all of dev, and for saving after it."""
        return self.budget.left(self.used) > self.final_seconds + _SAVING

    def ready(self, work: Work) -> bool:
        """Whether enough was seen to tell how long a step takes."""
        if work.steps < _FIRST_STEPS:
            return False
        return work.training_seconds >= _FIRST_SHARE * self.budget.seconds

    def replan(self, step: int, work: Work) -> bool:
        """Fit the planned steps to the time that is left; whether they changed.  `step` are done."""
        per_step = work.training_seconds / work.steps
        overhead = (self.look_seconds + self.checkpoint_seconds) / self.schedule.evaluate_every
        fitting = step + math.floor(max(0.0, self.left()) / (per_step + overhead))
        fitting = max(step + 1, min(self.schedule.most_steps, fitting))
        remaining = max(1, self.schedule.steps - step)
        if abs(fitting - self.schedule.steps) <= _TOLERANCE * remaining:
            return False
        self.schedule.plan(fitting)
        return True
