"""What changes the space changes the fingerprint; what does not, does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from nearer.embed.encoder import SentenceEncoder
from nearer.embed.fingerprint import Fingerprint
from nearer.errors import FingerprintError


def load(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def original(tiny_model: Path) -> Fingerprint:
    return SentenceEncoder(load(tiny_model)).fingerprint


def one_weight(model: Any) -> None:
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith("bias"))[0] += 1e-3


def other_pooling(model: Any) -> None:
    for name in ("pooling_mode", "pooling_mode_cls_token"):
        if hasattr(model[1], name):
            setattr(model[1], name, "cls" if name == "pooling_mode" else True)


def no_normalisation(model: Any) -> None:
    del model._modules["2"]


def shorter(model: Any) -> None:
    model.max_seq_length = 32


def query_prompt(model: Any) -> None:
    model.prompts = {"query": "query: ", "document": ""}


def other_tokenizer(model: Any) -> None:
    model.tokenizer.add_tokens(["overflow"])


def dot(model: Any) -> None:
    model.similarity_fn_name = "dot"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (one_weight, "weights"),
        (other_pooling, "modules"),
        (no_normalisation, "modules"),
        (shorter, "max seq length"),
        (query_prompt, "query prompt"),
        (other_tokenizer, "tokenizer"),
        (dot, "similarity"),
    ],
)
def test_a_change_of_the_space_is_named(
    change: Callable[[Any], None], named: str, tiny_model: Path, original: Fingerprint
) -> None:
    model = load(tiny_model)
    change(model)
    changed = SentenceEncoder(model).fingerprint
    assert changed.id != original.id
    assert any(difference.startswith(named) for difference in original.differences(changed))
    with pytest.raises(FingerprintError, match=named):
        original.require(changed, where="an index", next_step="embed again")


def test_saving_again_and_moving_change_nothing(
    tiny_model: Path, original: Fingerprint, tmp_path: Path
) -> None:
    load(tiny_model).save(str(tmp_path / "saved"), create_model_card=False)
    shutil.move(tmp_path / "saved", tmp_path / "renamed")
    assert original.differences(SentenceEncoder(load(tmp_path / "renamed")).fingerprint) == []


def test_what_the_tokenizer_last_did_changes_nothing(
    tiny_model: Path, original: Fingerprint
) -> None:
    model = load(tiny_model)
    model.tokenizer(["one", "two words"], padding=True, truncation=True, max_length=5)
    assert SentenceEncoder(model).fingerprint.id == original.id


def test_another_chunker_or_precision_is_another_space(original: Fingerprint) -> None:
    assert original.differences(replace(original, chunker="sentences")) == [
        "chunker none against sentences"
    ]
    assert original.differences(replace(original, precision="bf16")) == [
        "precision fp32 against bf16"
    ]


def test_the_same_declaration_with_other_vectors_is_refused(original: Fingerprint) -> None:
    turned = replace(original, probes=tuple(tuple(reversed(probe)) for probe in original.probes))
    assert turned.id == original.id
    with pytest.raises(FingerprintError, match="gives other vectors"):
        original.require(turned, where="an index", next_step="embed again")


def test_vectors_without_identity_are_refused(original: Fingerprint) -> None:
    with pytest.raises(FingerprintError, match="do not say which model"):
        original.require(None, where="an index", next_step="embed again")


def test_a_fingerprint_reads_back_and_an_edited_one_is_refused(original: Fingerprint) -> None:
    stored = original.as_dict()
    assert Fingerprint.from_dict(stored, where="here") == original
    with pytest.raises(FingerprintError, match="was edited"):
        Fingerprint.from_dict({**stored, "max_seq_length": 512}, where="here")
    with pytest.raises(FingerprintError, match="damaged"):
        Fingerprint.from_dict({"id": stored["id"]}, where="here")
