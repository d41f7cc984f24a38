"""Large batches in little memory: vectors first, gradients of vectors, then the texts once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin, has_static_embedding_input

from nearer.errors import ConfigError
from nearer.training.losses.base import Labels, Loss, arranged


class CachedLoss(CachedLossMixin, torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """Another loss with the same value and gradient, computed over `train.mini_batch` texts a time.

    Gao et al. 2021 (GradCache, arXiv 2101.06983), in sentence-transformers' implementation.  A
    step costs one more pass forwards.  Raises ConfigError for a static model, which has no
    activations to save, and for a loss that is no function of the vectors.
    """

    def __init__(self, model: Any, loss: Loss) -> None:
        super().__init__()
        if has_static_embedding_input(model):
            raise ConfigError(
                "a static model keeps nothing in memory that mini-batches would save",
                where="train.mini_batch",
                next_step="set it to 0",
            )
        if type(loss).forward is not Loss.forward:
            raise ConfigError(
                f"{type(loss).__name__} has a forward of its own, which needs the whole batch",
                where="train.mini_batch",
                next_step="write the loss as of_vectors, or set train.mini_batch to 0",
            )
        self.model = model
        self.loss = loss
        self.mini_batch_size = loss.settings.mini_batch

    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        value: torch.Tensor = cast(Any, self).forward_cached(features, labels)
        return value

    def calculate_loss(
        self, reps: list[list[torch.Tensor]], labels: Any = None, *, with_backward: bool = False
    ) -> torch.Tensor:
        """Called by sentence-transformers with the vectors of each sub-batch, in pieces."""
        encoded = [torch.cat(pieces) for pieces in reps]
        value = self.loss.of_vectors(arranged(encoded, labels), labels)
        if with_backward:
            value.backward()  # type: ignore[no-untyped-call]
            value = value.detach()
        return value
