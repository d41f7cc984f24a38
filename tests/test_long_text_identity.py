"""What a model does with long texts, and how it is configured, is part of its identity; versions of fingerprints."""

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
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
)

import generations_kit
from generations_kit import World, documents, static_model, transformer_model
from nearer import progress
from nearer.decision.sign_off import signed
from nearer.embed import fingerprint as fingerprints
from nearer.embed import probing
from nearer.embed.declared import LEFT_OUT, configurations
from nearer.embed.encoder import SentenceEncoder
from nearer.embed.fingerprint import Fingerprint
from nearer.errors import FingerprintError
from nearer.files import value_hash
from nearer.live.index.build import build
from nearer.live.index.generations import Generations, for_chunks
from nearer.live.index.reader import open_active
from nearer.live.index.searcher import QueryVectors
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify

Make = Callable[[Path], Path]


def modern_model(folder: Path) -> Path:
    """A ModernBERT of two layers, one of them with local attention, over the words of the kit."""
    torch.manual_seed(0)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=generations_kit._tokenizer(), **special)
    tokenizer.save_pretrained(folder)
    shape = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        pad_token_id=0,
        global_attn_every_n_layers=2,
    )
    ModernBertModel(shape).save_pretrained(folder)
    modules = [Transformer(str(folder), max_seq_length=256), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def splade_model(folder: Path) -> Path:
    """A SPLADE of one random layer over the words of the kit."""
    torch.manual_seed(0)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=generations_kit._tokenizer(), **special)
    tokenizer.save_pretrained(folder)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertForMaskedLM(shape).save_pretrained(folder)
    transformer = Transformer(str(folder), transformer_task="fill-mask", max_seq_length=64)
    modules = [transformer, SpladePooling("max")]
    SparseEncoder(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


MODELS: dict[str, Make] = {
    "static": static_model,
    "transformer": transformer_model,
    "modern": modern_model,
    "splade": splade_model,
}


def load(folder: Path, kind: str = "transformer") -> Any:
    made: Any = SparseEncoder if kind == "splade" else SentenceTransformer
    model = made(str(folder), device="cpu", local_files_only=True)
    if kind == "splade":
        model.encode_document(["pump"])
    return model


def identity(model: Any, precision: str = "fp32") -> Fingerprint:
    return SentenceEncoder(model, precision=precision).fingerprint


def edited(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def rotary(folder: Path) -> Path:
    values = json.loads((folder / "config.json").read_text())
    parameters = values["rope_parameters"]
    parameters["full_attention"]["rope_theta"] = 10_000.0
    return edited(folder, "config.json", rope_parameters=parameters)


_CUT = {"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0}

#: What is changed in which kind of model, and how the difference is called.
UNSEEN_BY_SHORT_TEXTS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "truncation side": (
        "transformer",
        lambda folder: edited(folder, "tokenizer_config.json", truncation_side="left"),
        "tokenizer",
    ),
    "padding side": (
        "transformer",
        lambda folder: edited(folder, "tokenizer_config.json", padding_side="left"),
        "tokenizer",
    ),
    "a static model's cut": (
        "static",
        lambda folder: edited(folder, "tokenizer.json", truncation=_CUT),
        "tokenizer",
    ),
    "attention window": (
        "modern",
        lambda folder: edited(folder, "config.json", local_attention=64),
        "configuration",
    ),
    "which layers see all": (
        "modern",
        lambda folder: edited(
            folder, "config.json", layer_types=["full_attention", "full_attention"]
        ),
        "configuration",
    ),
    "position scaling": ("modern", rotary, "configuration"),
    "heads": (
        "transformer",
        lambda folder: edited(folder, "config.json", num_attention_heads=4),
        "configuration",
    ),
    "activation": (
        "transformer",
        lambda folder: edited(folder, "config.json", hidden_act="relu"),
        "configuration",
    ),
    "norm constant": (
        "splade",
        lambda folder: edited(folder, "config.json", layer_norm_eps=0.5),
        "configuration",
    ),
}


@pytest.mark.parametrize("change", UNSEEN_BY_SHORT_TEXTS)
def test_what_short_texts_do_not_show_is_named(change: str, tmp_path: Path) -> None:
    kind, edit, named = UNSEEN_BY_SHORT_TEXTS[change]
    folder = MODELS[kind](tmp_path / "model")
    before = identity(load(folder, kind))
    after = identity(load(edit(folder), kind))
    assert after.id != before.id
    differences = before.differences(after)
    assert any(one.startswith(named) for one in differences), differences


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_the_same_in_memory_saved_moved_and_loaded_twice(
    kind: str, tmp_path: Path
) -> None:
    folder = MODELS[kind](tmp_path / "model")
    model = load(folder, kind)
    first = identity(model)
    model.encode(["a text of another length", "pump"])  # leaves padding and truncation behind
    assert identity(model) == first
    model.save(str(tmp_path / "saved"), create_model_card=False)
    shutil.move(tmp_path / "saved", tmp_path / "renamed")
    assert first.differences(identity(load(tmp_path / "renamed", kind))) == []
    assert identity(load(folder, kind)) == first


@pytest.mark.parametrize("kind", ["transformer", "modern", "splade"])
def test_a_model_changed_in_memory_is_the_same_when_saved_and_loaded(
    kind: str, tmp_path: Path
) -> None:
    model = load(MODELS[kind](tmp_path / "model"), kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    model.max_seq_length = 48
    model.tokenizer.truncation_side = "left"
    before = identity(model)
    model.save(str(tmp_path / "saved"), create_model_card=False)
    assert before.differences(identity(load(tmp_path / "saved", kind))) == []


def test_what_is_declared_does_not_depend_on_the_number_format(tmp_path: Path) -> None:
    model = load(transformer_model(tmp_path / "model"))
    exact, fast = identity(model), identity(model, "bf16")
    assert exact.id != fast.id
    assert exact.id == replace(fast, precision="fp32").id
    assert exact.same_space(fast, ignoring=("precision",))


def test_each_key_that_is_left_out_changes_nothing(tmp_path: Path) -> None:
    folder = transformer_model(tmp_path / "model")
    model = load(folder)
    before = configurations(model)
    config = model.transformers_model.config
    for name in LEFT_OUT:
        if name not in ("dtype", "torch_dtype") and not name.startswith("_attn"):
            config.__dict__[name] = "another value"
    config.hidden_dropout_prob = 0.9
    assert configurations(model) == before
    assert all(reason for reason in LEFT_OUT.values())


def test_texts_stand_on_both_sides_of_every_boundary(tmp_path: Path) -> None:
    model = load(modern_model(tmp_path / "model"), "modern")
    texts, longest = probing.behaviour_texts(model)
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    lengths = [len(one.ids) for one in backend.encode_batch(texts)]
    assert longest == 256
    assert max(lengths) == 512  # twice the window
    assert {128 + 1, 256, 255, 257} <= set(lengths)  # the local window is 128 tokens


def test_a_costly_model_is_probed_with_a_bounded_part_of_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(modern_model(tmp_path / "model"), "modern")
    per_token = 2 * probing._weights_per_token(model)
    monkeypatch.setattr(probing, "_BUDGET", 150 * per_token)
    texts, longest = probing.behaviour_texts(model)
    assert longest == 150
    assert len(texts) == 1
    assert identity(model).probed_tokens == 150
    # token ids are compared at the window all the same
    model.tokenizer.truncation_side = "left"
    assert (
        probing.token_hash(model, {"query": "", "document": ""})
        != identity(load(tmp_path / "model")).tokens
    )


def test_another_engine_that_only_long_texts_show_is_refused(tmp_path: Path) -> None:
    """The declaration is the same, and so are all short texts: what is computed at 65 tokens is not."""
    model = load(modern_model(tmp_path / "model"), "modern")
    own = identity(model)
    plain = model.transformers_model.forward

    def other(*args: Any, **values: Any) -> Any:
        output = plain(*args, **values)
        output.last_hidden_state[:, 128:] = output.last_hidden_state[:, 128:].flip(-1)
        return output

    model.transformers_model.forward = other
    changed = identity(model)
    assert changed.id == own.id
    assert changed.probes == own.probes
    with pytest.raises(FingerprintError, match="gives other vectors"):
        own.require(changed, where="an index", next_step="embed again")


def test_folding_keeps_angles() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 768))
    vectors[1] = vectors[0] + 1e-7 * rng.normal(size=768)
    folded = probing.fold(vectors)
    assert folded.shape == (20, probing.FOLDED)
    unit = folded / np.linalg.norm(folded, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[0, 1] > 0.999999
    assert np.abs(cosines[2:, 2:] - np.eye(18)).max() < 0.6


# -- versions -------------------------------------------------------------------------------------


def test_the_former_hashes_are_those_of_version_1(tmp_path: Path) -> None:
    model = load(transformer_model(tmp_path / "model"))
    own = identity(model)
    state = json.loads(model.tokenizer.backend_tokenizer.to_str())
    del state["padding"], state["truncation"]
    chain = []
    for module in model:
        settings = {k: v for k, v in module.get_config_dict().items() if v is not None}
        settings = {
            k: v for k, v in settings.items() if k not in ("max_seq_length", "do_lower_case")
        }
        chain.append({"class": type(module).__name__, "settings": settings})
    former = own.by_version_1()
    assert former is not None
    assert (former.tokenizer, former.modules) == (value_hash(state)[:32], value_hash(chain)[:32])
    assert set(former.as_dict()) == {
        "id", "weights", "tokenizer", "modules", "query_prompt", "document_prompt", "max_seq_length",
        "similarity", "dimension", "precision", "chunker", "probes",
    }  # fmt: skip


class Heard(progress.Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str, level: str) -> None:
        self.messages.append(text)


def test_a_fingerprint_of_version_1_is_compared_as_it_was_then_and_said_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_warned", set())
    folder = transformer_model(tmp_path / "model")
    own = identity(load(folder))
    stored = Fingerprint.from_dict(own.by_version_1().as_dict(), where="here")  # type: ignore[union-attr]
    other = identity(load(transformer_model(tmp_path / "other", seed=1)))
    heard = Heard()
    with progress.listen(heard):
        for _ in range(3):
            assert stored.same_space(own)
            assert own.same_space(stored)
    assert len(heard.messages) == 1
    assert "nearer index build" in heard.messages[0]
    assert any(one.startswith("weights") for one in stored.differences(other))
    assert stored.id != own.id


def test_a_fingerprint_of_a_later_version_says_what_to_install(tmp_path: Path) -> None:
    values = identity(load(static_model(tmp_path / "model"))).as_dict()
    with pytest.raises(FingerprintError, match="a later version") as error:
        Fingerprint.from_dict(values | {"version": 3}, where="here")
    assert "pip install" in str(error.value.next_step)
    for damage in ({"version": "2"}, {"version": 0}, {"behaviour": "no base64"}, {"former": None}):
        with pytest.raises(FingerprintError, match=r"damaged|edited"):
            Fingerprint.from_dict(values | damage, where="here")


def written_by_version_1(world: World, generation: str) -> None:
    """Bring a built generation to the state in which an earlier nearer left it."""
    import pyarrow as pa

    generations = world.generations
    manifest = generations.manifest(generation)
    former = manifest.fingerprint.by_version_1()
    assert former is not None
    for place in (
        world.root / "generations" / generation / "manifest.json",
        world.root / "vectors" / generation / "manifest.json",
    ):
        values = json.loads(place.read_text())
        if "fingerprint" in values:
            values["fingerprint"] = former.as_dict()
            values.pop("parts")  # their checksums, which it did not keep
        else:
            values["identity"] = replace(manifest.space, fingerprint=former).identity()
        place.write_text(json.dumps(values))
    for part in (world.root / "generations" / generation / "parts").glob("*.arrow"):
        table = pa.ipc.open_file(part.read_bytes()).read_all()
        meta = dict(table.schema.metadata) | {b"fingerprint": json.dumps(former.as_dict()).encode()}
        meta.pop(b"checksum")
        with (
            pa.OSFile(str(part), "wb") as sink,
            pa.ipc.new_file(sink, table.schema.with_metadata(meta)) as writer,
        ):
            writer.write_table(table.replace_schema_metadata(meta))


@pytest.fixture
def old(tmp_path: Path) -> tuple[World, str]:
    """A project whose active generation an earlier nearer built."""
    model = transformer_model(tmp_path / "model")
    world = World(tmp_path / "project", model).write(documents(range(20)))
    generation = build(
        world.generations, world.corpus, world.encoder(), "model", today=True
    ).manifest.id
    verify(world.generations, generation, world.corpus)
    world.generations.cutover(generation)
    written_by_version_1(world, generation)
    return world, generation


def test_an_old_generation_answers_syncs_and_verifies(old: tuple[World, str]) -> None:
    world, generation = old
    assert world.generations.manifest(generation).fingerprint.version == 1
    answer = open_active(world.root).search("pump noise")
    assert answer.generation == generation
    assert (
        open_active(world.root).search(world.encoder().vectors(["pump noise"], "query")) == answer
    )
    world.write(documents(range(25)))
    (done,) = sync(world.generations, world.corpus)
    assert done.embedded == 5
    assert verify(world.generations, generation, world.corpus).verified["passed"]  # type: ignore[index]
    assert set(world.texts(generation)) == {f"d{i}" for i in range(25)}


def test_a_build_over_an_old_generation_begins_one_of_the_present_version(
    old: tuple[World, str],
) -> None:
    world, generation = old
    heard = Heard()
    with progress.listen(heard):
        fresh = build(world.generations, world.corpus, world.encoder(), "model", today=True)
    assert fresh.manifest.id != generation
    assert fresh.manifest.fingerprint.version == 2
    assert any("nearer index sync" in message for message in heard.messages)
    assert verify(world.generations, fresh.manifest.id, world.corpus).state == "verified"
    world.generations.cutover(fresh.manifest.id, override="of the present version")
    world.generations.rollback()
    assert open_active(world.root).search("pump noise").generation == generation


def test_an_old_generation_still_refuses_another_model(
    old: tuple[World, str], tmp_path: Path
) -> None:
    world, generation = old
    other = transformer_model(tmp_path / "other", seed=1)
    encoder = world.encoder(other)
    with pytest.raises(FingerprintError, match="weights"):
        open_active(world.root).search(encoder.vectors(["pump"], "query"))
    place = world.root / "generations" / generation / "model"
    shutil.rmtree(place)
    shutil.copytree(other, place)
    with pytest.raises(FingerprintError, match="weights"):
        open_active(world.root).search("pump")


# -- one comparison -------------------------------------------------------------------------------


def behaving_otherwise(encoder: Any) -> Any:
    """The same declaration; every vector is turned."""
    turned = tuple(tuple(reversed(probe)) for probe in encoder.fingerprint.probes)
    encoder.fingerprint = replace(encoder.fingerprint, probes=turned)
    plain = encoder.encode
    encoder.encode = lambda texts, kind: plain(texts, kind)[:, ::-1]
    return encoder


def test_query_vectors_in_memory_are_not_shared_by_models_of_one_id_that_behave_otherwise(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "project", static_model(tmp_path / "model")).write(documents(range(8)))
    first = build(world.generations, world.corpus, world.encoder(), "model", today=True).manifest
    generations: Generations = world.generations
    one = generations.open(first.id)
    encoder = behaving_otherwise(for_chunks(world.encoder(), "document"))
    other = replace(
        one,
        manifest=replace(first, id="feedbeef-1", fingerprint=encoder.fingerprint),
        encoder=encoder,
    )
    assert other.manifest.fingerprint.id == one.manifest.fingerprint.id
    vectors = QueryVectors(100)
    mine = vectors.of(one, ["pump"]).array
    theirs = vectors.of(other, ["pump"]).array
    assert vectors.hits == 0
    assert np.allclose(theirs, mine[:, ::-1])
    assert np.array_equal(vectors.of(one, ["pump"]).array, mine)
    assert vectors.hits == 1


def test_a_decision_speaks_only_for_a_model_that_behaves_as_the_judged_one(tmp_path: Path) -> None:
    from nearer.errors import StoreError

    models = [static_model(tmp_path / name, seed) for seed, name in enumerate("ab")]
    world = World(tmp_path / "project", models[0]).write(documents(range(8)))
    generations = world.generations
    made = []
    for model in models:
        encoder = world.encoder(model)
        filled = build(generations, world.corpus, encoder, model.name, today=model is models[0])
        verify(generations, filled.manifest.id, world.corpus)
        made.append(filled.manifest.id)
    generations.cutover(made[0])
    judged = world.encoder(models[1]).fingerprint

    def decide(told: dict[str, Any], **more: Any) -> None:
        path = world.root / "runs" / "default" / "decide" / "decision.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen = {"name": "tuned", "fingerprint": told["id"], **more}
        record = {"verdict": "ship", "recommended": "tuned", "candidates": [chosen]}
        path.write_text(json.dumps(signed(record, "ann", "2026-05-03")))

    turned = tuple(tuple(reversed(probe)) for probe in judged.probes)
    other = replace(judged, probes=turned).as_record()
    assert other["id"] == judged.id
    decide(other, identity=other)
    with pytest.raises(StoreError, match="gives other vectors"):
        generations.cutover(made[1])
    former = judged.by_version_1()
    assert former is not None
    for identity in (replace(judged, precision="bf16"), judged, former):
        decide(identity.as_dict())  # a record of an earlier nearer: the id alone
        assert generations.cutover(made[1]).id == made[1]
        generations.rollback()
        decide(identity.as_dict(), identity=identity.as_record())
        assert generations.cutover(made[1]).id == made[1]
        generations.rollback()
