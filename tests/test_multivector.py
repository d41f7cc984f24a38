"""Late interaction: a vector per token, scored by the best match of each query token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Normalize

from nearer import config, shortlist
from nearer.data.corpus import Corpus
from nearer.errors import ModelError
from nearer.search import multivector
from nearer.search.multivector import MultiVectorRetriever, is_multi_vector
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Query

QUERIES = [Query("a", "SQL injection in a login form"), Query("b", "a buffer that overflows")]


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens of the tiny model as they are, brought to length 1."""
    body = Transformer(str(tiny_model))
    body.max_seq_length = 32
    normalize = Normalize(module_input_name="token_embeddings")
    folder = tmp_path_factory.mktemp("models") / "late"
    encoder = MultiVectorEncoder(modules=[body, MultiVectorMask(), normalize], device="cpu")
    encoder.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def systems(small_data: Path, tiny_model: Path, model: Path) -> Systems:
    settings = config.build({"model": {"name": str(tiny_model)}, "fix": {"models": [str(model)]}})
    return Systems(settings, small_data, Corpus.open(small_data / "corpus.jsonl"))


def test_scores_are_those_of_sentence_transformers(systems: Systems, model: Path) -> None:
    assert is_multi_vector(model)
    assert systems.others.names == [str(model)]
    retriever = systems.multi_vector(str(model))
    assert isinstance(retriever, MultiVectorRetriever)
    scores = retriever.score(QUERIES)
    encoder = MultiVectorEncoder(str(model), device="cpu", local_files_only=True)
    rows = range(0, len(systems.corpus), 20)
    texts = list(systems.corpus.contents(rows))
    queries = encoder.encode_query([query.text for query in QUERIES], show_progress_bar=False)
    documents = encoder.encode_document(texts, show_progress_bar=False)
    expected = encoder.similarity(queries, documents)
    np.testing.assert_allclose(scores[:, list(rows)], np.asarray(expected), atol=2e-3)


def test_it_is_searched_whole_and_its_size_is_that_of_every_token(
    systems: Systems, model: Path
) -> None:
    pipeline = Pipeline(model=str(model))
    run = systems.retriever(pipeline).search(QUERIES, 5)
    assert [len(hits) for hits in run.results.values()] == [5, 5]
    size = systems.index_bytes(pipeline)
    plain = systems.index_bytes(Pipeline())
    assert size is not None
    assert plain is not None
    assert size > 10 * plain
    assert systems.embedding_cost(pipeline) is None


@pytest.mark.long
def test_one_that_nobody_named_is_tried_only_within_the_budget(
    small_data: Path, tiny_model: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlist, "carried", lambda: (model,))
    fix = {"models": "auto", "budget": 0.001}
    settings = config.build({"model": {"name": str(tiny_model)}, "fix": fix})
    systems = Systems(settings, small_data, Corpus.open(small_data / "corpus.jsonl"))
    assert str(model) not in systems.others.names
    (reason,) = [one.why for one in systems.others.untried if one.model == str(model)]
    assert "embedding the corpus takes about" in reason


def test_a_corpus_that_does_not_fit_into_memory_is_refused_before_it_is_encoded(
    systems: Systems, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multivector, "_MOST", 1000)
    retriever = systems.multi_vector(str(model))
    assert retriever is not None
    fresh = MultiVectorRetriever(retriever.model, systems.corpus)
    with pytest.raises(ModelError, match="a vector per token takes"):
        fresh.search(QUERIES, 5)
