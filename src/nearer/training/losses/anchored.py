"""A loss with a term that holds general texts where the base model puts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nearer.training.losses.base import Labels


class AnchoredLoss(torch.nn.Module):
    """`loss` + `weight` · mean(1 - cosine of a general text's vector with the base model's).

    The last `anchor_parts` sub-batches of a batch hold the general texts; without them, it is
    `loss` alone.
    """

    def __init__(self, model: Any, loss: torch.nn.Module, weight: float) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.weight = weight

    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        if "anchor_parts" not in labels:
            value: torch.Tensor = self.loss(features, labels)
            return value
        first = len(features) - int(labels["anchor_parts"])
        value = self.loss(features[:first], labels)
        encoded = [self.model(part)["sentence_embedding"].float() for part in features[first:]]
        vectors = torch.nn.functional.normalize(torch.cat(encoded), dim=-1)
        cosines = (vectors * labels["anchor_vectors"]).sum(dim=1)
        return value + self.weight * (1.0 - cosines).mean()
