"""Shares the encoding of a batch among processes, so that many give what one would give.

In-batch negatives make a batch more than the sum of its parts: were it cut into one part per
process, each query would meet fewer negatives, and another number of processes would train another
model.  So every process has the whole batch and encodes a part of its texts; the vectors are
gathered with their gradients; and every process computes the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nearer.training import processes


class _Gathered(torch.autograd.Function):
    """Vectors of all processes, (n_texts_of_each, n_processes, dimension), with their gradients."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(vectors) for _ in range(processes.count())]
        torch.distributed.all_gather(parts, vectors.contiguous())
        return torch.stack(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        return summed[:, processes.rank()]


class SharedModel(torch.nn.Module):
    """A model wrapped by DistributedDataParallel, called with features of the whole batch.

    Gradients come out right without scaling: gathering sums those of all `n` equal losses, and
    DistributedDataParallel takes the mean over `n` processes.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def __eq__(self, other: object) -> bool:
        """Equal to the model it wraps: the Trainer asks whether a loss already holds that one."""
        return other is self or other is self.model

    def __hash__(self) -> int:
        return id(self)

    def forward(self, features: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """`sentence_embedding` of all texts, float (n_texts, dimension)."""
        mask = features.get("attention_mask")
        if not isinstance(mask, torch.Tensor):
            # A static model: its features cannot be cut by text, and cost next to nothing.
            whole: dict[str, torch.Tensor] = self.model(dict(features))
            return whole
        n_texts = len(mask)
        part = self._part(features, n_texts)
        vectors = self.model(part)["sentence_embedding"]
        gathered = _Gathered.apply(vectors)  # type: ignore[no-untyped-call]
        return {"sentence_embedding": gathered.flatten(0, 1)[:n_texts]}

    def _part(self, features: Mapping[str, Any], n_texts: int) -> dict[str, Any]:
        """Every n-th text from this process's own on; the last ones again where some are missing.

        All processes encode equally many, and padded alike, as gathering asks for.
        """
        size = -(-n_texts // processes.count())
        positions = torch.arange(size) * processes.count() + processes.rank()
        positions = positions.clamp(max=n_texts - 1)
        part = dict(features)
        for name, value in features.items():
            if isinstance(value, torch.Tensor) and value.ndim and len(value) == n_texts:
                part[name] = value[positions.to(value.device)]
        return part
