"""What each chunker is for, and late vectors, which see the whole document; what all do: test_contract_chunkers.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer

from model_kit import two_layers
from nearer.data.corpus import Corpus
from nearer.embed.encoder import SentenceEncoder
from nearer.errors import ConfigError, ModelError, SearchSystemError
from nearer.search import late
from nearer.search.chunkers import Chunk, Chunked, chunk_corpus, make_chunker
from nearer.search.chunkers.structure import sentence_ends
from nearer.search.late import allows_late, late_vectors
from nearer.text import token_spans
from nearer.types import Document
from test_contract_chunkers import MARKDOWN, odd, texts

#: Whole sentences of chonkie may be longer than the size: it says so.
SIZED = (
    "tokens:4:0",
    "tokens:8:2",
    "tokens:1:0",
    "sentences:5",
    "recursive:6",
    "semchunk:6",
    "chonkie:TokenChunker:6",
)


_SEPARATORS = set("\x1c\x1d\x1e\x1f")


@pytest.fixture(scope="module")
def model(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two layers of MiniLM with all of its words: what is a token is the point here."""
    folder = two_layers(minilm, tmp_path_factory.mktemp("whole") / "model", length=64)
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def encoder(model: Any) -> SentenceEncoder:
    return SentenceEncoder(model, precision="fp32")


@pytest.fixture(scope="module")
def corpus(small_data: Path) -> Corpus:
    return Corpus.open(small_data / "corpus.jsonl")


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SIZED)
@settings(deadline=None, max_examples=50)
@given(title=st.just(""), text=texts)
@odd
def test_chunks_have_at_most_the_tokens_asked_for(spec: str, title: str, text: str) -> None:
    # semchunk takes the separators of files and records for blanks and does not count them.
    assume(not (spec.startswith("semchunk") and _SEPARATORS & set(text)))
    size = next(int(part) for part in spec.split(":") if part.isdigit())
    chunks = make_chunker(spec, token_spans).chunk(Document("d", text, title))
    assert all(len(token_spans(chunk.text)) <= size for chunk in chunks)


@settings(deadline=None, max_examples=50)
@given(text=texts, size=st.integers(1, 9))
def test_sizes_hold_where_a_character_is_several_tokens(text: str, size: int) -> None:
    for spec in (f"tokens:{size}", f"sentences:{size}", f"recursive:{size}"):
        for chunk in make_chunker(spec, byte_spans).chunk(Document("d", text)):
            assert len(chunk.text.encode()) <= size or len(chunk.text) == 1 or not text.strip()


def byte_spans(text: str) -> list[tuple[int, int]]:
    """Tokens as a byte-level tokenizer makes them: several share a character."""
    return [(place, place + 1) for place, character in enumerate(text) for _ in character.encode()]


# --- what each of them is for ----------------------------------------------------------------------


def chunked_texts(spec: str, text: str, title: str = "") -> list[str]:
    return [
        chunk.text for chunk in make_chunker(spec, token_spans).chunk(Document("d", text, title))
    ]


def test_windows_share_what_was_asked_for_and_end_at_a_space() -> None:
    numbers = [str(n) for n in range(100)]
    assert chunked_texts("tokens:40:10", " ".join(numbers)) == [
        " ".join(numbers[start : start + 40]) for start in (0, 30, 60)
    ]
    pieces = chunked_texts("tokens:9:0", "one two un-be-liev-able three four five")
    assert pieces == ["one two un-be-liev-able", "three four five"]


def test_sentences_end_where_a_reader_would_end_them() -> None:
    sentences = [
        "Dr. J. Smith paid 3.14 dollars, e.g. for tea in the U.S. market.",
        "Was it good?",
        '"It was."',
        "See Fig. 3 and p. 7, approx. half…",
        "1. Unpack it.",
        "2. Read on\nto the end.",
        "Здравствуй, мир!",
        "यह एक वाक्य है।",
        "Ende",
    ]
    text = (
        " ".join(sentences[:4])
        + "\r\n"
        + "\n".join(sentences[4:6])
        + "\n\n"
        + " ".join(sentences[6:])
    )
    wanted = [*sentences, "東京は首都です。", "人口は多い。", "終わり"]
    cuts = [0, *sentence_ends(text + "\n\n東京は首都です。人口は多い。終わり")]
    full = text + "\n\n東京は首都です。人口は多い。終わり"
    assert [
        full[start:end].strip() for start, end in zip(cuts, [*cuts[1:], len(full)], strict=True)
    ] == wanted


def test_whole_sentences_are_packed_and_only_longer_ones_are_cut() -> None:
    text = "One two three. Four five six. Seven. " + "Word " * 12 + "end. Last one."
    assert chunked_texts("sentences:8", text) == [
        "One two three. Four five six.",
        "Seven.",
        "Word Word Word Word Word Word Word Word",
        "Word Word Word Word end.",
        "Last one.",
    ]


def test_structure_is_cut_before_lines_and_a_heading_stays_with_its_text() -> None:
    assert chunked_texts("recursive:20", MARKDOWN) == [
        "# Guide\r\n\r\nDr. Smith paid 3.14 dollars, e.g. for tea.",
        "Was it good? It was.\r\n\r\n## Setup\r\n\r\n1. Unpack the box.",
        "2. Read this page to the end, please, before you begin.\r\nIt is short.",
    ]


def test_every_chunk_of_the_body_carries_the_title() -> None:
    chunks = make_chunker("tokens:3:0+title", token_spans).chunk(
        Document("d", "one two three four", " The title")
    )
    assert chunks == [Chunk("The title one two three", 10, 23), Chunk("The title four", 24, 28)]


# --- specs, libraries, classes of one's own ----------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "tokens",
        "tokens:0",
        "tokens:a",
        "tokens:8:8",
        "tokens:8:2:1",
        "sentences:8:2",
        "document:3",
        "lines:8",
        "tokens:8+titel",
        "+title",
        "chonkie:LateChunker:8",
        "chonkie:RecursiveChunker",
        "semchunk:-1",
        "my_module:Class+title",
        "recursive:８",
    ],
)
def test_an_unknown_spec_names_the_known_ones(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_chunker(spec, token_spans)
    assert repr(spec) in caught.value.what
    assert "recursive:SIZE" in str(caught.value.next_step)


@pytest.mark.parametrize("spec", ["semchunk:8", "chonkie:TokenChunker:8"])
def test_a_missing_library_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.setitem(sys.modules, spec.partition(":")[0], None)
    with pytest.raises(ConfigError, match=r"pip install 'nearer\[chunkers\]'"):
        make_chunker(spec, token_spans)


OWN = """
from nearer.search.chunkers import Chunk

class Halves:
    def chunk(self, document):
        middle = len(document.content) // 2
        return [Chunk(document.content[:middle], 0, middle), Chunk("…" + document.content[middle:], middle, len(document.content))]

class Outside:
    def chunk(self, document):
        return [Chunk(document.content, 0, len(document.content) + 1)]

class Broken:
    def chunk(self, document):
        return document.words

class Nothing:
    def chunk(self, document):
        return []
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own_chunkers.py").write_text(OWN)
    sys.modules.pop("own_chunkers", None)
    return tmp_path


def test_a_class_of_ones_own_cuts_like_ours(own: Path) -> None:
    chunker = make_chunker("own_chunkers:Halves", token_spans, own)
    assert chunker.name == "own_chunkers:Halves"
    assert chunker.chunk(Document("d", "abcd")) == [Chunk("ab", 0, 2), Chunk("…cd", 2, 4)]
    corpus = Corpus.from_documents([Document("1", "abcd"), Document("2", "efgh")])
    assert list(chunk_corpus(corpus, chunker).texts) == ["ab", "…cd", "ef", "…gh"]
    assert make_chunker("own_chunkers:Nothing", token_spans, own).chunk(Document("d", "abcd")) == [
        Chunk("abcd", 0, 4)
    ]


@pytest.mark.parametrize(
    ("name", "problem"), [("Outside", "0:5 is outside"), ("Broken", "AttributeError: .* 'words'")]
)
def test_what_a_class_does_wrong_is_told_with_the_document(
    own: Path, name: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"document 'd'.*{problem}"):
        make_chunker(f"own_chunkers:{name}", token_spans, own).chunk(Document("d", "abcd"))
    with pytest.raises(SearchSystemError, match="has no Absent"):
        make_chunker("own_chunkers:Absent", token_spans, own)


# --- a whole corpus ----------------------------------------------------------------------------------


def test_an_empty_document_has_one_empty_chunk() -> None:
    chunked = chunk_corpus(
        Corpus.from_documents([Document("1", "a b c"), Document("2", ""), Document("3", "d")]),
        make_chunker("tokens:2:0", token_spans),
    )
    assert list(chunked.texts) == ["a b", "c", "", "d"]
    assert chunked.owners.tolist() == [0, 0, 1, 2]
    assert chunked.starts.tolist() == [0, 2, 3]


def test_a_document_is_read_once_for_all_its_chunks(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked = chunk_corpus(corpus, make_chunker("tokens:16", token_spans))
    read: list[int] = []
    original = Corpus.__getitem__
    monkeypatch.setattr(
        Corpus,
        "__getitem__",
        lambda self, position: read.append(position) or original(self, position),
    )
    assert len(list(chunked.texts)) > 2 * len(corpus)
    assert read == list(range(len(corpus)))


# --- tokens of a model -------------------------------------------------------------------------------


def test_tokens_of_a_model_are_counted_without_special_ones_and_not_cut(
    encoder: SentenceEncoder,
) -> None:
    text = "unbelievably good " * 50
    spans = encoder.token_spans(text)
    assert len(spans) == int(encoder.token_counts([text])[0]) - 2 > 64
    assert "|".join(text[start:end] for start, end in spans[:6]) == "un|bel|ie|va|bly|good"
    before = encoder.encode([text], "document")
    encoder.token_spans(text)
    assert np.array_equal(encoder.encode([text], "document"), before)


def test_a_static_models_tokenizer_keeps_its_own_limit(minilm: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    encoder = SentenceEncoder(
        SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu"),
        precision="fp32",
    )
    before = encoder.encode(["one two " * 20], "document")
    assert len(encoder.token_spans("one two " * 20)) == 40
    assert np.array_equal(encoder.encode(["one two " * 20], "document"), before)
    assert not allows_late(encoder)


def test_words_stand_in_where_the_tokenizer_does_not_tell(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "model", object())
    assert (
        encoder.token_spans("a b-c 東京")
        == token_spans("a b-c 東京")
        == [(0, 1), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8)]
    )


@pytest.mark.parametrize(
    "spec", ["tokens:16", "sentences:16", "recursive:16", "semchunk:16", "chonkie:TokenChunker:16"]
)
def test_chunks_hold_at_most_the_models_tokens(
    encoder: SentenceEncoder, corpus: Corpus, spec: str
) -> None:
    chunked = chunk_corpus(
        Corpus.from_documents(corpus[position] for position in range(20)),
        make_chunker(spec, encoder.token_spans),
    )
    lengths = encoder.token_counts(chunked.texts) - 2
    # Cut inside a word, its rest may need another token than it did in the word.
    assert lengths.max() <= 16 + (2 if spec.startswith("chonkie") else 0)
    assert lengths.mean() > 8 or spec.startswith("s")


# --- late chunking -----------------------------------------------------------------------------------


def late_over(encoder: SentenceEncoder, spec: str, texts: list[str]) -> tuple[np.ndarray, Chunked]:
    corpus = Corpus.from_documents(Document(str(number), text) for number, text in enumerate(texts))
    chunked = chunk_corpus(corpus, make_chunker(spec, encoder.token_spans))
    return late_vectors(encoder, corpus, chunked), chunked


SHORT = [
    "An attacker can read files.",
    "",
    "  ",
    "東京 🎉",
    "The buffer overflows, and then nothing holds it back.",
]


def test_a_chunk_that_is_the_whole_document_has_its_plain_vector(encoder: SentenceEncoder) -> None:
    vectors, chunked = late_over(encoder, "document", SHORT)
    assert vectors.dtype == np.float32
    assert np.sum(vectors * encoder.encode(chunked.texts, "document"), axis=1) == pytest.approx(
        1, abs=1e-4
    )


def test_prompts_and_excluded_prompts_are_pooled_as_the_model_does(model: Any) -> None:
    for included in (True, False):
        twin = SentenceTransformer(
            modules=[model[0], Pooling(384, include_prompt=included)],
            device="cpu",
            similarity_fn_name="dot",
        )
        encoder = SentenceEncoder(twin, document_prompt="passage of text: ", precision="fp32")
        vectors, chunked = late_over(encoder, "document", [SHORT[0], SHORT[4]])
        assert np.allclose(vectors, encoder.encode(chunked.texts, "document"), atol=1e-4)


def test_a_chunk_knows_its_document(encoder: SentenceEncoder) -> None:
    texts = [f"{city} is large. It has many parks." for city in ("Berlin", "Lima")]
    vectors, chunked = late_over(encoder, "sentences:5", texts)
    assert list(chunked.texts) == [
        "Berlin is large.",
        "It has many parks.",
        "Lima is large.",
        "It has many parks.",
    ]
    assert not np.allclose(vectors[1], vectors[3], atol=1e-3)
    plain = encoder.encode(chunked.texts, "document")
    assert np.allclose(plain[1], plain[3], atol=1e-6)


def test_tokens_of_a_long_document_count_once_in_whichever_window(
    minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without layers and positions a token's vector depends on the token alone, so windows must not matter."""
    import torch

    model = SentenceTransformer(str(minilm), device="cpu", local_files_only=True)
    model[0].model.encoder.layer = torch.nn.ModuleList()
    model[0].model.embeddings.position_embeddings.weight.data.zero_()
    encoder = SentenceEncoder(model, precision="fp32", batch_tokens=200)
    texts = [" ".join(f"word{n} unbelievably" for n in range(length)) for length in (0, 3, 20, 90)]
    vectors, chunked = late_over(encoder, "tokens:20:5", texts)
    assert len(vectors) > 30
    for window in (12, 13, 40):
        monkeypatch.setattr(late, "_window", lambda model, window=window: window)
        windowed, _ = late_over(encoder, "tokens:20:5", texts)
        assert np.allclose(windowed, vectors, atol=1e-5)
    inner = slice(
        int(chunked.starts[3]) + 1, len(vectors) - 1
    )  # without the special tokens of the first and the last
    counted = [
        model.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in chunked.texts[inner]
    ]
    table = model[0].model.embeddings
    with torch.inference_mode():
        wanted = torch.stack([table(torch.tensor([ids]))[0].mean(0) for ids in counted])
    assert np.allclose(
        vectors[inner], torch.nn.functional.normalize(wanted, dim=-1).numpy(), atol=1e-5
    )


def test_a_window_is_as_long_as_the_models_positions(model: Any) -> None:
    assert model.max_seq_length == 64
    assert late._window(model) == 512
    table = model[0].model.embeddings.position_embeddings
    table.padding_idx = 1
    try:
        assert late._window(model) == 510
    finally:
        table.padding_idx = None


def test_late_vectors_are_cached_apart_from_plain_ones(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SentenceEncoder(model, precision="fp32", cache=tmp_path)
    plain = encoder.encode(["One thing. Another thing."], "document")
    vectors, _ = late_over(encoder, "sentences:3", ["One thing. Another thing.", "One thing."])
    monkeypatch.setattr(late, "_embedded", lambda *_: pytest.fail("computed again"))
    again, _ = late_over(encoder, "sentences:3", ["One thing. Another thing.", "One thing."])
    assert np.array_equal(again, vectors)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3)
    assert np.array_equal(encoder.encode(["One thing. Another thing."], "document"), plain)


def test_other_poolings_do_not_allow_it(model: Any) -> None:
    encoder = SentenceEncoder(
        SentenceTransformer(modules=[model[0], Pooling(384, "cls")], device="cpu"), precision="fp32"
    )
    assert not allows_late(encoder)
    with pytest.raises(ModelError, match="does not allow late chunking"):
        late_over(encoder, "document", ["a"])
