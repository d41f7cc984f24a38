"""How much a training has done: counted in its steps, kept in its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass


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
