"""A model that loads is one that works: float32, a padding token, one pass over its longest text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

from nearer import config
from nearer.embed.encoder import load_encoder
from nearer.embed.loading import load_model, prove_forward
from nearer.embed.precision import BF16_OVERRIDE
from nearer.errors import ModelError
from nearer.files import content_hash

END = {"eos_token": "<|end|>"}
TEXTS = ["a leak in memory", "one two three " * 40]


def settings(folder: Path, **changes: Any) -> config.Model:
    return config.Model(**{"name": str(folder), "device": "cpu", **changes})


def decoder(folder: Path, **special: str) -> Path:
    """A decoder as they are often saved: no padding token, and perhaps no end token either."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(["bread and bicycles"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)
    fast.save_pretrained(folder)
    shape = GPT2Config(vocab_size=len(fast), n_positions=128, n_embd=32, n_layer=1, n_head=2)
    GPT2Model(shape).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("hardware", ["yes", "no"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_saved_in_half_precision_are_computed_in_float32(
    tiny_model: Path,
    tmp_path: Path,
    dtype: torch.dtype,
    hardware: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(BF16_OVERRIDE, hardware)
    model = SentenceTransformer(str(tiny_model), device="cpu").to(dtype)
    model.save(str(tmp_path / "half"), create_model_card=False)
    for precision in ("auto", "fp32"):
        encoder = load_encoder(settings(tmp_path / "half", precision=precision), Path())
        assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
        vectors = encoder.encode(TEXTS, "document")
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_a_tokenizer_without_padding_gets_its_end_token(tmp_path: Path) -> None:
    model = load_model(settings(decoder(tmp_path, **END)), Path())
    assert model.tokenizer.pad_token == END["eos_token"]
    assert model.encode(TEXTS).shape == (2, 32)


def test_without_an_end_token_either_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no padding token"):
        load_model(settings(decoder(tmp_path)), Path())


@pytest.mark.parametrize("length", [513, 4000])
def test_a_maximum_length_beyond_the_positions_is_refused(minilm: Path, length: int) -> None:
    with pytest.raises(ModelError, match=f"{length} tokens, but the model knows 512") as caught:
        load_model(settings(minilm, max_seq_length=length), Path())
    assert "model.max_seq_length to 512 or less" in str(caught.value.next_step)


def test_the_models_own_length_beyond_its_positions_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "sentence_bert_config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "max_seq_length": 1024}))
    tokenizer = tmp_path / "model" / "tokenizer_config.json"
    described = json.loads(tokenizer.read_text())
    tokenizer.write_text(json.dumps({**described, "model_max_length": 1024}))
    with pytest.raises(ModelError, match="1024 tokens, but the model knows 512"):
        load_model(settings(tmp_path / "model"), Path())


def test_a_model_that_cannot_compute_is_refused_when_it_is_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Its table of positions is cut: short texts work, long ones do not."""
    model = SentenceTransformer(str(tiny_model), device="cpu")
    kept = model.transformers_model.embeddings
    kept.position_ids = kept.position_ids[:, :8]
    with pytest.raises(ModelError, match="fails on a text of 64 tokens"):
        prove_forward(model, "cut", model.encode)


def test_a_static_model_has_no_maximum_length_to_set(minilm: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    model.save(str(tmp_path / "static"), create_model_card=False)
    with pytest.raises(ModelError, match="no maximum length to set"):
        load_model(settings(tmp_path / "static", max_seq_length=64), Path())


def test_module_folders_may_be_symbolic_links(tiny_model: Path, tmp_path: Path) -> None:
    """As in a hub's cache; what lies behind a link counts for what has changed, too."""
    shutil.copytree(tiny_model, tmp_path / "elsewhere")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in (tmp_path / "elsewhere").iterdir():
        (linked / path.name).symlink_to(path)
    (linked / "loop").symlink_to(linked)
    model = load_model(settings(linked), Path())
    assert np.allclose(model.encode(TEXTS), SentenceTransformer(str(tiny_model)).encode(TEXTS))
    before = content_hash(linked)
    pooling = next(p for p in (tmp_path / "elsewhere").rglob("config.json") if "ooling" in str(p))
    pooling.write_text(pooling.read_text() + " ")
    assert content_hash(linked) != before


def test_another_model_never_inherits_what_belongs_to_one() -> None:
    own = config.Model(
        name="a", query_prompt="q: ", document_prompt="d: ", max_seq_length=64, device="cpu"
    )
    another = own.of_another("b")
    assert (another.name, another.device) == ("b", "cpu")
    assert another == own.as_saved().model_copy(update={"name": "b"})
    assert another.query_prompt is another.document_prompt is another.max_seq_length is None
