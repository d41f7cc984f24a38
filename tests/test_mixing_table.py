"""Every way to mix two models that we could think of, at every door: docs/mixing.md holds the table.

A way changes one thing about a model.  At each door either the changed model is refused, or what
comes out is what the original makes.  The same model in other clothes is taken everywhere.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)
from transformers import (
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
)

import generations_kit
from generations_kit import World, documents, static_model
from nearer.embed.cache import EmbeddingCache
from nearer.embed.encoder import SentenceEncoder
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError
from nearer.live.index import opening
from nearer.live.index.bridging import build_bridge
from nearer.live.index.build import build
from nearer.live.index.generations import for_chunks
from nearer.live.index.sync import sync
from nearer.live.index.verify import verify
from nearer.live.stores.base import Rows

DOCS = Path(__file__).parents[1] / "docs"
LONG = " ".join(generations_kit.WORDS * 20)
TEXTS = ["pump noise 7", "leak", LONG]


# -- models ---------------------------------------------------------------------------------------


def transformer(folder: Path, model: Any) -> Path:
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=generations_kit._tokenizer(), **special)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    modules = [
        Transformer(str(folder), max_seq_length=64),
        Pooling(32),
        Dense(32, 32, activation_function=torch.nn.Tanh()),
        Normalize(),
    ]
    made = SentenceTransformer(modules=modules, device="cpu")
    shutil.rmtree(folder)
    made.save(str(folder), create_model_card=False)
    return folder


def bert(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=27,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    return transformer(folder, BertModel(shape))


def modern(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = ModernBertConfig(
        vocab_size=27,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        pad_token_id=0,
        global_attn_every_n_layers=2,
        local_attention=16,
    )
    return transformer(folder, ModernBertModel(shape))


BASES: dict[str, Callable[[Path], Path]] = {"bert": bert, "modern": modern, "static": static_model}


# -- ways -----------------------------------------------------------------------------------------

Edit = Callable[[Path], None]


def nothing(_: Any) -> None: ...


@dataclass(frozen=True)
class Way:
    """One difference: in the folder, in how it is loaded, or in what the loaded encoder says of itself."""

    base: str
    edit: Edit = nothing
    options: dict[str, Any] = field(default_factory=dict)
    after: Callable[[Any], None] = nothing


def values(name: str, **changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def inside(name: str, change: Callable[[dict[str, Any]], Any]) -> Edit:
    """Edits of a JSON file by hand."""

    def edit(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def model(change: Callable[[Any], Any]) -> Edit:
    """Edits of the loaded model, saved again."""

    def edit(folder: Path) -> None:
        loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        with torch.no_grad():
            change(loaded)
        shutil.rmtree(folder)
        loaded.save(str(folder), create_model_card=False)

    return edit


def tensors(change: Callable[[dict[str, Any]], Any], file: str = "model.safetensors") -> Edit:
    def edit(folder: Path) -> None:
        weights = load_file(folder / file)
        change(weights)
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / file, {"format": "pt"})

    return edit


def swap(weights: dict[str, Any], one: str, other: str) -> None:
    weights[one], weights[other] = weights[other].clone(), weights[one].clone()


def swap_layers(weights: dict[str, Any]) -> None:
    for name in [one for one in weights if ".layer.0." in one]:
        swap(weights, name, name.replace(".layer.0.", ".layer.1."))


def swap_rows(weights: dict[str, Any]) -> None:
    name = next(one for one in weights if "word_embeddings" in one)
    weights[name][[4, 5]] = weights[name][[5, 4]]


def add_to_one_bias(weights: dict[str, Any]) -> None:
    weights[next(one for one in weights if one.endswith("bias"))][0] += 1e-3


def each(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def all_of_them(weights: dict[str, Any]) -> None:
        for name, value in list(weights.items()):
            weights[name] = change(value)

    return all_of_them


def vocabulary(content: dict[str, Any]) -> dict[str, int]:
    words: dict[str, int] = content["model"]["vocab"]
    return words


def swap_words(content: dict[str, Any]) -> None:
    words = vocabulary(content)
    words["pump"], words["leak"] = words["leak"], words["pump"]


def rope(kind: str) -> Edit:
    return inside(
        "config.json", lambda content: content["rope_parameters"][kind].update(rope_theta=123.0)
    )


def drop_module(number: int) -> Callable[[Any], None]:
    def drop(loaded: Any) -> None:
        del loaded._modules[str(number)]

    return drop


def prompts(**own: str) -> Edit:
    return values("config_sentence_transformers.json", prompts=own)


def says(**changes: Any) -> Callable[[Any], None]:
    def change(encoder: Any) -> None:
        encoder.fingerprint = replace(encoder.fingerprint, **changes)

    return change


def turned(name: str) -> Callable[[Any], None]:
    def change(encoder: Any) -> None:
        rows = tuple(tuple(reversed(row)) for row in getattr(encoder.fingerprint, name))
        encoder.fingerprint = replace(encoder.fingerprint, **{name: rows})

    return change


def cut(**changes: Any) -> Edit:
    how = {"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0}
    return values("tokenizer.json", truncation=how | changes)


_STARTED = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "[UNK]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"[UNK]": {"id": "[UNK]", "ids": [1], "tokens": ["[UNK]"]}},
}

WAYS: dict[str, Way] = {
    # the transformer's configuration
    "number of attention heads": Way("bert", values("config.json", num_attention_heads=4)),
    "activation": Way("bert", values("config.json", hidden_act="relu")),
    "constant of the layer norm": Way("bert", values("config.json", layer_norm_eps=0.1)),
    "causal attention": Way("bert", values("config.json", is_decoder=True)),
    "window of local attention": Way("modern", values("config.json", local_attention=8)),
    "which layers see everything": Way(
        "modern", values("config.json", layer_types=["full_attention", "full_attention"])
    ),
    "position scaling of full layers": Way("modern", rope("full_attention")),
    "position scaling of local layers": Way("modern", rope("sliding_attention")),
    "constant of the norm": Way("modern", values("config.json", norm_eps=0.1)),
    "activation of another architecture": Way(
        "modern", values("config.json", hidden_activation="relu")
    ),
    # the tokenizer
    "truncation side": Way("bert", values("tokenizer_config.json", truncation_side="left")),
    "padding side": Way("bert", values("tokenizer_config.json", padding_side="left")),
    "padding token": Way("bert", values("tokenizer_config.json", pad_token="[UNK]")),  # noqa: S106
    "model inputs": Way(
        "bert",
        values(
            "tokenizer_config.json",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        ),
    ),
    "an added token": Way("bert", model(lambda loaded: loaded.tokenizer.add_tokens(["noise"]))),
    "vocabulary order": Way("bert", inside("tokenizer.json", swap_words)),
    "lower-casing in the tokenizer": Way(
        "bert", values("tokenizer.json", normalizer={"type": "Lowercase"})
    ),
    "lower-casing in the module": Way(
        "bert", values("sentence_bert_config.json", do_lower_case=True)
    ),
    "splitting of words": Way(
        "bert", values("tokenizer.json", pre_tokenizer={"type": "WhitespaceSplit"})
    ),
    "special tokens": Way("bert", values("tokenizer.json", post_processor=_STARTED)),
    "accents": Way("bert", values("tokenizer.json", normalizer={"type": "StripAccents"})),
    # modules
    "pooling by the first token": Way("bert", values("1_Pooling/config.json", pooling_mode="cls")),
    "pooling by the maximum": Way("bert", values("1_Pooling/config.json", pooling_mode="max")),
    "pooling by the last token": Way(
        "bert", values("1_Pooling/config.json", pooling_mode="lasttoken")
    ),
    "pooling without the prompt": Way(
        "bert", values("1_Pooling/config.json", include_prompt=False)
    ),
    "dense layer's weights": Way(
        "bert", tensors(each(lambda one: one + 0.01), "2_Dense/model.safetensors")
    ),
    "dense layer's activation": Way(
        "bert",
        values(
            "2_Dense/config.json",
            activation_function="torch.nn.modules.linear.Identity",
        ),
    ),
    "no dense layer": Way("bert", model(drop_module(2))),
    "no normalisation": Way("bert", model(drop_module(3))),
    "a dense layer more": Way("bert", model(lambda loaded: loaded.add_module("4", Dense(32, 32)))),
    # weights
    "one number of one tensor": Way("bert", tensors(add_to_one_bias)),
    "two layers swapped": Way("bert", tensors(swap_layers)),
    "two words' vectors swapped": Way("bert", tensors(swap_rows)),
    "all weights a little": Way("bert", tensors(each(lambda one: one * 1.001))),
    "weights rounded to bf16": Way(
        "bert", tensors(each(lambda one: one.to(torch.bfloat16).to(one.dtype)))
    ),
    "a space turned by one component": Way(
        "static", tensors(each(lambda one: torch.roll(one, 1, -1)))
    ),
    # a static model's tokenizer
    "a static model's cut": Way("static", cut()),
    "a static model's cut from the left": Way("static", cut(direction="Left")),
    "a static model's vocabulary": Way("static", inside("tokenizer.json", swap_words)),
    "a static model's lower-casing": Way(
        "static", values("tokenizer.json", normalizer={"type": "Lowercase"})
    ),
    # how it is used
    "maximum length": Way("bert", model(lambda loaded: setattr(loaded, "max_seq_length", 32))),
    "query prompt": Way("bert", prompts(query="query: ", document="")),
    "document prompt": Way("bert", prompts(query="", document="passage: ")),
    "query prompt in nearer.yaml": Way("bert", options={"query_prompt": "query: "}),
    "similarity": Way(
        "bert", values("config_sentence_transformers.json", similarity_fn_name="dot")
    ),
    "number format": Way("bert", options={"precision": "bf16"}),
    "chunker": Way("bert", after=says(chunker="sentences:128")),
    # the same files, computed otherwise
    "an engine that shows in short texts": Way("bert", after=turned("probes")),
    "an engine that shows in long texts": Way("bert", after=turned("behaviour")),
}


# -- worlds ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """A project in which a model fills a generation, and is the new one of a bridge over another's."""

    root: Path
    model: Path
    generation: str
    bridge: str


def load(folder: Path, **options: Any) -> SentenceEncoder:
    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return SentenceEncoder(loaded, **{"precision": "fp32", **options})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    made: dict[str, Built] = {}

    def get(base: str) -> Built:
        if base not in made:
            root = tmp_path_factory.mktemp(base)
            own = BASES[base](root / "model")
            other = static_model(root / "other", seed=9)
            world = World(root / "project", own).write(documents(range(6)))
            generations = world.generations
            below = build(generations, world.corpus, load(other), "other", today=False).manifest.id
            verify(generations, below, world.corpus)
            generations.cutover(below, override="to be bridged to")
            encoder = world.encoder()
            bridge = build_bridge(
                generations, encoder, "own", world.corpus, ["pump", "leak"] * 4, 6
            )
            generation = build(generations, world.corpus, encoder, "own", today=True).manifest.id
            verify(generations, generation, world.corpus)
            generations.cutover(generation, override="test")
            cached = SentenceEncoder(encoder.model, precision="fp32", cache=root / "cache")
            cached.encode(TEXTS, "document")
            made[base] = Built(root, own, generation, bridge.id)
        return made[base]

    return get


@pytest.fixture(scope="module")
def changed(
    built: Callable[[str], Built], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Any]]:
    """The folder of a way's model, and its encoder."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(name: str) -> tuple[Path, Any]:
        if name not in made:
            way = WAYS[name]
            folder = tmp_path_factory.mktemp("changed") / "model"
            shutil.copytree(built(way.base).model, folder)
            way.edit(folder)
            encoder = load(folder, **way.options)
            way.after(encoder)
            made[name] = (folder, encoder)
        return made[name]

    return get


@dataclass(frozen=True)
class Attack:
    """A changed model in front of a project of the original."""

    built: Built
    world: World
    way: Way
    folder: Path
    encoder: Any
    monkeypatch: pytest.MonkeyPatch

    def encoder_of(self, generation: str) -> Any:
        """What a generation's own folder gives when the changed model lies in it."""
        place = self.world.root / "generations" / generation / "model"
        shutil.rmtree(place)
        shutil.copytree(self.folder, place)
        if self.way.after is not nothing:
            self.monkeypatch.setattr(opening, "open_encoder", lambda *_, **__: self.encoder)
        return self.world.generations.encoder(self.world.generations.manifest(generation))


# -- doors: each returns whether something foreign got in ------------------------------------------


def cache(attack: Attack) -> bool:
    """Vectors of the original are not taken for those of the changed model."""
    computed: list[str] = []

    def compute(texts: list[str]) -> np.ndarray:
        computed.extend(texts)
        return np.zeros((len(texts), 32), np.float32)

    prefix = f"document\0{attack.encoder.prompt('document')}\0"
    root = attack.world.root / "cache"
    EmbeddingCache(root, attack.encoder.fingerprint).through(TEXTS, prefix, compute)
    return len(computed) < len(TEXTS)


def build_resume(attack: Attack) -> bool:
    """A build does not go on with the original's generation."""
    world = attack.world.write(documents(range(8)))
    encoder = attack.encoder
    if encoder.fingerprint.chunker:  # what `index.chunker` would say
        world.settings["index"]["chunker"] = encoder.fingerprint.chunker
        (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    with world.generations.writing():
        made = world.generations.create(encoder, "changed", today=True)
    return made.id == attack.built.generation


def table_write(attack: Attack) -> bool:
    """No row of the changed model enters the active table."""
    generations = attack.world.generations
    space = generations.manifest(attack.built.generation).space
    own = attack.encoder.fingerprint
    said = own if own.chunker else for_chunks(attack.encoder, "document").fingerprint
    vectors = Vectors(attack.encoder.encode(["text"], "document"), said)
    generations.store("numpy").write(
        space, Rows(["n#0"], ["n"], ["text"], [{}], ["0" * 16], vectors)
    )
    return True


def query(attack: Attack) -> bool:
    """No query vector of the changed model is asked of the table."""
    opened = attack.world.generations.open(attack.built.generation)
    opened.search(Vectors(attack.encoder.encode(["pump"], "query"), attack.encoder.fingerprint), 3)
    return attack.way is not WAYS["chunker"]  # queries are never cut into chunks


def sync_(attack: Attack) -> bool:
    """In place of the generation's own copy it embeds no new document."""
    place = attack.world.root / "generations" / attack.built.generation / "model"
    attack.encoder_of(attack.built.generation)
    world = attack.world.write(documents(range(8)))
    sync(world.generations, world.corpus)
    generations = world.generations
    manifest = generations.manifest(attack.built.generation)
    own = load(attack.built.model)
    assert place.is_dir()
    for rows in generations.store("numpy").scan(manifest.space):
        expected = own.encode(rows.texts, "document")
        if not np.allclose(expected, rows.vectors.array, atol=1e-5):
            return True
    return False


def bridge(attack: Attack) -> bool:
    """In place of the new model of a bridge it asks nothing."""
    encoder = attack.encoder_of(attack.built.bridge)
    right = World.at(attack.built.root / "project")
    own = right.generations.encoder(right.generations.manifest(attack.built.bridge))
    return not np.allclose(own.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"), atol=1e-5)


def verify_(attack: Attack) -> bool:
    """It does not vouch for the original's generation."""
    if attack.encoder.fingerprint.chunker:
        return False  # `verify` cuts as the manifest says, whatever an encoder says
    manifest = verify(
        attack.world.generations,
        attack.built.generation,
        attack.world.corpus,
        encoder=attack.encoder,
    )
    assert manifest.verified is not None
    return bool(manifest.verified["passed"])


DOORS: dict[str, Callable[[Attack], bool]] = {
    "cache": cache,
    "build resume": build_resume,
    "table write": table_write,
    "query": query,
    "sync": sync_,
    "bridge": bridge,
    "verify": verify_,
}


@pytest.fixture
def attack(
    built: Callable[[str], Built],
    changed: Callable[[str], tuple[Path, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Attack]:
    def begin(name: str) -> Attack:
        way = WAYS[name]
        base = built(way.base)
        shutil.copytree(base.root / "project", tmp_path / "project")
        shutil.copytree(base.root / "cache", tmp_path / "project" / "cache")
        world = World(tmp_path / "project", base.model)
        return Attack(base, world, way, *changed(name), monkeypatch)

    return begin


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_foreign_gets_through(way: str, door: str, attack: Callable[[str], Attack]) -> None:
    ready = attack(way)
    mended: str | None = ""
    try:
        entered = DOORS[door](ready)
    except FingerprintError as error:
        entered, mended = False, error.next_step
    assert not entered
    assert mended is not None  # a refusal says what to do


def test_each_way_is_another_model(
    changed: Callable[[str], Any], built: Callable[[str], Built]
) -> None:
    """Otherwise the table would prove nothing."""
    originals = {base: load(built(base).model).fingerprint for base in BASES}
    alike = [
        name
        for name, way in WAYS.items()
        if originals[way.base].same_space(changed(name)[1].fingerprint)
    ]
    assert alike == []


def test_the_table_in_the_docs_names_every_way_and_door() -> None:
    text = (DOCS / "mixing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| ([^|]+) \|", text, re.MULTILINE)
    assert [row.strip() for row in rows] == list(WAYS)
    assert len(WAYS) >= 40
    for door in DOORS:
        assert f"**{door}**" in text
    for variant in SAME:
        assert f"- {variant}" in text


# -- the same model in other clothes ---------------------------------------------------------------


def sharded(folder: Path) -> None:
    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    (folder / "model.safetensors").unlink()
    loaded.transformers_model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def reordered(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))


def used(folder: Path) -> None:
    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    loaded.tokenizer([LONG, "pump"], padding=True, truncation=True, max_length=5)
    loaded.save(str(folder), create_model_card=False)


SAME: dict[str, Edit] = {
    "saved again": model(nothing),
    "saved after it was used": used,
    "split into shards": sharded,
    "keys in another order": reordered,
    "another library version": values("config.json", transformers_version="4.0.0"),
    "another name": values("config.json", _name_or_path="elsewhere"),
    "another dropout": values("config.json", hidden_dropout_prob=0.5),
    "a cache for generated text": values("config.json", use_cache=True),
    "names of classes": values("config.json", id2label={"0": "spam", "1": "ham"}),
    "a readme beside it": lambda folder: (folder / "README.md").write_text("# a model") and None,
}


@pytest.mark.parametrize("variant", SAME)
def test_the_same_model_in_other_clothes_is_taken_everywhere(
    variant: str, built: Callable[[str], Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = built("bert")
    shutil.copytree(base.root / "project", tmp_path / "project")
    shutil.copytree(base.root / "cache", tmp_path / "project" / "cache")
    shutil.copytree(base.model, tmp_path / "renamed")
    SAME[variant](tmp_path / "renamed")
    world = World(tmp_path / "project", base.model)
    encoder = load(tmp_path / "renamed")
    original = load(base.model)
    assert original.fingerprint.differences(encoder.fingerprint) == []

    ready = Attack(base, world, WAYS["activation"], tmp_path / "renamed", encoder, monkeypatch)
    assert cache(ready)
    assert query(ready)
    assert verify_(ready)
    assert build_resume(ready)
    assert not bridge(ready)
    assert not sync_(ready)
    assert table_write(ready)
