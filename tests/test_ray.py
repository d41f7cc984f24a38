"""A build on a cluster: the same bytes as on one machine, also when a worker is killed, and no mixing of models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from generations_kit import Counting, World, documents, transformer_model
from nearer.cli import app
from nearer.errors import FingerprintError
from nearer.live.index.build import build, local
from nearer.live.index.ray_engine import ray_engine
from nearer.live.index.verify import verify

pytestmark = pytest.mark.long

FRAGILE = """
import os, signal
from pathlib import Path
from nearer.search.chunkers import Chunk

class Fragile:
    name = "fragile:Fragile"

    def chunk(self, document):
        killed = Path(__file__).with_name("killed")
        if document.id == "d20" and not killed.exists():
            killed.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return [Chunk(document.content, 0, len(document.content))]
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return transformer_model(folder / "today", seed=1), transformer_model(folder / "other", seed=2)


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    return World(tmp_path / "project", models[0]).write(documents(range(50)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two CPUs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    yield started.address_info["gcs_address"]
    ray.shutdown()


def built(world: World, engine: Any) -> str:
    return build(
        world.generations,
        world.corpus,
        world.encoder(),
        "today",
        today=True,
        force=True,
        engine=engine,
    ).manifest.id


def parts(world: World, generation: str) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in (world.root / "generations" / generation / "parts").iterdir()
    }


def manifest(world: World, generation: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(
        (world.root / "generations" / generation / "manifest.json").read_text()
    )
    return {name: value for name, value in values.items() if name not in ("id", "created")}


def test_many_machines_write_the_same_bytes_as_one_though_a_worker_is_killed(
    tmp_path: Path, models: tuple[Path, Path], cluster: str
) -> None:
    world = World(tmp_path / "project", models[0], chunker="fragile:Fragile").write(
        documents(range(50))
    )
    (world.root / "fragile.py").write_text(FRAGILE)
    there = built(world, ray_engine(world.generations, 2))
    killed = int((world.root / "killed").read_text())
    assert killed != os.getpid()
    assert not Path(f"/proc/{killed}").exists()
    here = built(world, local)
    assert len(parts(world, here)) == 7
    assert parts(world, there) == parts(world, here)
    assert manifest(world, there) == manifest(world, here)
    assert world.texts(there) == world.expected()
    assert verify(world.generations, there, world.corpus).state == "verified"


def test_the_command_joins_the_cluster_of_ray_address_and_embeds_only_what_an_interrupted_build_left(
    world: World, cluster: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(
            world.generations,
            world.corpus,
            Counting(world.encoder(), fail_after=24),
            "today",
            today=True,
        )
    command = [
        sys.executable,
        "-m",
        "nearer",
        "index",
        "build",
        "--engine",
        "ray",
        "--json",
        "-c",
        str(world.root / "nearer.yaml"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"RAY_ADDRESS": cluster},
    )
    told = json.loads(done.stdout)
    assert (told["embedded"], told["documents"]) == (26, 50)
    assert world.texts(told["id"]) == world.expected()
    again = build(
        world.generations,
        world.corpus,
        world.encoder(),
        "today",
        today=True,
        engine=ray_engine(world.generations),
    )
    assert (again.manifest.id, again.embedded, again.loaded) == (told["id"], 0, 0)


def test_a_worker_whose_model_is_another_refuses(
    world: World, models: tuple[Path, Path], cluster: str
) -> None:
    stopped = Counting(world.encoder(), fail_after=8)
    with pytest.raises(KeyboardInterrupt):
        build(world.generations, world.corpus, stopped, "today", today=True)
    (begun,) = world.generations.manifests()
    copy = world.root / "generations" / begun.id / "model"
    before = parts(world, begun.id)
    shutil.copytree(models[1], copy, dirs_exist_ok=True)
    with pytest.raises(FingerprintError, match="weights") as refused:
        build(
            world.generations,
            world.corpus,
            world.encoder(),
            "today",
            today=True,
            engine=ray_engine(world.generations, 1),
        )
    assert refused.value.where == str(copy)
    assert parts(world, begun.id) == before


def test_without_ray_the_command_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(
        app, ["index", "build", "--engine", "ray", "-c", str(world.root / "nearer.yaml")]
    )
    assert result.exit_code == 2
    assert "pip install 'nearer[ray]'" in result.output
    assert world.generations.manifests() == []
