"""Learned sparse models: SparseEncoder's rows, kept on disk, searched exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from nearer import config
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder
from nearer.embed.fingerprint import Fingerprint
from nearer.errors import DataError, FingerprintError, ModelError
from nearer.search import sparse as module
from nearer.search.base import Retriever
from nearer.search.sparse import SparseModel, SparseRetriever, is_sparse, load_sparse
from nearer.types import Document, Query, rank_hits

TEXTS = [
    "buffer overflow",
    "",
    "a " * 300,
    "Größe 東京",
    "An attacker can read files outside of the web root. " * 3,
    "buffer overflow",
]
CORPUS = [
    f"weakness {word} of the {word} list"
    for word in ("alpha", "beta", "gamma", "delta", "file", "web", "root", "memory", "leak", "path")
]


@pytest.fixture(scope="module")
def splade(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real SPLADE of one layer, its head such that a text weighs its own words and few others."""
    tokenizer = AutoTokenizer.from_pretrained(str(minilm))
    torch.manual_seed(0)
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
    }
    masked = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape))
    with torch.no_grad():
        masked.bert.embeddings.word_embeddings.weight.normal_()
        head = masked.cls.predictions
        head.transform.dense.weight.copy_(torch.eye(64))
        head.bias.fill_(-38)
        head.bias[tokenizer.all_special_ids] = -100
    folder = tmp_path_factory.mktemp("models")
    masked.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), transformer_task="fill-mask", max_seq_length=64)
    SparseEncoder(modules=[transformer, SpladePooling()], device="cpu").save(
        str(folder / "splade"), create_model_card=False
    )
    return folder / "splade"


def load(folder: Path) -> Any:
    return SparseEncoder(str(folder), device="cpu", local_files_only=True)


def loaded(folder: Path, cache: Path | None = None, **settings: Any) -> SparseModel:
    return load_sparse(
        config.Model(name=str(folder), device="cpu", precision="fp32", **settings),
        Path(),
        cache=cache,
    )


def counted(made: SparseModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    computed: list[str] = []
    real = made._engine.compute

    def compute(texts: Any, *more: Any) -> np.ndarray:
        computed.extend(texts)
        return real(texts, *more)

    monkeypatch.setattr(made._engine, "compute", compute)
    return computed


@pytest.mark.parametrize("budget", [256, 8192])
def test_rows_equal_those_of_sparse_encoder(
    splade: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    rows = loaded(splade, batch_tokens=budget).encode(TEXTS, "document")
    wanted = load(splade).encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    assert rows.dtype == np.float32
    assert rows.shape == wanted.shape == (len(TEXTS), 30522)
    assert 0 < rows.nnz < 0.01 * wanted.size
    assert np.allclose(rows.toarray(), wanted, atol=1e-5)


def test_no_texts_give_no_rows(splade: Path, tmp_path: Path) -> None:
    assert loaded(splade, tmp_path).encode([], "query").shape == (0, 30522)


def test_prompts_are_applied_by_kind(splade: Path) -> None:
    made = loaded(splade, query_prompt="find: ", document_prompt="")
    wanted = load(splade).encode(["find: a leak", "a leak"], convert_to_sparse_tensor=False).numpy()
    assert np.allclose(made.encode(["a leak"], "query").toarray(), wanted[:1], atol=1e-5)
    assert np.allclose(made.encode(["a leak"], "document").toarray(), wanted[1:], atol=1e-5)


def test_queries_of_an_inference_free_model_take_their_own_road(splade: Path) -> None:
    chain = load(splade)
    lookup = SparseStaticEmbedding(tokenizer=chain.tokenizer, weight=torch.rand(30522))
    router = Router.for_query_document(query_modules=[lookup], document_modules=list(chain))
    model = SparseEncoder(modules=[router], device="cpu")
    model.encode_document([""])  # the pooling layer learns its width
    made = SparseModel(SentenceEncoder(model, precision="fp32"))
    assert np.allclose(
        made.encode(["a leak"], "query").toarray(),
        model.encode_query(["a leak"]).to_dense().numpy(),
        atol=1e-5,
    )
    assert np.allclose(
        made.encode(["a leak"], "document").toarray(),
        model.encode_document(["a leak"]).to_dense().numpy(),
        atol=1e-5,
    )
    assert made.encode(["a leak"], "query").nnz == 2


# -- the cache -----------------------------------------------------------------------------------


def test_what_is_cached_is_not_computed_again(
    splade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    rows = loaded(splade, tmp_path).encode(CORPUS, "document")
    again = loaded(splade, tmp_path)
    computed = counted(again, monkeypatch)
    assert (again.encode(CORPUS[::-1], "document") != rows[::-1]).nnz == 0
    assert computed == []
    mixed = again.encode(["new", CORPUS[7], "new", CORPUS[1]], "document")
    assert computed == ["new"]  # the same new text twice is one text
    assert (mixed[[1, 3]] != rows[[7, 1]]).nnz == 0
    assert (mixed[0] != mixed[2]).nnz == 0
    again.encode(CORPUS[:3], "query")
    assert computed == ["new", *CORPUS[:3]]
    again.without_cache().encode(CORPUS[:1], "document")
    assert computed[4:] == CORPUS[:1]


def test_finished_blocks_survive_an_interruption(
    splade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 3)
    made = loaded(splade, tmp_path)
    real = made._engine.compute

    def killed(texts: Any, *more: Any) -> np.ndarray:
        if CORPUS[6] in texts:
            raise KeyboardInterrupt
        return real(texts, *more)

    monkeypatch.setattr(made._engine, "compute", killed)
    with pytest.raises(KeyboardInterrupt):
        made.encode(CORPUS, "document")
    resumed = loaded(splade, tmp_path)
    computed = counted(resumed, monkeypatch)
    resumed.encode(CORPUS, "document")
    assert computed == CORPUS[6:]


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_damaged_block_is_computed_again(splade: Path, tmp_path: Path, kept: int) -> None:
    rows = loaded(splade, tmp_path).encode(CORPUS, "document")
    path = next((tmp_path / "sparse").glob("*/*.npz"))
    path.write_bytes(path.read_bytes()[:kept])
    assert (loaded(splade, tmp_path).encode(CORPUS, "document") != rows).nnz == 0
    assert path.stat().st_size > 1000


def test_a_changed_model_in_the_same_folder_reuses_nothing(
    splade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(splade, tmp_path).encode(CORPUS, "document")
    model = load(splade)
    model.encode_document([""])
    with torch.no_grad():
        next(model.parameters())[0, 0] += 0.01
    changed = SparseModel(SentenceEncoder(model, precision="fp32"), tmp_path)
    computed = counted(changed, monkeypatch)
    changed.encode(CORPUS, "document")
    assert computed == CORPUS


def test_rows_without_a_fingerprint_are_refused(splade: Path, tmp_path: Path) -> None:
    loaded(splade, tmp_path).encode(CORPUS[:1], "document")
    next((tmp_path / "sparse").glob("*/fingerprint.json")).unlink()
    with pytest.raises(FingerprintError, match="without a fingerprint"):
        loaded(splade, tmp_path)


def test_the_fingerprint_is_small_and_tells_behaviour_apart(splade: Path) -> None:
    fingerprint = loaded(splade).fingerprint
    text = json.dumps(fingerprint.as_dict())
    assert len(text) < 20_000
    assert fingerprint.dimension == 30522
    read = Fingerprint.from_dict(json.loads(text), where="here")
    fingerprint.require(read, where="here", next_step="")
    other = tuple((first + 1.0, *rest) for first, *rest in read.probes)
    assert (
        "gives other vectors"
        in Fingerprint(
            **{**{n: getattr(read, n) for n in read.__dataclass_fields__}, "probes": other}
        ).differences(read)[0]
    )


# -- search --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retriever(splade: Path) -> SparseRetriever:
    corpus = Corpus.from_documents(
        Document(f"d{i}", text) for i, text in enumerate([*CORPUS, CORPUS[0]])
    )
    return SparseRetriever(loaded(splade), corpus)


QUERIES = [
    Query(f"q{i}", text)
    for i, text in enumerate(["alpha weakness", "memory leak", "root of the web list"])
]


def test_search_equals_sorting_every_inner_product(retriever: SparseRetriever) -> None:
    assert isinstance(retriever, Retriever)
    run = retriever.search(QUERIES, 4)
    left = retriever.model.encode([query.text for query in QUERIES], "query").toarray()
    right = retriever.model.encode([*CORPUS, CORPUS[0]], "document").toarray()
    for query, row in zip(QUERIES, np.round(left @ right.T, 4), strict=True):
        wanted = rank_hits(((f"d{i}", float(value)) for i, value in enumerate(row) if value > 0), 4)
        assert [doc_id for doc_id, _ in run.results[query.id]] == [doc_id for doc_id, _ in wanted]
        assert np.allclose(
            [value for _, value in run.results[query.id]], [value for _, value in wanted], atol=2e-4
        )
    assert run.top("q0", 1)[0] in {"d0", "d10"}  # the documents that have its words


def test_documents_that_share_no_word_are_no_results(retriever: SparseRetriever) -> None:
    scores = retriever.score([*QUERIES, Query("empty", "")])
    rows = (
        retriever.model.encode([*(query.text for query in QUERIES), ""], "query")
        @ retriever.postings
    )
    assert scores.dtype == np.float32
    assert np.array_equal(np.isinf(scores), rows.toarray() == 0)
    assert np.isinf(scores).any()


def test_only_eligible_documents_are_found(retriever: SparseRetriever) -> None:
    mask = np.arange(11) % 2 == 0
    run = retriever.restricted(lambda query: mask if query.id == "q0" else None).search(QUERIES, 11)
    assert {int(doc_id[1:]) % 2 for doc_id, _ in run.results["q0"]} == {0}
    assert run.results["q1"] == retriever.search(QUERIES, 11).results["q1"]


def test_the_size_is_that_of_the_postings(retriever: SparseRetriever) -> None:
    assert retriever.dimension == 30522
    assert retriever.nbytes == 8 * retriever.postings.nnz + 4 * 30523


# -- folders -------------------------------------------------------------------------------------


def test_sparse_folders_are_told_from_dense_ones(
    splade: Path, tiny_model: Path, minilm: Path, tmp_path: Path
) -> None:
    assert is_sparse(splade)
    assert not is_sparse(tiny_model)
    assert not is_sparse(minilm)
    assert not is_sparse(tmp_path)
    older = shutil.copytree(splade, tmp_path / "older")
    described = older / "config_sentence_transformers.json"
    described.write_text(
        json.dumps(
            {k: v for k, v in json.loads(described.read_text()).items() if k != "model_type"}
        )
    )
    assert is_sparse(older)
    described.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        is_sparse(older)


def test_a_dense_folder_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="holds no sparse model"):
        loaded(tiny_model)


def test_a_folder_without_safetensors_is_refused(splade: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(splade, tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no .safetensors weights .only pytorch_model.bin"):
        loaded(folder)


def test_a_missing_folder_is_told_from_a_model_name() -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_sparse(config.Model(name="./nowhere"), Path())
