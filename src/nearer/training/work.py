"""How much a training has done: counted in its steps, kept in its checkpoints."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nearer.files import write_json
from nearer.training.checkpoints import WORK_FILE, read_state


@dataclass(slots=True)
class Work:
    """What a training has done so far, over all the processes that took turns at it."""

    steps: int = 0
    pairs: int = 0
    tokens: int = 0
    loss: float = 0.0  # summed over the steps
    training_seconds: float = 0.0  # in steps alone
    seconds: float = 0.0  # evaluations and checkpoints included

    def add(self, pairs: int, tokens: int, loss: float) -> None:
        """Count one step."""
        self.steps += 1
        self.pairs += pairs
        self.tokens += tokens
        self.loss += loss


class WorkClock:
    """The work of a training, going on from a checkpoint, with the seconds that pass meanwhile.

    `started` is when this process began with the training (time.monotonic); None: now.
    """

    def __init__(self, checkpoint: Path | None, started: float | None = None) -> None:
        self.work = Work()
        if checkpoint is not None:
            self.work = Work(**read_state(checkpoint / WORK_FILE))
        self.earlier = self.work.seconds  # of other processes
        self._started = time.monotonic() if started is None else started

    def now(self) -> Work:
        """The work up to this moment."""
        self.work.seconds = self.earlier + time.monotonic() - self._started
        return self.work

    def save(self, checkpoint: Path) -> None:
        write_json(checkpoint / WORK_FILE, asdict(self.now()))
