"""Vectors kept small: fewer components, and fewer bits per component.

Each row is compressed by itself, so that rows can be appended later without touching the others.
Queries stay float32 (cut like the documents); only what is stored loses precision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from nearer.embed.base import of_length_one
from nearer.errors import ConfigError

Dtype = Literal["float32", "float16", "int8", "binary"]

_SCALE = 4  # bytes of the float32 that stands before an int8 row
_BLOCK = 8192  # rows decoded at once
_SPEC = re.compile(rf"({'|'.join(get_args(Dtype))})(?:@([1-9]\d{{0,5}}))?")


@dataclass(frozen=True, slots=True)
class Compression:
    """How vectors are stored.  Its text parses back: `float32`, `int8`, `binary@192`, …

    `dimension` is how many of the first components are kept (None: all of them).
    """

    dtype: Dtype = "float32"
    dimension: int | None = None

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Raises ConfigError for anything that is not a known type with an optional `@dimension`."""
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"unknown compression {text!r}",
                next_step=f"use {', '.join(get_args(Dtype))}, each with an optional dimension such as int8@128",
            )
        dtype, dimension = match.groups()
        return cls(dtype, int(dimension) if dimension else None)  # type: ignore[arg-type]  # the pattern knows the types

    def __str__(self) -> str:
        if self.dimension is None:
            return self.dtype
        return f"{self.dtype}@{self.dimension}"

    def in_whole_bytes(self, dimension: int) -> Compression | None:
        """The same of as many first components as fill bytes; None where they fill none."""
        if self.dtype != "binary" or self.dimension is not None or dimension % 8 == 0:
            return self
        kept = dimension - dimension % 8
        return Compression(self.dtype, kept) if kept else None

    def width(self, dimension: int) -> int:
        """Components kept of vectors of `dimension`.  Raises ConfigError where they cannot be kept so."""
        kept = dimension if self.dimension is None else self.dimension
        if kept > dimension:
            raise ConfigError(
                f"the vectors have {dimension} components",
                where=str(self),
                next_step=f"use {self.dtype}@{dimension} or less",
            )
        if self.dtype == "binary" and kept % 8:
            raise ConfigError(
                f"{kept} bits do not fill bytes",
                where=str(self),
                next_step=f"use binary@{kept - kept % 8 or 8}",
            )
        return kept

    def row_bytes(self, dimension: int) -> int:
        """Bytes per stored row of vectors of `dimension`."""
        kept = self.width(dimension)
        sizes = {
            "float32": 4 * kept,
            "float16": 2 * kept,
            "int8": _SCALE + kept,
            "binary": kept // 8,
        }
        return sizes[self.dtype]


def cut(vectors: np.ndarray, spec: Compression, similarity: str) -> np.ndarray:
    """The first components of each row, float32 (n, kept), back at length 1 where similarity is cosine.

    Kusupati et al., *Matryoshka Representation Learning*, NeurIPS 2022.  Any model's vectors can be
    cut; those of a model trained for it lose least.
    """
    kept = spec.width(vectors.shape[1])
    short = np.asarray(vectors[:, :kept], np.float32)
    if kept < vectors.shape[1] and similarity == "cosine":
        short = of_length_one(short)
    return np.ascontiguousarray(short)


def encode_rows(vectors: np.ndarray, spec: Compression, similarity: str) -> np.ndarray:
    """Rows as they are stored, from float32 (n, dimension); vectors that were cut already stay as they are.

    float32 and float16: (n, kept).  int8: (n, 4 + kept) int8, a little-endian float32 scale before
    the components, value = scale × component, the largest at ±127.  binary: (n, kept / 8) uint8,
    the signs packed by `np.packbits`.
    """
    vectors = cut(vectors, spec, similarity)
    if spec.dtype == "binary":
        return np.packbits(vectors > 0, axis=1)
    if spec.dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        scales = largest.astype("<f4") / np.float32(127)
        divisors = np.where(scales > 0, scales, 1)
        values = np.rint(vectors / divisors)
        scale_bytes = scales.astype("<f4").view(np.int8)
        return np.hstack([scale_bytes, values.astype(np.int8)])
    return vectors.astype(spec.dtype)


def decode_rows(stored: np.ndarray, spec: Compression) -> np.ndarray:
    """float32 (n, kept) of stored rows; binary rows come back as signs, scaled to length 1."""
    if spec.dtype == "binary":
        bits = np.unpackbits(stored, axis=1).astype(np.float32)
        signs = bits * 2 - 1
        length = np.sqrt(signs.shape[1])
        return np.asarray(signs / length, np.float32)
    if spec.dtype == "int8":
        scales = np.ascontiguousarray(stored[:, :_SCALE]).view("<f4")
        return np.asarray(scales * stored[:, _SCALE:], np.float32)
    return np.asarray(stored, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """Document vectors in stored form, ready to be searched."""

    stored: np.ndarray
    spec: Compression
    similarity: str

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def row_bytes(self) -> int:
        return int(self.stored.shape[1]) * self.stored.itemsize

    @property
    def nbytes(self) -> int:
        return len(self.stored) * self.row_bytes

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Approximate inner products, float32 (n_queries, n_rows), of float32 queries of the full dimension."""
        short = cut(queries, self.spec, self.similarity)
        scores = np.empty((len(short), len(self)), np.float32)
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            rows = decode_rows(self.stored[block], self.spec)
            scores[:, block] = short @ rows.T
        return scores


def compress(vectors: np.ndarray, spec: Compression, similarity: str) -> Compressed:
    """Float32 vectors (n, dimension) in the stored form of `spec`; `similarity` is `cosine` or `dot`."""
    return Compressed(encode_rows(vectors, spec, similarity), spec, similarity)
