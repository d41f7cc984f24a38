"""Small vectors: what is stored is what was asked for, and how near its scores come to exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearer.embed import compress as module
from nearer.embed.compress import Compression, Dtype, compress, cut, decode_rows, encode_rows
from nearer.errors import ConfigError

SPECS = ["float32", "float16", "int8", "binary", "float32@32", "int8@32", "binary@32"]


def unit(n: int, d: int = 64, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(
    st.sampled_from(["float32", "float16", "int8", "binary"]), st.none() | st.integers(1, 999_999)
)
def test_a_compression_parses_back_from_its_text(dtype: Dtype, dimension: int | None) -> None:
    spec = Compression(dtype, dimension)
    assert Compression.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text", ["", "int4", "int8@", "int8@0", "int8@-1", "int8@1.5", "INT8", "int8@128 ", "int8\n"]
)
def test_an_unknown_compression_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigError, match="float32, float16, int8, binary"):
        Compression.parse(text)


def test_more_components_than_the_model_has_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"float16@65: the vectors have 64 components\n.*float16@64"
    ):
        compress(unit(3), Compression("float16", 65), "cosine")


def test_bits_that_do_not_fill_bytes_are_refused() -> None:
    with pytest.raises(ConfigError, match="binary@24"):
        compress(unit(3), Compression("binary", 30), "cosine")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("float32", 256),
        ("float16", 128),
        ("int8", 68),
        ("binary", 8),
        ("int8@32", 36),
        ("binary@32", 4),
    ],
)
def test_the_size_is_that_of_what_is_stored(text: str, size: int) -> None:
    spec = Compression.parse(text)
    made = compress(unit(10), spec, "cosine")
    assert made.row_bytes == spec.row_bytes(64) == size
    assert made.nbytes == 10 * size == made.stored.nbytes


def test_cut_vectors_are_back_at_length_one_for_cosine_only() -> None:
    vectors = 3 * unit(5)
    spec = Compression("float32", 16)
    assert np.allclose(np.linalg.norm(cut(vectors, spec, "cosine"), axis=1), 1)
    assert np.array_equal(cut(vectors, spec, "dot"), vectors[:, :16])
    assert np.array_equal(cut(vectors, Compression(), "cosine"), vectors)


@pytest.mark.parametrize("text", SPECS)
def test_rows_appended_later_are_stored_as_they_would_have_been(text: str) -> None:
    spec, vectors = Compression.parse(text), unit(20)
    parts = [encode_rows(part, spec, "cosine") for part in (vectors[:7], vectors[7:])]
    assert np.array_equal(np.concatenate(parts), encode_rows(vectors, spec, "cosine"))


def test_float_rows_come_back_within_their_precision() -> None:
    vectors = unit(20)
    assert np.array_equal(
        decode_rows(encode_rows(vectors, Compression(), "cosine"), Compression()), vectors
    )
    half = Compression("float16")
    assert np.abs(decode_rows(encode_rows(vectors, half, "cosine"), half) - vectors).max() < 2**-11


@given(st.floats(1e-6, 1e6), st.integers(0, 99))
def test_int8_is_off_by_half_a_step_at_most(scale: float, seed: int) -> None:
    vectors = unit(4, seed=seed) * np.float32(scale)
    vectors[0] = 0
    spec = Compression("int8")
    back = decode_rows(encode_rows(vectors, spec, "dot"), spec)
    assert back.dtype == np.float32
    assert np.all(
        np.abs(back - vectors) <= np.abs(vectors).max(axis=1, keepdims=True) / 254 * 1.001
    )


def test_binary_keeps_the_signs() -> None:
    vectors, spec = unit(20), Compression("binary")
    back = decode_rows(encode_rows(vectors, spec, "cosine"), spec)
    assert np.array_equal(back > 0, vectors > 0)
    assert np.allclose(np.linalg.norm(back, axis=1), 1)


@pytest.mark.parametrize("text", SPECS)
def test_scores_are_inner_products_with_the_decoded_rows(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)
    spec, documents, queries = Compression.parse(text), unit(30), unit(5, seed=1)
    made = compress(documents, spec, "cosine")
    scores = made.scores(queries)
    assert scores.dtype == np.float32
    assert np.allclose(
        scores, cut(queries, spec, "cosine") @ decode_rows(made.stored, spec).T, atol=1e-6
    )


@pytest.mark.parametrize("text", SPECS)
def test_no_rows_find_nothing(text: str) -> None:
    made = compress(unit(0), Compression.parse(text), "cosine")
    assert made.nbytes == 0
    assert made.scores(unit(2)).shape == (2, 0)


@pytest.mark.parametrize(("text", "least"), [("float16", 0.99), ("int8", 0.97), ("binary", 0.5)])
def test_lossy_rows_still_find_the_nearest(text: str, least: float) -> None:
    # Clustered as real embeddings are: queries lie near the documents that answer them.
    centres = unit(40, seed=2)
    documents = np.repeat(centres, 25, axis=0) + 0.4 * unit(1000, seed=3)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries = centres + 0.4 * unit(40, seed=4)
    wanted = [set(np.argsort(-row)[:10]) for row in queries @ documents.T]
    rows = compress(documents, Compression.parse(text), "cosine").scores(queries)
    recall = np.mean(
        [
            len(best & set(np.argsort(-row)[:10])) / 10
            for best, row in zip(wanted, rows, strict=True)
        ]
    )
    assert recall >= least
