"""Checkpoints of a training: which one to go on from, and which one to keep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nearer.errors import ModelError
from nearer.files import write_json

_CHECKPOINT_FILES = (
    "trainer_state.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "modules.json",
    "work.json",
)
WORK_FILE = "work.json"


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if all((path / name).is_file() for name in _CHECKPOINT_FILES) and _readable_json(
            path / "trainer_state.json"
        ):
            whole.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _readable_json(path: Path) -> bool:
    try:
        read_state(path)
    except ValueError:
        return False
    return True


def read_state(path: Path) -> Any:
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

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
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
    different = [
        name
        for name in current
        if name not in saved or not torch.equal(current[name].cpu(), saved[name])
    ]
    if different or len(saved) != len(current):
        raise ModelError(
            f"the best checkpoint was not restored whole ({len(different)} tensors differ, first {different[:1]})",
            where=str(checkpoint),
            next_step="nearer train --force, and please report this",
        )
