"""Checkpoints of a training: which one it continues from, and which one is kept."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nearer.errors import ModelError
from nearer.files import write_json
from nearer.training import processes

#: The file that holds the work done so far (`nearer.training.work`).
WORK_FILE = "work.json"
_STATE_FILE = "trainer_state.json"

#: The weights that a loss has of its own, where it has some.
LOSS_FILE = "loss.pt"

#: What a checkpoint holds when it was written to its end; the random state besides.
_CHECKPOINT_FILES = (
    _STATE_FILE,
    "optimizer.pt",
    "scheduler.pt",
    "modules.json",
    WORK_FILE,
)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed.

    One that another number of processes wrote is as good, but for the random state of those that
    wrote none: dropout then goes on otherwise.
    """
    return processes.agreed(lambda: _newest(folder))


def _newest(folder: Path) -> Path | None:
    whole = []
    for path in folder.glob("checkpoint-*"):
        present = all((path / name).is_file() for name in _CHECKPOINT_FILES)
        random_state = any(path.glob("rng_state*.pth"))
        if present and random_state and _readable_json(path / _STATE_FILE):
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


def timed(path: Path, compute: Callable[[], float]) -> tuple[float, float]:
    """A score and the seconds that it took, computed once for this step, also across a resume."""

    def value() -> tuple[float, float]:
        if path.is_file() and _readable_json(path):
            record = read_state(path)
            return float(record["score"]), float(record["seconds"])
        started = time.monotonic()
        score = compute()
        seconds = time.monotonic() - started
        write_json(path, {"score": score, "seconds": seconds})
        return score, seconds

    return processes.agreed(value)


def checkpoint_state(checkpoint: Path | None) -> Any:
    """The Trainer's state in a checkpoint, None where there is none."""
    if checkpoint is None:
        return None
    from transformers import TrainerState

    return TrainerState.load_from_json(str(checkpoint / _STATE_FILE))


def finished_state(checkpoint: Path | None) -> Any:
    """The state of a training that had come to its end when `checkpoint` was written, else None."""
    state = checkpoint_state(checkpoint)
    if state is None:
        return None
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
