"""Several trainings of one method that differ in their seed: their spread, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from typing import Any

import numpy as np

from nearer.embed.encoder import SentenceEncoder


class WeightAverage:
    """The mean of models' weights (Wortsman et al. 2022, arXiv 2203.05482, "uniform soup").

    Weights that are equal in all models come out as they are, to the last bit: documents' vectors
    that nothing trained must not change.  Numbers that are not floating are those of the first.
    """

    def __init__(self) -> None:
        self._first: dict[str, Any] = {}
        self._changes: dict[str, Any] = {}  # summed, from the first model's weights
        self._count = 0

    def add(self, model: Any) -> None:
        """Count in a model of the same architecture."""
        self._count += 1
        for name, tensor in model.state_dict().items():
            if name not in self._first:
                self._first[name] = tensor.detach().clone()
            elif tensor.is_floating_point():
                change = tensor.detach() - self._first[name]
                self._changes[name] = self._changes.get(name, 0.0) + change

    def applied_to(self, encoder: SentenceEncoder) -> SentenceEncoder:
        """The encoder over a copy of its model, with the mean weights."""
        mean = dict(self._first)
        for name, change in self._changes.items():
            mean[name] = self._first[name] + change / self._count
        averaged = copy(encoder)
        averaged.model = deepcopy(encoder.model)
        averaged.model.load_state_dict(mean)
        return averaged


def spread(scores: Sequence[float]) -> Mapping[str, Any]:
    """What `train/candidates.json` says of the seeds' dev scores; sd over n - 1."""
    return {
        "scores": list(scores),
        "mean": float(np.mean(scores)),
        "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "min": float(np.min(scores)),
        "max": float(np.max(scores)),
    }
