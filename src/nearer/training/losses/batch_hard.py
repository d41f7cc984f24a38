"""The batch-hard triplet loss: the farthest document of the label against the nearest of another."""

from __future__ import annotations

from typing import Any

import torch

from nearer.config import Train
from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean
from nearer.training.losses.supcon import positives_of, refuse_guide


class BatchHardLoss(Loss):
    """relu(cos(q, nearest negative) - cos(q, farthest positive) + `train.margin`), the mean over rows.

    Hermans, Beyer and Leibe 2017 (arXiv 1703.07737, section 2), with 1 - cosine as the distance.
    Positives of a row are those of the supervised contrastive loss (`supcon`).  A row without a
    negative in the batch says nothing.
    """

    def __init__(self, model: Any, settings: Train | None = None) -> None:
        super().__init__(model, settings)
        refuse_guide(self.settings, "batch_hard")

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        similarities = vectors.similarities(labels)
        positives = positives_of(labels)
        farthest = similarities.masked_fill(~positives, 2.0).amin(dim=1)
        nearest = similarities.masked_fill(positives, -2.0).amax(dim=1)
        losses = torch.relu(nearest - farthest + self.settings.margin)
        # Without a negative the nearest is -2, below every cosine: the loss is 0 for any margin.
        return weighted_mean(losses, labels)
