"""The batch size and the epochs of a training, where the settings leave them open."""

from __future__ import annotations

from typing import Any

from nearer.config import Train
from nearer.training.batches import batches_of
from nearer.training.examples import TrainingSet

#: A model that takes fewer steps has learned too little (docs/training.md has the measurements).
_STEPS = 200
#: Batches of few examples are smaller: more steps for the same texts.
_SMALL_BATCH = 16
#: More passes over few examples are learned by heart.
_MOST_EPOCHS = 8


def sizes_of(settings: Train, rows: TrainingSet) -> dict[str, Any]:
    """What the settings leave open of `batch_size` and `epochs`, by how many examples there are.

    With enough examples both are the usual ones.  Where those make fewer than 200 steps, a batch
    holds 16 documents, and there are as many epochs as 200 steps need, 8 at most.
    """
    chosen: dict[str, Any] = {}
    size = settings.documents_per_batch
    if settings.batch_size is None:
        if settings.passes * _steps_per_epoch(rows, settings, size) < _STEPS:
            size = _SMALL_BATCH
        chosen["batch_size"] = size
    if settings.epochs is None:
        needed = round(_STEPS / _steps_per_epoch(rows, settings, size))
        chosen["epochs"] = min(max(settings.passes, needed), _MOST_EPOCHS)
    return chosen


def _steps_per_epoch(rows: TrainingSet, settings: Train, batch_size: int) -> int:
    return len(batches_of(rows, settings.model_copy(update={"batch_size": batch_size})))
