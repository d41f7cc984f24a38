"""A training that is killed at a random moment ends in the weights of one that was not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import killed_driver
from conftest import WriteProject
from killed_driver import Processes

pytestmark = pytest.mark.long

KILLED = -9
#: 18 steps, judged every 3, with checkpoints every 2: most of them lie inside an epoch.
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-4,
    "patience": 9,
    "evaluations": 2,
    "checkpoint_steps": 2,
    "anchor_texts": 2,
    "loss": "killed_driver:OwnScale",
    "callbacks": ("killed_driver:KillAt",),
}


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="module")
def whole(
    processes: Processes, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a training that nobody interrupted ends in."""
    folder = tmp_path_factory.mktemp("whole")
    out = folder / "result.pt"
    code = processes.run(
        killed_driver.train_toy, str(folder / "checkpoints"), str(tiny_model), SETTINGS, str(out)
    )
    assert code == 0
    result: dict[str, Any] = torch.load(out, weights_only=False)
    return result


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_training_ends_in_the_same_weights(
    processes: Processes, whole: dict[str, Any], tiny_model: Path, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    out = tmp_path / "result.pt"
    arguments = (str(tmp_path / "checkpoints"), str(tiny_model), SETTINGS, str(out))
    steps = sorted(rng.choice(np.arange(2, 19), 3, replace=False))
    for step in steps:
        kill_at = f"{step}:{rng.uniform(0, 0.2):.3f}"
        code = processes.run(killed_driver.train_toy, *arguments, kill_at=kill_at)
        assert code in (KILLED, 0)  # the last steps may end before the kill comes
        if code == 0:
            break
    if code == KILLED:
        assert processes.run(killed_driver.train_toy, *arguments) == 0
    resumed = torch.load(out, weights_only=False)
    difference = max(
        float((weights - whole["weights"][name]).abs().max())
        for name, weights in resumed["weights"].items()
        if weights.is_floating_point()
    )
    assert difference <= 1e-5
    for key in ("steps", "best_step", "dev", "merge"):
        assert resumed["summary"][key] == whole["summary"][key]
    assert resumed["summary"]["train_loss"] == pytest.approx(whole["summary"]["train_loss"])


def test_nearer_train_goes_on_after_kill_9_to_the_same_model(
    processes: Processes, write_project: WriteProject, tmp_path: Path
) -> None:
    train = {
        "epochs": 2,
        "evaluations": 2,
        "checkpoint_steps": 2,
        "callbacks": ["killed_driver:KillAt"],
    }
    whole = write_project(tmp_path / "whole", train=train).parent
    assert processes.run(killed_driver.command, str(whole), ["run", "--to", "mine", "-q"]) == 0
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed)
    step = int(np.random.default_rng().integers(3, 9))
    assert processes.run(killed_driver.command, str(whole), ["train", "-q"]) == 0
    command = (killed_driver.command, str(killed), ["train", "-q"])
    assert processes.run(*command, kill_at=f"{step}:0") == KILLED
    assert not (killed / "runs" / "default" / "train").exists()
    assert processes.run(*command) == 0
    models = [
        load_file(folder / "runs" / "default" / "train" / "model" / "model.safetensors")
        for folder in (whole, killed)
    ]
    for name, weights in models[0].items():
        assert torch.allclose(weights, models[1][name], rtol=0, atol=1e-5), f"{name}, step {step}"
