"""Cutting by other libraries, semchunk and chonkie, with the tokens of the embedding model.

Both come with `pip install 'nearer[chunkers]'`.  Of chonkie only the classes that need neither a
network nor a model of their own are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any, ClassVar

from nearer.errors import ConfigError
from nearer.search.chunkers.base import Cutter, Span, Spec, TokenSpans, UnknownSpecError
from nearer.search.chunkers.windows import TokenizedText

_CHONKIE_CLASSES = ("RecursiveChunker", "SentenceChunker", "TokenChunker")


class Semchunk(Cutter):
    """semchunk: splits at the largest separators that are needed, up to SIZE tokens."""

    forms: ClassVar = ("semchunk:SIZE",)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        size, spans = spec.size, spec.spans
        # Its memory of counts is global: it would hold the model for ever.
        self._chunker = _library("semchunk").chunkerify(
            lambda text: len(spans(text)), size, memoize=False
        )

    def split(self, text: str) -> list[Span]:
        _, offsets = self._chunker(text, offsets=True)
        spans: list[Span] = offsets
        return spans


class Chonkie(Cutter):
    """A class of chonkie, up to SIZE tokens; whole sentences of its SentenceChunker may be longer."""

    forms: ClassVar = ("chonkie:RecursiveChunker:SIZE",)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        class_name, *arguments = spec.arguments or ("",)
        size = replace(spec, arguments=tuple(arguments)).size
        if class_name not in _CHONKIE_CLASSES:
            raise UnknownSpecError(spec.text)
        tokenizer = _chonkie_tokenizer(spec.spans)
        self._chunker = getattr(_library("chonkie"), class_name)(tokenizer, chunk_size=size)

    def split(self, text: str) -> list[Span]:
        return [(chunk.start_index, chunk.end_index) for chunk in self._chunker.chunk(text)]


def _chonkie_tokenizer(spans: TokenSpans) -> Any:
    """The tokens of the embedding model as chonkie asks for them."""
    chonkie = _library("chonkie")

    class Pieces(chonkie.tokenizer.AutoTokenizer):  # type: ignore[misc, name-defined]
        """Its tokens are pieces of the text itself: joined again they have the length that offsets are made of."""

        def encode(self, text: str) -> list[str]:
            starts = TokenizedText(text, spans).starts
            borders = pairwise([0, *starts[1:], len(text)])
            return [text[start:end] for start, end in borders]

        def decode_batch(self, token_sequences: Sequence[Sequence[str]]) -> list[str]:
            return ["".join(tokens) for tokens in token_sequences]

    return Pieces(spans)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"{name} is not installed", where="chunker", next_step="pip install 'nearer[chunkers]'"
        ) from None
