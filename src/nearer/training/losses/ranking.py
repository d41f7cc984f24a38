"""The ranking loss: the positive against every other document of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nearer.training.losses.base import Labels, Loss


class RankingLoss(Loss):
    """MultipleNegativesRankingLoss over the distinct texts of a batch, with a mask.

    For row (q, d+): cross-entropy of softmax(scale · cos(q, ·)) over d+ and every document of the
    batch that is not blocked for q (Henderson et al. 2017, arXiv 1705.00652, section 4).  Without
    blocked documents, and with each text once, it is sentence-transformers' loss.  `scale` is
    `train.scale`.
    """

    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        queries, documents = self.vectors(features, labels)
        similarities = queries @ documents.T
        rows = similarities[labels["query"]]
        scores = self.settings.scale * rows
        allowed = scores.masked_fill(labels["blocked"], -torch.inf)
        return torch.nn.functional.cross_entropy(allowed, labels["target"])
