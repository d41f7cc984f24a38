"""The cosine loss: the cosine of a scored pair is its score."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import SCORED_PAIRS
from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean


class CosineLoss(Loss):
    """(cos(a, b) - score)², the scores brought to 0 to 1 (Reimers and Gurevych 2019, section 3)."""

    takes: ClassVar[str] = SCORED_PAIRS
    unit_scores: ClassVar[bool] = True

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        differences = vectors.cosines(labels) - labels["score"]
        return weighted_mean(differences**2, labels)
