"""A time limit of a training that keeps its schedule: the learning rate ends where the time does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Share of the time before which the clock does not count: the first steps are slower than the rest.
_SETTLING = 0.1
_WARMUP = 0.1  # share of the steps over which the learning rate rises


@dataclass
class TimeLimit:
    """How much of a training of `steps` steps fits into `seconds`; None: all of it.

    The learning rate rises over the first tenth of the steps and falls to nothing at the last step,
    or at the end of the time where that comes first, so that what is kept is a finished training.
    `clock` gives seconds.
    """

    seconds: float | None
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    over: bool = False  # the training was ended by it
    _started: float | None = None

    def start(self) -> None:
        self._started = self.clock()

    @property
    def elapsed(self) -> float:
        """Share of the time that is gone; 0 without a limit, and before it begins."""
        if self.seconds is None or self._started is None:
            return 0.0
        return (self.clock() - self._started) / self.seconds

    def rate(self, step: int, steps: int) -> float:
        """Factor of the learning rate at a step."""
        rise = min(1.0, (step + 1) / max(1, math.ceil(_WARMUP * steps)))
        gone = self.elapsed
        if gone < _SETTLING:
            gone = 0.0
        return rise * max(0.0, 1.0 - max(step / steps, gone))


def limited_by(limit: TimeLimit) -> Any:
    """Callback that counts steps, and ends the training when the time is over."""
    from transformers import TrainerCallback

    class Limiter(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            limit.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            limit.done = state.global_step
            if limit.elapsed >= 1.0:
                limit.over = state.global_step < state.max_steps
                control.should_training_stop = True

    return Limiter()
