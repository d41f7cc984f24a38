"""The triplet loss: a positive nearer to its query than the query's own negatives, by a margin."""

from __future__ import annotations

from typing import ClassVar

import torch

from nearer.training.kinds import TRIPLETS
from nearer.training.losses.base import BatchVectors, Labels, Loss


class TripletLoss(Loss):
    """relu(cos(q, d-) - cos(q, d+) + `train.margin`), the mean over all triplets of the batch.

    Schroff et al. 2015 (FaceNet, arXiv 1503.03832, section 3.1), with 1 - cosine as the distance.
    An example with several negatives is as many triplets, each with the example's weight.
    """

    takes: ClassVar[str] = TRIPLETS

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        similarities = vectors.similarities(labels)
        positive = similarities.gather(1, labels["target"][:, None])
        losses = torch.relu(similarities - positive + self.settings.margin)
        weight = labels["negatives"] * labels["weight"][:, None]
        # A batch whose negatives are all blocked has nothing to say: 0, with a gradient of 0.
        return (losses * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
