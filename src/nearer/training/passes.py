"""How many passes over the examples a training makes, where the settings leave it open."""

from __future__ import annotations

from nearer.config import Train
from nearer.training.batches import batches_of
from nearer.training.examples import TrainingSet

#: In fewer steps a model has learned too little (docs/training.md has the measurements).
_STEPS = 150
#: More passes over few examples are learned by heart.
_MOST = 6


def epochs_of(settings: Train, rows: TrainingSet) -> float:
    """`train.epochs`, or the usual number: more where the examples make fewer than 150 steps, 6 at most."""
    if settings.epochs is not None:
        return settings.epochs
    needed = round(_STEPS / len(batches_of(rows, settings)))
    return min(max(settings.passes, needed), _MOST)
