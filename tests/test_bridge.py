"""Bridges: queries of a new model in the table of an old one, as a generation of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generations_kit import World, documents, static_model
from nearer.embed.bridge import KIND, Bridge, fit, recall_kept
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError, ModelError, StoreError
from nearer.live.index.bridging import build_bridge
from nearer.live.index.searcher import Searcher
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify
from test_serve import made, models  # noqa: F401 - fixture


def spaces(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the same things in two spaces: the old one turned, and a little noisy."""
    new = rng.normal(size=(n, 24)) @ rng.normal(size=(24, 24))
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(24, 24)))[0]
    old = new @ turn + 0.05 * rng.normal(size=(n, 24))
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (new, old)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32)


def test_a_turned_space_is_found_again(tmp_path: Path) -> None:
    new, old = spaces(np.random.default_rng(7), 1200)
    bridge = fit(new[:800], old[:800])
    across = bridge(new[800:])
    assert across.dtype == np.float32
    assert np.allclose(np.linalg.norm(across, axis=1), 1, atol=1e-5)
    truth = new[800:1000] @ new[1000:].T
    assert recall_kept(across[:200] @ old[1000:].T, truth) > 0.9
    assert (
        recall_kept(new[800:1000] @ old[1000:].T, truth) < 0.2
    )  # without a bridge the spaces have nothing in common
    bridge.save(tmp_path / "bridge.safetensors")
    again = Bridge.load(tmp_path / "bridge.safetensors")
    assert (again.kind, again.hash) == (KIND, bridge.hash)
    assert np.array_equal(again(new), bridge(new))
    assert fit(new[:800], old[:800]).hash == bridge.hash


def test_models_of_other_dimensions_are_bridged() -> None:
    rng = np.random.default_rng(7)
    new, _ = spaces(rng, 500)
    old = (new @ rng.normal(size=(24, 40))).astype(np.float32)
    assert fit(new, old)(new).shape == (500, 40)


def test_what_is_no_bridge_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bridge.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="no bridge"):
        Bridge.load(tmp_path / "bridge.safetensors")


@pytest.mark.parametrize("kind", ["low_rank", "mlp"])
def test_a_bridge_of_a_kind_that_is_gone_says_what_to_do(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bridge.safetensors"
    weights = {"matrix": np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)}
    Bridge(kind, weights).save(path)
    with pytest.raises(ModelError, match=f"{kind} is no longer read") as caught:
        Bridge.load(path)
    assert "nearer index bridge --model" in str(caught.value.next_step)


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    world = World(tmp_path / "shop", models[0]).write(documents(range(120)))
    world.generations.cutover(made(world, models[0]))
    return world


def bridged(world: World, model: Path) -> Any:
    return build_bridge(world.generations, world.encoder(model), str(model), world.corpus, [], 500)


def test_a_bridge_is_a_generation(world: World, models: tuple[Path, Path]) -> None:
    over = str(world.generations.pointer().id)
    manifest = bridged(world, models[1])
    assert (manifest.state, manifest.bridge["over"]) == ("building", over)
    assert 0 <= manifest.bridge["kept"]["recall@10"] <= 1
    assert set(manifest.bridge["kept"]) == {"recall@10", "without"}
    with pytest.raises(StoreError, match="not verified"):
        world.generations.cutover(manifest.id, override="please")
    assert verify(world.generations, manifest.id, world.corpus).verified["passed"]  # type: ignore[index]
    with pytest.raises(StoreError, match="no decision speaks for"):
        world.generations.cutover(manifest.id)
    world.generations.cutover(manifest.id, override="a test")
    searcher = Searcher.open(world.root)
    hits = searcher.ask("pump valve seal 7", 10)
    encoder = world.generations.encoder(manifest)
    held = {doc_id: vector for rows in world.generations.store("numpy").scan(manifest.space) for doc_id, vector in zip(rows.doc_ids, rows.vectors.array, strict=True)}  # fmt: skip  # noqa: E501
    scores = {
        doc_id: float(encoder.encode(["pump valve seal 7"], "query")[0] @ vector)
        for doc_id, vector in held.items()
    }
    assert [doc_id for doc_id, _ in hits] == sorted(
        scores, key=lambda d: (scores[d], d), reverse=True
    )[:10]
    assert searcher.generation == manifest.id
    assert world.generations.rollback().id == over


def test_spaces_still_do_not_mix(world: World, models: tuple[Path, Path]) -> None:
    manifest = bridged(world, models[1])
    opened = world.generations.open(manifest.id)
    new = world.encoder(models[1])
    with pytest.raises(FingerprintError):  # the new model's vectors have not crossed the bridge
        opened.search(Vectors(new.encode(["pump"], "query"), new.fingerprint))
    crossed = opened.queries("pump")
    with pytest.raises(FingerprintError):
        world.generations.open(made(world, models[1])).search(crossed)
    path = world.generations.path(manifest.id) / "bridge.safetensors"
    other = Bridge.load(path)
    Bridge(other.kind, {**other.weights, "bias": other.weights["bias"] + 0.01}).save(path)
    with pytest.raises(FingerprintError):
        world.generations.open(manifest.id)


def test_what_a_bridge_stands_on_stays(world: World, models: tuple[Path, Path]) -> None:
    over = str(world.generations.pointer().id)
    manifest = bridged(world, models[1])
    verify(world.generations, manifest.id, world.corpus)
    world.generations.cutover(manifest.id, override="a test")
    full = made(world, models[1])
    world.generations.cutover(full, override="re-embedded at last")
    with pytest.raises(StoreError, match=f"a bridge answers from the table of {over}"):
        world.generations.drop(over)
    assert world.generations.gc()[0] == []
    world.write(line for line in documents(range(121)) if line["_id"] != "d5")
    sync(world.generations, world.corpus)
    assert (
        world.generations.rollback().id == manifest.id
    )  # it kept up with the corpus across the bridge
    found = [doc_id for doc_id, _ in Searcher.open(world.root).ask("pump 5", 120)]
    assert "d5" not in found
    assert "d120" in found


def test_bridges_do_not_stand_on_bridges(
    world: World, models: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = bridged(world, models[1])
    verify(world.generations, manifest.id, world.corpus)
    world.generations.cutover(manifest.id, override="a test")
    with pytest.raises(StoreError, match="is a bridge itself"):
        bridged(world, static_model(tmp_path / "c", 2))
