"""Twelve ways to mix two vector spaces: each is refused, and the error names the difference and what mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from generations_kit import World, documents, transformer_model
from nearer.embed.encoder import SentenceEncoder
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError, NearerError, StoreError
from nearer.live.index.build import build
from nearer.live.index.generations import for_chunks
from nearer.live.index.ownership import known_identity, read_identity_file, write_identity
from nearer.live.index.reader import open_active
from nearer.live.index.verify import verify
from nearer.live.stores.base import Rows


def one_tensor(model: Any) -> None:
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith("bias"))[0] += 1e-3


def other_weights(model: Any) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(
                0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            )


def other_pooling(model: Any) -> None:
    model[1].pooling_mode = "cls"


def other_normalisation(model: Any) -> None:
    del model._modules["2"]


def other_length(model: Any) -> None:
    model.max_seq_length = 32


def other_prompt(model: Any) -> None:
    model.prompts = {"query": "query: ", "document": "passage: "}


def other_tokenizer(model: Any) -> None:
    model.tokenizer.add_tokens(["crankcase"])


#: The ways that lie in the model.  All keep its dimension and its folder.
CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "equal dimension": (other_weights, "weights"),
    "one changed tensor": (one_tensor, "weights"),
    "changed pooling": (other_pooling, "modules"),
    "other normalisation": (other_normalisation, "modules"),
    "other max_seq_length": (other_length, "max seq length 64 against 32"),
    "edited prompt": (other_prompt, "query prompt none against query: "),
    "other tokenizer": (other_tokenizer, "tokenizer"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformer_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project whose one generation is active; its model lies in `root/model`."""
    root = tmp_path_factory.mktemp("mixing") / "project"
    shutil.copytree(model, root / "model")
    world = World(root, Path("model")).write(documents(range(20)))
    encoder = world.encoder()
    generation = build(world.generations, world.corpus, encoder, "model", today=True).manifest.id
    verify(world.generations, generation, world.corpus, encoder=encoder)
    world.generations.cutover(generation)
    return root, generation


@pytest.fixture
def world(built: tuple[Path, str], tmp_path: Path) -> World:
    shutil.copytree(built[0], tmp_path / "project")
    folder = tmp_path / "project" / "generations"
    identity = read_identity_file(folder)
    assert identity is not None
    write_identity(folder, known_identity(folder, identity.id))  # moved, not copied
    return World(tmp_path / "project", Path("model"))


@pytest.fixture(scope="module")
def changed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a changed model."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            other = SentenceTransformer(str(model), device="cpu", local_files_only=True)
            CHANGES[name][0](other)
            made[name] = tmp_path_factory.mktemp("changed") / "model"
            other.save(str(made[name]), create_model_card=False)
        return made[name]

    return get


def refused(
    named: str, mended: str, action: Callable[[], Any], kind: type[NearerError] = FingerprintError
) -> None:
    """The action is refused; the error names the difference and a way to mend it."""
    with pytest.raises(kind) as error:
        action()
    assert named in error.value.what
    assert mended in str(error.value.next_step)


def load(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(
        SentenceTransformer(str(folder), device="cpu", local_files_only=True), precision="fp32"
    )


def one_row(vectors: Vectors) -> Rows:
    return Rows(["new#0"], ["new"], ["text"], [{}], ["0" * 16], vectors)


@pytest.mark.parametrize("way", CHANGES)
def test_a_changed_model_can_neither_query_nor_write_nor_stand_in_for_the_one_that_filled_a_generation(
    way: str, world: World, built: tuple[Path, str], changed: Callable[[str], Path]
) -> None:
    generation, named = built[1], CHANGES[way][1]
    other = load(changed(way))
    manifest = world.generations.manifest(generation)
    store, space = world.generations.store("numpy"), manifest.space
    assert other.dimension == space.dimension

    reader = open_active(world.root)
    before = reader.search("pump noise")
    refused(
        named, "nearer index show", lambda: reader.search(other.vectors(["pump noise"], "query"))
    )
    with pytest.raises(FingerprintError) as error:
        reader.search(other.vectors(["pump noise"], "query"))
    assert manifest.fingerprint.id in str(error.value)  # both models are named
    assert replace(other.fingerprint, chunker="document").id in str(error.value)

    foreign = Vectors(other.encode(["text"], "document"), for_chunks(other, "document").fingerprint)
    refused(named, "build", lambda: store.write(space, one_row(foreign)))
    refused(named, "", lambda: store.search(space, foreign, 3))

    # in place of the configured model it begins a generation of its own
    shutil.rmtree(world.root / "model")
    shutil.copytree(changed(way), world.root / "model")
    begun = build(world.generations, world.corpus, world.encoder(), "model", today=True)
    assert begun.manifest.id != generation
    assert begun.embedded == 20
    assert open_active(world.root).search("pump noise") == before

    # in place of the generation's own copy of its model it is found out
    if way != "edited prompt":  # prompts are kept in the fingerprint, not looked up in the folder
        shutil.rmtree(world.root / "generations" / generation / "model")
        shutil.copytree(changed(way), world.root / "generations" / generation / "model")
        if way == "other max_seq_length":  # kept in the fingerprint too
            assert open_active(world.root).search("pump noise") == before
        else:
            refused(
                named, "nearer index build", lambda: open_active(world.root).search("pump noise")
            )


def test_a_query_vector_without_identity_is_refused(world: World) -> None:
    reader = open_active(world.root)
    vector = world.encoder().encode(["pump noise"], "query")
    for asked in (vector, vector[0], list(vector), vector.tolist(), Vectors(vector, None)):  # type: ignore[arg-type]
        refused("say which model made them", "hand over", lambda asked=asked: reader.search(asked))
    assert (
        reader.search(world.encoder().vectors(["pump noise"], "query")).results
        == reader.search("pump noise").results
    )


def test_the_same_declaration_that_behaves_otherwise_is_refused(world: World) -> None:
    encoder = world.encoder()
    turned = tuple(tuple(reversed(probe)) for probe in encoder.fingerprint.probes)
    asked = Vectors(
        encoder.encode(["pump noise"], "query"), replace(encoder.fingerprint, probes=turned)
    )
    refused("gives other vectors", "hand over texts", lambda: open_active(world.root).search(asked))
    encoder.fingerprint = asked.fingerprint
    refused(
        "gives other vectors",
        "--force",
        lambda: build(world.generations, world.corpus, encoder, "model", today=True),
    )


def test_a_renamed_generation_is_refused(world: World, built: tuple[Path, str]) -> None:
    generation = built[1]
    other = generation.replace("-1", "-2")
    shutil.copytree(world.root / "generations" / generation, world.root / "generations" / other)
    refused(
        "it was renamed or copied",
        "nearer index build",
        lambda: world.generations.manifest(other),
        StoreError,
    )


def test_an_edited_manifest_is_refused(world: World, built: tuple[Path, str]) -> None:
    path = world.root / "generations" / built[1] / "manifest.json"
    values = json.loads(path.read_text())
    values["fingerprint"]["query_prompt"] = "query: "
    path.write_text(json.dumps(values))
    refused("edited", "", lambda: open_active(world.root).search("pump noise"))


@pytest.fixture
def two(world: World, built: tuple[Path, str], changed: Callable[[str], Path]) -> tuple[str, str]:
    """The built generation, and one of a model with other weights, in the same project."""
    encoder = load(changed("equal dimension"))
    return built[1], build(
        world.generations, world.corpus, encoder, "other", today=False
    ).manifest.id


def test_a_stale_query_cache_is_refused(world: World, changed: Callable[[str], Path]) -> None:
    def cached(folder: Path) -> SentenceEncoder:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        return SentenceEncoder(model, precision="fp32", cache=world.root / "runs" / ".cache")

    old = cached(world.root / "model")
    old.encode(["pump noise"], "query")
    folder = world.root / "runs" / ".cache" / "embeddings"
    new = load(changed("equal dimension")).fingerprint
    shutil.copytree(folder / old.fingerprint.id, folder / new.id)
    refused("weights", "delete", lambda: cached(changed("equal dimension")))


@pytest.mark.parametrize("identity", ["of the other model", "none"])
def test_a_reused_part_folder_is_refused(identity: str, world: World, two: tuple[str, str]) -> None:
    import pyarrow as pa

    mine, other = (world.root / "generations" / one / "parts" for one in two)
    for path in other.glob("*.arrow"):
        shutil.copy(path, mine)
        if identity == "none":
            table = pa.ipc.open_file(path.read_bytes()).read_all().replace_schema_metadata(None)
            with (
                pa.OSFile(str(mine / path.name), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
    named = "weights" if identity == "of the other model" else "does not say which model made it"
    refused(
        named,
        "delete",
        lambda: build(world.generations, world.corpus, world.encoder(), "model", today=True),
    )


@pytest.mark.parametrize("how", ["under the other's name", "its vectors alone"])
def test_a_hand_copied_table_is_refused(how: str, world: World, two: tuple[str, str]) -> None:
    mine, other = (world.root / "vectors" / one for one in two)
    if how == "under the other's name":
        shutil.rmtree(mine)
        shutil.copytree(other, mine)
        refused(
            "weights", "nearer index build", lambda: open_active(world.root).search("pump noise")
        )
        refused(
            "weights", "nearer index build", lambda: verify(world.generations, two[0], world.corpus)
        )
    else:  # files moved below the identity: the numbers tell
        for path in other.glob("*.npy"):
            shutil.copy(path, mine / path.name)
        report = verify(world.generations, two[0], world.corpus).verified
        assert report is not None
        assert "sample" in {check["check"] for check in report["checks"] if not check["passed"]}


def test_a_table_without_an_identity_is_refused(world: World, built: tuple[Path, str]) -> None:
    path = world.root / "vectors" / built[1] / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "identity": ""}))
    refused(
        "does not say which model",
        "nearer index build",
        lambda: open_active(world.root).search("pump noise"),
    )


def test_vectors_of_the_same_model_cut_by_another_chunker_are_refused(
    world: World, built: tuple[Path, str]
) -> None:
    encoder = world.encoder()
    space = world.generations.manifest(built[1]).space
    foreign = Vectors(
        encoder.encode(["text"], "document"), replace(encoder.fingerprint, chunker="sentences:128")
    )
    refused("chunker", "", lambda: world.generations.store("numpy").write(space, one_row(foreign)))


def test_vectors_of_the_right_model_are_taken(world: World, built: tuple[Path, str]) -> None:
    encoder = for_chunks(world.encoder(), "document")
    space = world.generations.manifest(built[1]).space
    store = world.generations.store("numpy")
    store.write(space, one_row(Vectors(encoder.encode(["text"], "document"), encoder.fingerprint)))
    assert store.count(space) == (21, 21)
    assert np.isfinite(next(store.scan(space)).vectors.array).all()
