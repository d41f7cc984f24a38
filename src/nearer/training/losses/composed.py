"""Losses made of losses: one per part of the training set, in several widths, over mini-batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from nearer.config import Train
from nearer.errors import ConfigError
from nearer.training.losses.anchored import AnchoredLoss
from nearer.training.losses.base import Labels
from nearer.training.losses.cached import CachedLoss


class LossPerPart(torch.nn.Module):
    """The loss of the part that a batch comes from."""

    def __init__(self, losses: Iterable[torch.nn.Module]) -> None:
        super().__init__()
        self.losses = torch.nn.ModuleList(losses)

    def forward(self, features: Sequence[Mapping[str, Any]], labels: Labels) -> torch.Tensor:
        value: torch.Tensor = self.losses[int(labels["part"])](features, labels)
        return value


def composed(losses: Sequence[type], model: Any, settings: Train) -> torch.nn.Module:
    """What is minimised: one module for the losses of all parts, as the settings compose it."""
    modules = [_one(loss, model, settings) for loss in losses]
    whole = modules[0] if len(modules) == 1 else LossPerPart(modules)
    if settings.anchor:
        return AnchoredLoss(model, whole, settings.anchor)
    return whole


def _one(loss: type, model: Any, settings: Train) -> torch.nn.Module:
    module: torch.nn.Module = loss(model, settings)
    if settings.mini_batch:
        module = CachedLoss(model, module)  # type: ignore[arg-type]
    if settings.matryoshka:
        module = _matryoshka(module, model, settings.matryoshka)
    return module


def _matryoshka(loss: torch.nn.Module, model: Any, widths: Sequence[int]) -> torch.nn.Module:
    """The sum of a loss over the whole vectors and over their first dimensions.

    Kusupati et al. 2022 (arXiv 2205.13147), in sentence-transformers' implementation.  Raises
    ConfigError for a width that is not below the model's own.
    """
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    whole = model.get_embedding_dimension()
    for width in widths:
        if width >= whole:
            raise ConfigError(
                f"{width} dimensions are not fewer than the model's {whole}",
                where="train.matryoshka",
                next_step=f"name widths below {whole}; the whole one is always trained",
            )
    composed: torch.nn.Module = MatryoshkaLoss(model, loss, [whole, *widths])
    return composed
