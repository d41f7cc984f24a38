"""Checkpoints of a training: which one it continues from, and which one is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nearer.errors import ModelError
from nearer.files import write_json

#: The file that holds the work done so far (`nearer.training.work`).
WORK_FILE = "work.json"
_STATE_FILE = "trainer_state.json"

#: What a checkpoint holds when it was written to its end.
_CHECKPOINT_FILES = (
    _STATE_FILE,
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "modules.json",
    WORK_FILE,
)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        present = all((path / name).is_file() for name in _CHECKPOINT_FILES)
        if present and _readable_json(path / _STATE_FILE):
            whole.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def _readable_json(path: Path) -> bool:
    try:
        read_state(path)
    except ValueError:
        return False
    return True


def read_state(path: Path) -> Any:
    """Parsed JSON.  Raises ValueError where a kill cut it short."""
    return json.loads(path.read_text(encoding="utf-8"))


def remembered(path: Path, compute: Callable[[], float]) -> float:
    """A number computed once for this step, also across a resume."""
    if path.is_file() and _readable_json(path):
        return float(read_state(path))
    value = compute()
    write_json(path, value)
    return value


def finished_state(checkpoint: Path | None) -> Any:
    """The state of a training that had come to its end when `checkpoint` was written, else None."""
    if checkpoint is None:
        return None
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(checkpoint / _STATE_FILE))
    control = (state.stateful_callbacks or {}).get("TrainerControl", {})
    stopped_early = bool(control.get("args", {}).get("should_training_stop"))
    return state if stopped_early or state.global_step >= state.max_steps else None


def best_of(state: Any, newest: Path | None, folder: Path) -> Path:
    """The checkpoint to keep: the best on dev, or the newest where nothing judged them."""
    if state.best_model_checkpoint:
        # By name: the whole folder may have been moved since it was written.
        return folder / Path(state.best_model_checkpoint).name
    if newest is None:
        raise ModelError("there is no checkpoint", where=str(folder), next_step="nearer train")
    return newest


def saved_weights(checkpoint: Path) -> Mapping[str, Any]:
    """Weights of a checkpoint, by name, on the CPU."""
    from sentence_transformers import SentenceTransformer

    saved = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    weights: Mapping[str, Any] = saved.state_dict()
    return weights


def require_restored(model: Any, checkpoint: Path) -> None:
    """The model in memory must equal the best checkpoint in every tensor of every module."""
    import torch

    saved = saved_weights(checkpoint)
    current = model.state_dict()
    different = []
    for name, tensor in current.items():
        if name not in saved or not torch.equal(tensor.cpu(), saved[name]):
            different.append(name)
    if different or len(saved) != len(current):
        raise ModelError(
            "the best checkpoint was not restored whole "
            f"({len(different)} tensors differ, first {different[:1]})",
            where=str(checkpoint),
            next_step="nearer train --force, and please report this",
        )
