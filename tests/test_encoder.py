"""Our encoder gives SentenceTransformer's vectors, in the order asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from nearer import config
from nearer.errors import ModelError
from nearer.retrieve import encoder as module
from nearer.retrieve.encoder import SentenceEncoder, choose_precision, load_encoder, token_batches

TEXTS = [
    "buffer overflow",
    "",
    "a " * 300,
    "Größe 東京",
    "An attacker can read files outside of the web root. " * 3,
    "buffer overflow",
]


def load(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.mark.parametrize("budget", [256, 8192])
def test_vectors_equal_those_of_sentence_transformers(tiny_model: Path, budget: int) -> None:
    model = load(tiny_model)
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    assert np.allclose(
        SentenceEncoder(model, batch_tokens=budget).encode(TEXTS, "document"), wanted, atol=1e-5
    )


def test_the_models_own_prompts_are_applied_by_kind(tiny_model: Path) -> None:
    model = load(tiny_model)
    model.prompts = {"query": "search_query: ", "passage": "search_document: "}
    encoder = SentenceEncoder(model)
    assert np.allclose(
        encoder.encode(["a leak"], "query"), model.encode(["search_query: a leak"]), atol=1e-5
    )
    assert np.allclose(
        encoder.encode(["a leak"], "document"), model.encode(["search_document: a leak"]), atol=1e-5
    )


def test_prompts_of_the_configuration_win(tiny_model: Path) -> None:
    settings = config.Model(name=str(tiny_model), query_prompt="q: ", document_prompt="")
    encoder = load_encoder(settings, Path())
    assert np.allclose(
        encoder.encode(["a leak"], "query"), load(tiny_model).encode(["q: a leak"]), atol=1e-5
    )
    assert np.allclose(
        encoder.encode(["a leak"], "document"), load(tiny_model).encode(["a leak"]), atol=1e-5
    )


def test_a_static_model_works_too(minilm: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu"
    )
    encoder = SentenceEncoder(model)
    words = ["hello world", "a longer text"]
    assert encoder.fingerprint.max_seq_length is None
    assert np.allclose(
        encoder.encode(words, "document"), model.encode(words, normalize_embeddings=True), atol=1e-5
    )


def test_token_counts_are_not_cut(tiny_model: Path) -> None:
    counts = SentenceEncoder(load(tiny_model)).token_counts(["one two", "word " * 200])
    assert counts.tolist() == [4, 202]


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4096))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(np.array(lengths, np.int64), budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_bf16_is_used_only_where_the_hardware_has_it_and_it_is_faithful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "hardware_has_bf16", lambda device: False)
    assert choose_precision("auto", "cpu", lambda: pytest.fail("not asked")).name == "fp32"
    monkeypatch.setattr(module, "hardware_has_bf16", lambda device: True)
    assert choose_precision("auto", "cpu", lambda: 0.99995).name == "bf16"
    refused = choose_precision("auto", "cpu", lambda: 0.93)
    assert refused.name == "fp32"
    assert "not faithful" in refused.reason


def test_bf16_vectors_are_close_and_another_space(tiny_model: Path) -> None:
    exact, fast = (
        load_encoder(config.Model(name=str(tiny_model), precision=p), Path())
        for p in ("fp32", "bf16")
    )  # type: ignore[arg-type]
    cosine = np.sum(exact.encode(TEXTS[:1], "document") * fast.encode(TEXTS[:1], "document"))
    assert cosine > 0.999
    assert fast.precision.fidelity is not None
    assert exact.fingerprint.id != fast.fingerprint.id


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not loaded")
    with pytest.raises(ModelError, match=r"no .safetensors weights .only pytorch_model.bin"):
        load_encoder(config.Model(name=str(tmp_path)), Path())


def test_a_missing_folder_is_told_from_a_model_name() -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_encoder(config.Model(name="./nowhere"), Path())


def test_vectors_that_are_not_finite_are_refused(tiny_model: Path) -> None:
    model = load(tiny_model)
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        SentenceEncoder(model)
