"""The contract of the encoder seam, held to every encoder that can be named, and to one of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddings_kit import StandIn, serving
from generations_kit import WORDS, transformer_model
from nearer import config, plugins
from nearer.data.corpus import Corpus
from nearer.embed.base import Embedder, TextEncoder
from nearer.embed.cache import EmbeddingCache
from nearer.embed.fingerprint import Fingerprint
from nearer.embed.opening import open_encoder
from nearer.errors import ConfigError, FingerprintError, ModelError
from nearer.search.costs import embedding_cost
from nearer.search.dense import Dense
from nearer.types import Document, Query

OWN_MODULE = "contract_encoders"
OWN = f"{OWN_MODULE}:Letters"
OWN_SOURCE = """
class Letters:
    def encode(self, texts, kind):
        rows = []
        for text in texts:
            row = [float(text.count(letter)) for letter in "abcdefghilmnoprstuvy"]
            rows.append([1.0 + (kind == "query"), *row])
        return rows
"""
TEXTS = [f"{WORDS[i % 7]} {WORDS[i % 5]} {'and ' * (i % 4)}{WORDS[i % 3]}" for i in range(24)]

Settings = dict[str, config.Model]
Open = Callable[..., TextEncoder]

NAMES = [*plugins.names("encoder"), OWN]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{OWN_MODULE}.py").write_text(OWN_SOURCE)
    yield folder
    sys.modules.pop(OWN_MODULE, None)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with serving(StandIn()) as running:
        yield running


@pytest.fixture(scope="module")
def settings(root: Path, stand_in: StandIn) -> Settings:
    """The model section of every name; a new implementation says here what it needs."""
    model = str(transformer_model(root / "model"))
    return {
        "sentence_transformers": config.Model(name=model, precision="fp32", device="cpu"),
        "openai": config.Model(name="openai:words", url=stand_in.url, batch_texts=7),
        OWN: config.Model(name=OWN, batch_texts=7),
    }


@pytest.fixture
def load(root: Path, settings: Settings) -> Open:
    """`load(which, **more)`: the encoder of a name."""

    def loaded(which: str, **more: Any) -> TextEncoder:
        changed = {key: more.pop(key) for key in ("query_prompt", "dimension") if key in more}
        return open_encoder(settings[which].model_copy(update=changed), root, **more)

    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_per_text_in_their_order(load: Open, name: str) -> None:
    encoder = load(name)
    assert isinstance(encoder, Embedder)
    for kind in ("query", "document"):
        vectors = encoder.encode(TEXTS, kind)
        assert (vectors.shape, vectors.dtype) == ((len(TEXTS), encoder.dimension), np.float32)
        assert np.isfinite(vectors).all()
        if encoder.similarity == "cosine":
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert np.allclose(encoder.encode(TEXTS[::-1], kind)[::-1], vectors, atol=1e-5)
        alone = np.concatenate([encoder.without_cache().encode([text], kind) for text in TEXTS])
        assert np.allclose(alone, vectors, atol=1e-5)
        assert len(np.unique(vectors.round(4), axis=0)) > 10
        assert encoder.encode([], kind).shape == (0, encoder.dimension)
        assert np.isfinite(encoder.encode(["unheard", f" {WORDS[1]} "], kind)).all()


@pytest.mark.parametrize("name", NAMES)
def test_opened_again_and_read_back_it_is_the_same_space(load: Open, name: str) -> None:
    first, again = load(name), load(name, name="mine")
    assert first.fingerprint.same_space(again.fingerprint)
    assert first.fingerprint.id == again.fingerprint.id
    assert (again.name, again.dimension) == ("mine", len(first.fingerprint.probes[0]))
    stored = Fingerprint.from_dict(first.fingerprint.as_dict(), "here")
    assert stored.same_space(first.fingerprint)


@pytest.mark.parametrize("name", NAMES)
def test_saved_into_a_folder_it_comes_back(
    load: Open, root: Path, settings: Settings, tmp_path: Path, name: str
) -> None:
    encoder = load(name, query_prompt="find: ")
    encoder.save(tmp_path / "model")
    bare = config.Model(query_prompt="find: ", precision="fp32", device="cpu")
    back = open_encoder(bare, root, path=tmp_path / "model")
    assert back.fingerprint.same_space(encoder.fingerprint)
    assert np.allclose(back.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_part_of_the_space_and_of_the_text(load: Open, name: str) -> None:
    plain, prompted = load(name), load(name, query_prompt="pump ")
    assert not plain.fingerprint.same_space(prompted.fingerprint)
    with_prompt = plain.encode([f"pump {text}" for text in TEXTS], "query")
    assert np.allclose(prompted.encode(TEXTS, "query"), with_prompt, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_kept_vectors_are_the_computed_ones(load: Open, tmp_path: Path, name: str) -> None:
    kept = load(name, cache=tmp_path)
    vectors = kept.encode(TEXTS, "document")
    assert np.array_equal(load(name, cache=tmp_path).encode(TEXTS, "document"), vectors)
    assert np.allclose(kept.without_cache().encode(TEXTS[:3], "document"), vectors[:3], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_vectors_is_closed_to_another_model(
    load: Open, tmp_path: Path, name: str
) -> None:
    own = load(name).fingerprint
    EmbeddingCache(tmp_path, own)
    turned = tuple(probe[::-1] for probe in own.probes)
    with pytest.raises(FingerprintError, match="gives other vectors"):
        EmbeddingCache(tmp_path, replace(own, probes=turned))


@pytest.mark.parametrize("name", NAMES)
def test_it_tells_what_stages_ask(load: Open, name: str) -> None:
    encoder = load(name)
    counts = encoder.token_counts(["pump", "pump valve seal pressure leak"])
    assert counts.dtype == np.int64
    assert 0 < counts[0] < counts[1]
    spans = encoder.token_spans("pump valve")
    assert [("pump valve"[start:stop]) for start, stop in spans] == ["pump", "valve"]
    cost = embedding_cost(encoder, TEXTS, price=2.0)
    assert cost["documents"] == len(TEXTS)
    assert cost["tokens"] > len(TEXTS)
    assert cost["tokens_per_second"] > 0
    assert cost["bytes"] == 4 * len(TEXTS) * encoder.dimension
    assert encoder.precision.name in ("fp32", "unknown")
    assert len(encoder.vectors(TEXTS[:2], "query")) == 2


@pytest.mark.parametrize("name", NAMES)
def test_documents_are_found_by_their_own_words(load: Open, name: str) -> None:
    corpus = Corpus.from_documents(
        Document(f"d{i}", " ".join(WORDS[3 * i : 3 * i + 3])) for i in range(4)
    )
    queries = [Query(f"q{i}", " ".join(WORDS[3 * i : 3 * i + 3])) for i in range(4)]
    run = Dense(load(name), corpus).search(queries, 4)
    assert [run.top(f"q{i}", 1)[0] for i in range(4)] == [f"d{i}" for i in range(4)]


def test_an_installed_package_brings_an_encoder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root))
    point = EntryPoint("encoder.letters", OWN, plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: (point,))
    encoder = open_encoder(config.Model(name="letters:any"), root)
    assert encoder.encode(["abc"], "document").shape == (1, 21)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return [[1.0, 2.0]]", "an array of shape"),
        ("return [[float('nan'), 1.0]] * len(texts)", "not finite"),
        ("return [[0.0, 0.0]] * len(texts)", "zeros"),
        ("return 'rubbish'", "no numbers"),
        ("return [[1.0, 2.0], [1.0]]", "no numbers"),
        ("raise OSError('gone')", "encode raised OSError: gone"),
    ],
)
def test_what_a_class_gives_is_checked(tmp_path: Path, body: str, says: str) -> None:
    module = f"bad_encoder_{abs(hash(body))}"
    source = f"class Bad:\n    def encode(self, texts, kind):\n        {body}\n"
    (tmp_path / f"{module}.py").write_text(source)
    with pytest.raises(ModelError, match=says):
        open_encoder(config.Model(name=f"{module}:Bad"), tmp_path)


def test_a_class_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no_encoder.py").write_text("class Nothing: ...\n")
    with pytest.raises(ModelError, match=r"no encode\(texts, kind\)"):
        open_encoder(config.Model(name="no_encoder:Nothing"), tmp_path)
    with pytest.raises(ConfigError, match="names no model"):
        open_encoder(config.Model(name="openai:", url="http://localhost:1"), tmp_path)
