"""Where a training logs besides: TensorBoard, MLflow and W&B, through the Trainer's own callbacks.

Everything stays on this machine unless the environment says otherwise: TensorBoard's files,
MLflow's store and W&B's offline runs lie beside nearer.yaml.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from nearer.errors import ConfigError
from nearer.training import processes
from nearer.training.recipe import Recipe

#: Integration → the modules of which one must be there, and what to install.
_NEEDED = {
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboard"),
    "mlflow": (("mlflow",), "mlflow"),
    "wandb": (("wandb",), "wandb"),
}
#: Environment variables that were set here.
_SET: dict[str, str] = {}


def logging_to(names: Sequence[str], recipe: Recipe) -> list[str] | str:
    """What the Trainer's `report_to` is, once the environment says where things go.

    Raises ConfigError for an integration whose package is not installed.
    """
    for name in names:
        modules, package = _NEEDED[name]
        if not any(importlib.util.find_spec(module) for module in modules):
            raise ConfigError(
                f"{name} is not installed",
                where="train.report_to",
                next_step=f"pip install {package}, or take it out of train.report_to",
            )
    if not names or not processes.first():
        return "none"
    root = (recipe.root or Path()).resolve()
    _set("TENSORBOARD_LOGGING_DIR", str(root / "tensorboard" / _run_name(recipe.checkpoints)))
    _set("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    _set("MLFLOW_EXPERIMENT_NAME", "nearer")
    _set("WANDB_MODE", "offline")
    _set("WANDB_DIR", str(root))
    _set("WANDB_PROJECT", "nearer")
    return list(names)


def _set(variable: str, value: str) -> None:
    """Set an environment variable, unless the user did."""
    present = os.environ.get(variable)
    if present is None or present == _SET.get(variable):
        os.environ[variable] = _SET[variable] = value


def _run_name(checkpoints: Path) -> str:
    """What tells one training from another: the unfinished step's name, and the candidate's."""
    parts = list(checkpoints.parts)
    if ".work" in parts:
        parts = parts[parts.index(".work") + 1 :]
    else:
        parts = parts[-2:]
    named = [part for part in parts if part != "checkpoints"]
    return "-".join(named) or "training"
