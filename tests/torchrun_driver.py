"""One training, by as many processes as torchrun started: `FOLDER MODEL OUT`.

Dropout is off, since what it drops goes by the position of a text in its process.  KILL_RANK ends
that process with SIGKILL at step 4.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from nearer import config
from nearer.embed.encoder import load_encoder
from nearer.training import batches, processes
from nearer.training.recipe import Recipe
from nearer.training.trainer import train
from test_training import toy, toy_score

SETTINGS = {
    "epochs": 2,
    "batch_size": 5,
    "learning_rate": 1e-4,
    "patience": 9,
    "merge_tolerance": 0.01,
    "checkpoint_steps": 2,
    "anchor_texts": 2,
    "callbacks": ("killed_driver:KillAt",),
}


class Recorded(batches.DocumentBatches):
    """The sampler, writing down what it gives to this process."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        for batch in super().__iter__():
            ORDER.append([self.epoch, batch])
            yield batch


ORDER: list[object] = []


def main(folder: str, model: str, out: str) -> None:
    torch.set_num_threads(1)
    if os.environ.get("KILL_RANK") != str(processes.rank()):
        os.environ.pop("KILL_AT", None)
    encoder = load_encoder(config.Model(name=model, precision="fp32", device="cpu"), Path())
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batches.DocumentBatches = Recorded  # type: ignore[misc]
    rows = toy()
    recipe = Recipe.of(config.Train(**SETTINGS), Path(folder), root=Path(__file__).parent)
    trained = train(encoder, rows, lambda current: toy_score(current, rows), recipe)
    rank = processes.rank()
    weights = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    torch.save(weights, f"{out}-{rank}.pt")
    Path(f"{out}-{rank}.json").write_text(
        json.dumps({"order": ORDER, "summary": trained.summary}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
