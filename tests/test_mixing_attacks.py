"""Attacks on "two vector spaces never mix, nothing is lost" that are no difference between two models.

docs/mixing.md has them in its second table, which `test_the_docs_name_every_attack` reads.  Each
attack returns what got through; nothing may.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generations_kit import World, documents, static_model
from nearer.embed.cache import EmbeddingCache
from nearer.embed.encoder import SentenceEncoder, load_encoder
from nearer.embed.fingerprint import PROBES
from nearer.errors import FingerprintError, ModelError, NearerError, StoreError
from nearer.live.index.bridging import build_bridge
from nearer.live.index.build import build
from nearer.live.index.reader import open_active
from nearer.live.index.repair import repair
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("static")
    return static_model(folder / "a", seed=1), static_model(folder / "b", seed=2)


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    return World(tmp_path / "project", models[0]).write(documents(range(20)))


def live(world: World, model: Path | None = None) -> str:
    """A generation that answers."""
    encoder = world.encoder(model)
    made = build(world.generations, world.corpus, encoder, str(model), today=model is None)
    verify(world.generations, made.manifest.id, world.corpus)
    world.generations.cutover(made.manifest.id, override="test")
    return made.manifest.id


def foreign(world: World, generation: str) -> list[str]:
    """Documents whose stored vector is not what the generation's own model gives for their text."""
    generations = world.generations
    manifest = generations.manifest(generation)
    own = generations.encoder(manifest)
    found = []
    for rows in generations.store_of(manifest).scan(manifest.space):
        exact = own.encode(rows.texts, "document")
        for doc_id, ours, stored in zip(rows.doc_ids, exact, rows.vectors.array, strict=True):
            if abs(float(ours @ stored) - 1) > 1e-4:
                found.append(doc_id)
    return found


def trained(encoder: Any) -> None:
    """What an optimizer does: the tensors of the model are written where they lie."""
    with torch.no_grad():
        for weights in encoder.model.parameters():
            weights.copy_(torch.roll(weights, 1, -1))


def refused(attempt: Callable[[], Any], kind: type[NearerError], match: str) -> None:
    """It is refused, and the refusal says what to do."""
    with pytest.raises(kind, match=match) as refusal:
        attempt()
    assert refusal.value.next_step


# -- models that change in memory --------------------------------------------------------------------


def test_a_model_trained_in_place_goes_on_with_a_build(world: World) -> None:
    generation = live(world)
    encoder = world.encoder()
    trained(encoder)
    world.write(documents(range(25)))

    def attempt() -> None:
        build(world.generations, world.corpus, encoder, "today", today=True)

    refused(attempt, FingerprintError, "changed after it was fingerprinted")
    assert foreign(world, generation) == []


def test_a_model_trained_in_place_fills_the_cache_and_labels_vectors(
    tmp_path: Path, models: tuple[Path, Path], world: World
) -> None:
    encoder = load_encoder(world.config.model, world.root, cache=tmp_path / "cache")
    before = encoder.encode(["pump"], "document")
    trained(encoder)
    refused(lambda: encoder.encode(["leak"], "document"), FingerprintError, "changed after")
    refused(lambda: encoder.vectors(["leak"], "query"), FingerprintError, "changed after")
    again = load_encoder(world.config.model, world.root, cache=tmp_path / "cache")
    assert np.array_equal(again.encode(["pump"], "document"), before)
    exact = again.without_cache().encode(["leak"], "document")
    assert np.allclose(again.encode(["leak"], "document"), exact, atol=1e-6)


def test_a_model_that_was_written_to_and_is_the_same_goes_on(world: World, tmp_path: Path) -> None:
    """As a checkpoint does that is loaded back."""
    encoder = load_encoder(world.config.model, world.root, cache=tmp_path / "cache")
    encoder.model.load_state_dict(encoder.model.state_dict())
    assert encoder.encode(["leak"], "document").shape == (1, 32)
    assert len(encoder.vectors(["leak"], "query")) == 1


# -- the cache of vectors ----------------------------------------------------------------------------


def test_a_cache_made_anew_under_a_process(tmp_path: Path, world: World) -> None:
    root = tmp_path / "cache"
    texts = ["pump noise 1", "valve leak 2", "oil heat 3"]
    long_lived = load_encoder(world.config.model, world.root, cache=root)
    exact = long_lived.encode(texts, "document")
    shutil.rmtree(root)
    other = load_encoder(world.config.model, world.root, cache=root)
    other.encode(texts[::-1], "document")
    assert np.allclose(long_lived.encode(texts, "document"), exact, atol=1e-6)
    shutil.rmtree(root)
    assert np.allclose(long_lived.encode(texts, "document"), exact, atol=1e-6)


def test_a_cache_filled_by_another_engine_under_a_process(tmp_path: Path, world: World) -> None:
    """The same declared model, another behaviour, the same folder."""
    root = tmp_path / "cache"
    long_lived = load_encoder(world.config.model, world.root, cache=root)
    long_lived.encode(["pump"], "document")
    own = long_lived.fingerprint
    shutil.rmtree(root)
    turned = tuple(tuple(reversed(row)) for row in own.probes)
    engine = EmbeddingCache(root, type(own)(**_values(own) | {"probes": turned}))
    engine.through(["document\0\0pump"], "", lambda texts: np.ones((1, 32), np.float32))
    refused(lambda: long_lived.encode(["pump"], "document"), FingerprintError, "probe cosine")


def _values(fingerprint: Any) -> dict[str, Any]:
    return {name: getattr(fingerprint, name) for name in fingerprint.__dataclass_fields__}


@pytest.mark.parametrize("damage", ["another model's numbers", "keys moved by one"])
def test_cached_numbers_that_are_another_models(
    damage: str, tmp_path: Path, models: tuple[Path, Path], world: World
) -> None:
    caches = []
    for number, model in enumerate(models):
        settings = world.config.model.of_another(str(model))
        cache = tmp_path / f"cache{number}"
        load_encoder(settings, world.root, cache=cache).encode(["pump", "leak"], "document")
        caches.append(next((cache / "embeddings").iterdir()))
    own, other = caches
    if damage == "keys moved by one":
        keys = own / "keys.bin"
        keys.write_bytes(keys.read_bytes()[16:])
    else:
        shutil.copy(other / "vectors.f32", own / "vectors.f32")
    refused(
        lambda: load_encoder(world.config.model, world.root, cache=tmp_path / "cache0"),
        FingerprintError,
        "not what this model gives",
    )


# -- numbers that cannot be kept -----------------------------------------------------------------------


class Odd:
    """An encoder as a user may write one; `spoil` changes what it gives."""

    similarity = "cosine"

    def __init__(self, encoder: SentenceEncoder, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
        self._encoder, self._spoil = encoder, spoil
        self.fingerprint, self.model = encoder.fingerprint, encoder.model
        self.save = encoder.save

    def encode(self, texts: Any, kind: Any) -> np.ndarray:
        return self._spoil(self._encoder.encode(texts, kind))


def _without_numbers(vectors: np.ndarray) -> np.ndarray:
    vectors[0, 0] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_without_numbers, "not finite"), (lambda vectors: vectors[1:], r"\(7, 32\) for 8 texts")],
    ids=["no numbers", "too few"],
)
def test_an_encoder_gives_no_numbers_or_too_few_vectors(
    spoil: Any, said: str, world: World
) -> None:
    odd = Odd(world.encoder(), spoil)
    refused(
        lambda: build(world.generations, world.corpus, odd, "odd", today=True), ModelError, said
    )
    made = build(world.generations, world.corpus, world.encoder(), "whole", today=True)
    assert made.embedded == 20
    assert foreign(world, made.manifest.id) == []


@pytest.mark.parametrize("store", ["numpy", "lancedb"])
def test_numbers_too_large_for_float16(
    store: str, tmp_path: Path, models: tuple[Path, Path]
) -> None:
    folder = tmp_path / "large"
    shutil.copytree(models[0], folder)
    said = folder / "config_sentence_transformers.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | {"similarity_fn_name": "dot"}))
    world = World(tmp_path / "project", folder, dtype="float16", store=store)
    world.write(documents(range(9)))
    large = Odd(world.encoder(), lambda vectors: vectors * np.float32(1e5))
    refused(
        lambda: build(world.generations, world.corpus, large, "large", today=True),
        StoreError,
        "float16 ends at",
    )


# -- folders and stores ----------------------------------------------------------------------------------


def test_a_copy_made_of_hard_links_shares_history(
    world: World, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """The snapshot of a backup program.  What is done in the copy proves nothing about the original."""
    first = live(world)
    second = build(
        world.generations, world.corpus, world.encoder(models[1]), "b", today=False
    ).manifest.id
    verify(world.generations, second, world.corpus)
    copy = World.at(tmp_path / "copy")
    shutil.copytree(world.root, copy.root, copy_function=os.link)
    lines = world.generations.history()
    copy.generations.cutover(second, override="in the copy")
    assert world.generations.history() == lines
    (world.root / "generations" / "ACTIVE").write_text("[]")
    repair(world.generations)
    assert open_active(world.root).search("pump 1").generation == first
    assert open_active(copy.root).search("pump 1").generation == second


@pytest.mark.parametrize("store", ["numpy", "lancedb"])
def test_a_folder_restored_from_a_backup_knows_less_than_the_store(
    store: str, tmp_path: Path, models: tuple[Path, Path]
) -> None:
    world = World(tmp_path / "project", models[0], store=store, location="../tables")
    world.write(documents(range(20)))
    first = live(world)
    backup = tmp_path / "backup"
    shutil.copytree(world.root / "generations", backup)
    world.settings["index"]["dtype"] = "float16"
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    lost = build(world.generations, world.corpus, world.encoder(), "a", today=True).manifest.id
    for path in (world.root / "generations").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(backup, world.root / "generations", dirs_exist_ok=True)
    world.settings["index"]["dtype"] = "float32"
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    world.write(documents(range(5, 25)))
    made = build(
        world.generations, world.corpus, world.encoder(), "a", today=True, force=True
    ).manifest.id
    assert made not in (first, lost)
    assert world.texts(made) == world.expected()
    assert foreign(world, made) == []


def test_a_project_inside_another_writes_into_its_tables(
    world: World, models: tuple[Path, Path]
) -> None:
    """Each takes the folder for a place of its own; they would move one pointer."""
    outer = live(world)
    inner = World(world.root / "tenants" / "inner", models[1], location="../../vectors")
    inner.write(documents(range(3)))
    nested = World(world.root / "nested", models[1])
    nested.write(documents(range(3)))
    (world.root / "nested" / "vectors").symlink_to("../vectors")
    assert live(inner)  # outside of itself: a namespace of its own
    assert live(nested)
    assert world.generations.store("numpy").active() == outer
    world.settings["index"]["location"] = "other/vectors"
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    other = World(world.root / "other", models[1]).write(documents(range(3)))
    theirs = live(other)
    refused(lambda: live(world), StoreError, "keeps its tables here")
    assert other.generations.store("numpy").active() == theirs


@pytest.mark.parametrize("store", ["numpy", "lancedb"])
def test_the_tables_of_two_models_change_places(
    store: str, tmp_path: Path, models: tuple[Path, Path]
) -> None:
    world = World(tmp_path / "project", models[0], store=store).write(documents(range(20)))
    first, second = live(world), live(world, models[1])
    names = {"numpy": "{}", "lancedb": "gen_{}.lance"}[store]
    one, other = (world.root / "vectors" / names.format(name) for name in (first, second))
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    refused(lambda: open_active(world.root).search("pump 1"), FingerprintError, "weights")
    refused(lambda: sync(world.generations, world.corpus), FingerprintError, "weights")


def test_the_matrix_of_another_bridge(world: World, models: tuple[Path, Path]) -> None:
    live(world)
    generations = world.generations
    bridges = []
    for queries in (["pump"] * 8, ["leak", "oil"] * 4):
        made = build_bridge(
            generations, world.encoder(models[1]), "b", world.corpus, queries, 8 + len(bridges)
        )
        bridges.append(generations.path(made.id) / "bridge.safetensors")
    shutil.copy(bridges[1], bridges[0])
    name = bridges[0].parent.name
    refused(lambda: world.generations.open(name), FingerprintError, "modules")


# -- threads ---------------------------------------------------------------------------------------------


def test_a_model_that_is_opened_twice_encodes_in_two_threads(world: World) -> None:
    """A service opens a generation again after each sync; a tokenizer is not safe to share."""
    generation = live(world)
    generations = world.generations
    encoder = generations.encoder(generations.manifest(generation))
    inside, most = 0, 0
    whole = encoder.encode
    counting = threading.Lock()

    def encode(texts: Any, kind: Any) -> np.ndarray:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        vectors: np.ndarray = whole(texts, kind)
        with counting:
            inside -= 1
        return vectors

    encoder.encode = encode  # type: ignore[method-assign]
    opened = [generations.open(generation, encoder) for _ in range(4)]
    threads = [threading.Thread(target=one.search, args=("pump 1",)) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# -- the table -------------------------------------------------------------------------------------------


def test_the_docs_name_every_attack() -> None:
    text = (DOCS / "mixing.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| .+ \| `(test_\w+)` \|", text, re.MULTILINE)
    known = [name for name in globals() if name.startswith("test_")]
    for name in named:
        assert name in known or name.startswith("test_kills_while"), name
    assert len(named) >= 12
    assert len(PROBES) == 4
