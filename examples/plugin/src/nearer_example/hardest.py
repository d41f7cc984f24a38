"""A loss: the positive must be nearer than the hardest other document of the batch, by a margin."""

from __future__ import annotations

import torch

from nearer.training.losses.base import BatchVectors, Labels, Loss, weighted_mean

MARGIN = 0.2  # of the cosine


class HardestNegativeLoss(Loss):
    """Triplet loss with the hardest negative of each batch (Hermans et al. 2017, arXiv 1703.07737)."""

    def of_vectors(self, vectors: BatchVectors, labels: Labels) -> torch.Tensor:
        similarities = vectors.similarities(labels)
        rows = torch.arange(len(similarities), device=similarities.device)
        positive = similarities[rows, labels["target"]]
        # Neither what may be relevant to the query nor its own positive is a negative.
        others = similarities.masked_fill(labels["blocked"], -1.0)
        others = others.index_put(
            (rows, labels["target"]), torch.tensor(-1.0, device=others.device)
        )
        hardest = others.max(dim=1).values
        return weighted_mean(torch.relu(MARGIN - positive + hardest), labels)
