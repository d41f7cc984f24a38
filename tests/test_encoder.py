"""Our encoder gives SentenceTransformer's vectors, in the order asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nearer import config
from nearer.embed.encoder import SentenceEncoder, load_encoder, token_batches
from nearer.embed.precision import BF16_OVERRIDE, choose_precision, hardware_has_bf16
from nearer.errors import ConfigError, ModelError

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


PROMPT_NAMES = ("query", "document", "passage", "corpus", "other")


@pytest.fixture(params=["no", "yes"], ids=["without bf16 units", "with bf16 units"])
def hardware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test below runs as on a machine without bf16 units, and as on one with them."""
    monkeypatch.setenv(BF16_OVERRIDE, request.param)
    return str(request.param)


def powerset(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


@pytest.fixture(scope="module")
def few_words() -> Any:
    """A static model of a few words: quick to save and load, and prompts change its vectors."""
    words = ["[UNK]", *PROMPT_NAMES, "a", "leak", ":"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")


#: Largest difference of a component from fp32 vectors of length 1, by precision.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02}


def same(encoder: SentenceEncoder, ours: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.allclose(ours, wanted, atol=TOLERANCE[encoder.precision.name]))


@pytest.mark.parametrize("budget", [256, 8192])
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_vectors_equal_those_of_sentence_transformers(
    tiny_model: Path, budget: int, precision: str, hardware: str
) -> None:
    model = load(tiny_model)
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    encoder = SentenceEncoder(model, batch_tokens=budget, precision=precision)
    expected = {"yes": "bf16", "no": "fp32"}[hardware] if precision == "auto" else precision
    assert encoder.precision.name == expected
    assert same(encoder, encoder.encode(TEXTS, "document"), wanted)


def test_the_models_own_prompts_are_applied_by_kind(tiny_model: Path, hardware: str) -> None:
    model = load(tiny_model)
    model.prompts = {"query": "search_query: ", "passage": "search_document: "}
    encoder = SentenceEncoder(model)
    query, document = (model.encode([f"search_{k}: a leak"]) for k in ("query", "document"))
    assert same(encoder, encoder.encode(["a leak"], "query"), query)
    assert same(encoder, encoder.encode(["a leak"], "document"), document)
    assert not np.allclose(query, document, atol=TOLERANCE["bf16"])


def test_prompts_of_the_configuration_win(tiny_model: Path, hardware: str) -> None:
    settings = config.Model(name=str(tiny_model), query_prompt="q: ", document_prompt="")
    encoder = load_encoder(settings, Path())
    plain = load(tiny_model)
    assert same(encoder, encoder.encode(["a leak"], "query"), plain.encode(["q: a leak"]))
    assert same(encoder, encoder.encode(["a leak"], "document"), plain.encode(["a leak"]))


def assert_prompts_as_in_the_library(encoder: SentenceEncoder, model: Any) -> None:
    text = ["a leak"]
    query = model.encode_query(text, normalize_embeddings=True)
    document = model.encode_document(text, normalize_embeddings=True)
    told = f"prompts {model.prompts}, default {model.default_prompt_name}"
    assert np.allclose(encoder.encode(text, "query"), query, atol=1e-6), told
    assert np.allclose(encoder.encode(text, "document"), document, atol=1e-6), told


@pytest.mark.parametrize("default", [None, *PROMPT_NAMES])
def test_prompts_follow_the_rule_of_sentence_transformers(
    few_words: Any, default: str | None
) -> None:
    """Every combination of prompts, empty ones too, as `encode_query` and `encode_document` see it."""
    for empty in ((), ("query",), ("document", "passage")):
        for present in powerset(PROMPT_NAMES):
            prompts = {name: "" if name in empty else f"{name} : " for name in present}
            if default is not None:
                prompts.setdefault(default, "")
            few_words.prompts, few_words.default_prompt_name = prompts, default
            assert_prompts_as_in_the_library(SentenceEncoder(few_words), few_words)


@pytest.mark.parametrize("name", ["query", "passage", "other"])
def test_a_folder_with_only_a_default_prompt_is_read_as_the_library_reads_it(
    few_words: Any, tmp_path: Path, name: str
) -> None:
    few_words.prompts, few_words.default_prompt_name = {name: f"{name} : "}, name
    few_words.save(str(tmp_path / "model"), create_model_card=False)
    settings = config.Model(name=str(tmp_path / "model"), precision="fp32")
    assert_prompts_as_in_the_library(load_encoder(settings, Path()), load(tmp_path / "model"))


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
    monkeypatch.setenv(BF16_OVERRIDE, "no")
    assert choose_precision("auto", "cpu", lambda: pytest.fail("not asked")).name == "fp32"
    monkeypatch.setenv(BF16_OVERRIDE, "yes")
    assert choose_precision("auto", "cpu", lambda: 0.99995).name == "bf16"
    refused = choose_precision("auto", "cpu", lambda: 0.93)
    assert refused.name == "fp32"
    assert "not faithful" in refused.reason


def test_the_override_of_the_hardware_takes_yes_or_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BF16_OVERRIDE, "maybe")
    with pytest.raises(ConfigError, match="neither yes nor no"):
        hardware_has_bf16("cpu")


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
