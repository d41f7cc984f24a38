"""The contract of the reranker seam, held to every reranker that can be named, and to one of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from generations_kit import WORDS, transformer_model
from nearer import plugins
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError
from nearer.search.rerank import CachedReranker, Reranker, load_reranker, rerank
from nearer.types import Document, Query, Run, rank_hits

OWN_MODULE = "contract_rerankers"
OWN = f"{OWN_MODULE}:Longest"
OWN_SOURCE = """
class Longest:
    def score(self, pairs):
        return [float(len(document)) for _, document in pairs]
"""
PAIRS = [(f"{WORDS[i % 5]} {WORDS[i % 3]}", " ".join(WORDS[: 1 + i % 7])) for i in range(24)]

Specs = dict[str, str]


def cross_encoder(folder: Path) -> str:
    """A small cross-encoder with random weights over the kit's few words."""
    import torch

    transformer_model(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for (
        path
    ) in folder.iterdir():  # what is no cross-encoder goes: the embedding model's description
        if path.name in ("modules.json", "config_sentence_transformers.json"):
            path.unlink()
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=1,
    )
    model = BertForSequenceClassification(shape)
    torch.nn.init.normal_(model.classifier.weight)  # else all scores are about the same
    model.save_pretrained(folder)
    return str(folder)


#: How the spec of each kind is made; a new kind says here what it needs.
MAKE: dict[str, Callable[[Path], str]] = {
    "cross_encoder": lambda root: f"cross_encoder:{cross_encoder(root / 'cross')}",
}
NAMES = [*plugins.names("reranker"), "a model's folder", OWN]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{OWN_MODULE}.py").write_text(OWN_SOURCE)
    yield folder
    sys.modules.pop(OWN_MODULE, None)


@pytest.fixture(scope="module")
def specs(root: Path) -> Specs:
    """The spec of every name."""
    made = {name: MAKE[name](root) for name in plugins.names("reranker")}
    return made | {"a model's folder": "cross", OWN: OWN}


@pytest.fixture
def load(root: Path, specs: Specs) -> Callable[..., CachedReranker]:
    """`load(which, **more)`: the reranker of a name."""

    def loaded(which: str, **more: Any) -> CachedReranker:
        return load_reranker(specs[which], root, **more)

    return loaded


Load = Callable[..., CachedReranker]


@pytest.mark.parametrize("name", NAMES)
def test_a_score_per_pair_in_their_order(load: Load, name: str) -> None:
    reranker = load(name)
    assert isinstance(reranker, Reranker)
    scores = reranker.score(PAIRS)
    assert (scores.shape, scores.dtype) == ((len(PAIRS),), np.float32)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) > 1
    assert np.allclose(reranker.score(PAIRS[::-1])[::-1], scores, atol=2e-4)
    assert np.allclose(
        np.concatenate([reranker.score([pair]) for pair in PAIRS]), scores, atol=2e-4
    )
    assert reranker.score([]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_loaded_again_it_is_the_same(load: Load, specs: Specs, name: str) -> None:
    first, again = load(name), load(name)
    assert first.fingerprint == again.fingerprint != ""
    assert first.former_fingerprint == again.former_fingerprint
    assert (first.name, first.source) == (again.name, specs[name])
    assert np.array_equal(first.score(PAIRS), again.score(PAIRS))
    assert load(name, name="mine").name == "mine"
    assert load(name, name="mine").fingerprint == first.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_kept_scores_are_the_computed_ones(load: Load, tmp_path: Path, name: str) -> None:
    kept = load(name, cache=tmp_path)
    assert np.array_equal(kept.score(PAIRS), load(name).score(PAIRS))
    again = load(name, cache=tmp_path)
    assert np.array_equal(again.score(PAIRS), kept.score(PAIRS))
    assert np.allclose(again.without_cache().score(PAIRS[:3]), kept.score(PAIRS[:3]), atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_reranked_by_its_scores(load: Load, name: str) -> None:
    reranker = load(name)
    texts = {f"d{number}": document for number, (_, document) in enumerate(PAIRS[:8])}
    corpus = Corpus.from_documents(Document(doc_id, text) for doc_id, text in texts.items())
    first = Run("first", {"q": rank_hits((doc_id, 1.0) for doc_id in texts)})
    run = rerank(first, [Query("q", "pump valve")], corpus, reranker, 5)
    hits = list(run.results["q"])
    assert hits == rank_hits(hits)
    head = first.top("q", 5)
    scores = reranker.score([("pump valve", texts[doc_id]) for doc_id in head])
    best = rank_hits(zip(head, scores.tolist(), strict=True))
    assert [doc_id for doc_id, _ in hits[:5]] == [doc_id for doc_id, _ in best]
    assert [doc_id for doc_id, _ in hits[5:]] == first.top("q", 8)[5:]


def test_a_folder_and_its_kind_are_one_reranker(load: Load) -> None:
    assert load("a model's folder").fingerprint == load("cross_encoder").fingerprint


def test_a_kind_without_a_model_says_what_is_missing(root: Path) -> None:
    with pytest.raises(ConfigError, match="no model is named"):
        load_reranker("cross_encoder", root)


def test_an_installed_package_brings_a_reranker(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root))
    point = EntryPoint("reranker.longest", OWN, plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: (point,))
    reranker = load_reranker("longest", root)
    assert reranker.score([("q", "abc"), ("q", "a")]).tolist() == [3.0, 1.0]
    assert reranker.name == "longest"
