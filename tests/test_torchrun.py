"""Two processes of torchrun train the model that one would, and none waits for one that died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nearer import config
from nearer.errors import ConfigError
from nearer.lifecycle import BY_NAME
from nearer.training import processes
from nearer.training.sharing import SharedModel
from nearer.workspace import Workspace

pytestmark = pytest.mark.long

DRIVER = Path(__file__).parent / "torchrun_driver.py"


def launch(n_processes: int, *arguments: str, **environment: str) -> int:
    command = [sys.executable]
    if n_processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={n_processes}"]
    done = subprocess.run(
        [*command, str(DRIVER), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not environment:
        pytest.fail(done.stderr[-3000:])
    return done.returncode


def result(out: Path, rank: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    record = json.loads(out.with_name(f"{out.name}-{rank}.json").read_text())
    return record, torch.load(out.with_name(f"{out.name}-{rank}.pt"), weights_only=True)


def test_two_processes_train_the_model_that_one_would_also_after_one_died(
    tiny_model: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    model = str(tiny_model)
    launch(1, str(tmp_path / "checkpoints-one"), model, str(one))
    together = (str(tmp_path / "checkpoints-two"), model, str(two))
    assert launch(2, *together, KILL_RANK="1", KILL_AT="5:0") != 0  # and it came to an end
    launch(2, *together)
    alone, expected = result(one, 0)
    for rank in (0, 1):
        record, weights = result(two, rank)
        summary = record["summary"]
        assert summary["processes"] == 2
        assert summary["resumed_from"] == "checkpoint-4"
        assert record["order"][-1] == alone["order"][-1]  # the same batches, each of them whole
        assert summary["merge"]["weight"] == alone["summary"]["merge"]["weight"]
        assert summary["dev"]["after"] == pytest.approx(alone["summary"]["dev"]["after"], abs=1e-3)
        for name, tensor in expected.items():
            assert torch.allclose(weights[name], tensor, rtol=0, atol=2e-4), name
    assert [path.name for path in tmp_path.glob("checkpoints-two/score*")] == []


def test_torchrun_is_for_training_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    workspace = Workspace(project.parent, config.load(project))
    with pytest.raises(ConfigError, match="torchrun is for nearer train alone"):
        workspace.run((BY_NAME["check"],))


@pytest.mark.parametrize("n_texts", [1, 2, 5, 6, 7])
def test_the_parts_of_all_processes_are_all_texts_in_order(
    n_texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    features = {"input_ids": torch.arange(n_texts)[:, None], "prompt_length": 4}
    parts = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        part = SharedModel(torch.nn.Identity())._part(features, n_texts)
        assert part["prompt_length"] == 4
        parts.append(part["input_ids"])
    assert len({part.shape for part in parts}) == 1  # as gathering asks for
    together = torch.stack(parts, dim=1).flatten(0, 1)[:n_texts]
    assert together.flatten().tolist() == list(range(n_texts))
