"""The AnglE loss: CoSENT over the angle of the vectors taken as complex numbers."""

from __future__ import annotations

import torch
from sentence_transformers.util import pairwise_angle_sim

from nearer.training.losses.base import BatchVectors, Labels
from nearer.training.losses.cosent import CoSentLoss


class AngleLoss(CoSentLoss):
    """CoSENT with AnglE's similarity, which keeps a gradient where the cosine's has become flat.

    Li and Li 2024 (AnglE, arXiv 2309.12871, section 3.3).
    """

    def similarities_of_pairs(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        left, right = vectors.pairs(labels)
        similarities: torch.Tensor = pairwise_angle_sim(left, right)
        return similarities
