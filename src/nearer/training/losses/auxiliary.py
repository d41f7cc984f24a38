"""A loss with a second term that holds the model near its teacher's vectors."""

from __future__ import annotations

import torch

from nearer.training.losses.base import BatchVectors, Labels, Loss
from nearer.training.losses.mse import imitation


class WithImitation(Loss):
    """`main` + `share` · the mean squared difference of the batch's vectors from the teacher's.

    With the base model's own vectors as the teacher's, it keeps training from moving texts further
    than the examples demand.  Each text is still encoded once.
    """

    def __init__(self, main: Loss, share: float) -> None:
        super().__init__(main.model, main.settings)
        self.main = main
        self.share = share

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        return self.main.of_vectors(vectors, labels) + self.share * imitation(vectors, labels)
