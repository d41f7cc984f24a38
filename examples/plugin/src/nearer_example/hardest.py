"""A loss: the positive must be nearer than the hardest other document of the batch, by a margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nearer.training.losses.base import Labels, Loss

MARGIN = 0.2  # of the cosine


class HardestNegativeLoss(Loss):
    """Triplet loss with the hardest negative of each batch (Hermans et al. 2017, arXiv 1703.07737)."""

    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        queries, documents = self.vectors(features, labels)
        similarities = (queries @ documents.T)[labels["query"]]
        rows = torch.arange(len(similarities), device=similarities.device)
        positive = similarities[rows, labels["target"]]
        # Neither what may be relevant to the query nor its own positive is a negative.
        others = similarities.masked_fill(labels["blocked"], -1.0)
        others = others.index_put(
            (rows, labels["target"]), torch.tensor(-1.0, device=others.device)
        )
        hardest = others.max(dim=1).values
        return torch.relu(MARGIN - positive + hardest).mean()
