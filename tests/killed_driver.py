"""Trainings in processes of their own, which can be killed: imported once, then forked.

`KillAt` is a callback of the user's own; it ends its process with SIGKILL some moments after a step
began, as the environment variable KILL_AT says (`STEP:SECONDS`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from nearer.cli import app
from nearer.embed.encoder import load_encoder
from nearer.training.losses.ranking import RankingLoss
from nearer.training.recipe import Recipe
from nearer.training.trainer import train


class KillAt(TrainerCallback):
    def __init__(self) -> None:
        step, _, seconds = os.environ.get("KILL_AT", "0:0").partition(":")
        self._step, self._seconds = int(step), float(seconds)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._step and state.global_step + 1 == self._step:
            timer = threading.Timer(self._seconds, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()


class OwnScale(RankingLoss):
    """A loss with a weight of its own, which a resumed training must not begin anew."""

    def __init__(self, model: Any, settings: Any = None) -> None:
        super().__init__(model, settings)
        self.own = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, features: Any, labels: Any) -> torch.Tensor:
        return super().forward(features, labels) * self.own.exp()


def train_toy(folder: str, model: str, settings: Mapping[str, Any], out: str) -> None:
    """Train on the toy set of test_training and save the weights."""
    from nearer import config
    from test_training import toy, toy_score

    torch.set_num_threads(1)
    encoder = load_encoder(config.Model(name=model, precision="fp32"), Path())
    rows = toy()
    recipe = Recipe.of(config.Train(**settings), Path(folder), root=Path(__file__).parent)
    trained = train(encoder, rows, lambda current: toy_score(current, rows), recipe)
    torch.save({"weights": encoder.model.state_dict(), "summary": trained.summary}, out)


def command(folder: str, arguments: Sequence[str]) -> None:
    """`nearer ARGUMENTS` in a folder."""
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = ["nearer", *arguments]
    app()


class Processes:
    """Starts functions of this module in processes that already imported everything."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["killed_driver", "test_training"])

    def run(self, function: Any, *arguments: Any, kill_at: str = "0:0") -> int:
        """The exit code: 0 done, -9 killed."""
        process = self._context.Process(
            target=_with_environment, args=(function, arguments, kill_at)
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode


def _with_environment(function: Any, arguments: tuple[Any, ...], kill_at: str) -> None:
    os.environ["KILL_AT"] = kill_at
    function(*arguments)
