"""The seam between nearer and anything that cuts documents into chunks.

A chunker of your own is a class with one method, made without arguments and named in nearer.yaml as
`"my_module:Halves"`::

    class Halves:
        def chunk(self, document):
            text, middle = document.content, len(document.content) // 2
            return [Chunk(text[:middle], 0, middle), Chunk(text[middle:], middle, len(text))]

A chunker that takes settings, as `tokens:200:50` does, or that counts tokens of the embedding model
has a classmethod `from_spec(spec)` as well.  `Cutter` is the short way there: a subclass says only
where to cut.  The tests in `tests/test_contract_chunkers.py` run over every chunker.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, runtime_checkable

from nearer.types import Document

Span = tuple[int, int]
#: The characters of each model token of a text, special tokens left out.
TokenSpans = Callable[[str], list[Span]]

_SIZE = re.compile(r"[1-9]\d{0,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document.  `start` and `end` are characters of `Document.content`."""

    text: str
    start: int
    end: int


@runtime_checkable
class Chunker(Protocol):
    """Anything that cuts documents, the same way every time; `name` is the spec that makes it again."""

    @property
    def name(self) -> str: ...

    def chunk(self, document: Document) -> list[Chunk]:
        """Chunks in order, at least one; every character of the content but spaces is in one of them."""


class UnknownSpecError(ValueError):
    """The arguments of a spec are not ones that this chunker has."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec taken apart: `tokens:200:50+title` has the name `tokens` and the arguments `200` and `50`.

    With `with_title` the title stands before every chunk of the body and is not counted.
    """

    text: str
    name: str
    arguments: tuple[str, ...]
    with_title: bool
    spans: TokenSpans

    @classmethod
    def parse(cls, text: str, spans: TokenSpans) -> Spec:
        plain = text.removesuffix("+title")
        name, *arguments = plain.split(":")
        return cls(text, name, tuple(arguments), plain != text, spans)

    @property
    def size(self) -> int:
        """The one argument of `sentences:48`.  Raises UnknownSpecError for anything else."""
        if len(self.arguments) != 1 or not _SIZE.fullmatch(self.arguments[0]):
            raise UnknownSpecError(self.text)
        return int(self.arguments[0])


class Cutter(ABC):
    """A chunker that says only where it cuts; titles and the space around chunks are seen to here.

    `forms` are the specs that it knows, as messages show them.
    """

    forms: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: Spec) -> None:
        self.name = spec.text
        self.spans = spec.spans
        self._with_title = spec.with_title

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """The chunker of a spec.  Raises UnknownSpecError for arguments that it does not have."""
        return cls(spec)

    @abstractmethod
    def split(self, text: str) -> Iterable[Span]:
        """Spans that tile a text, or overlap; with `+title` the text is the body alone."""

    def chunk(self, document: Document) -> list[Chunk]:
        """Chunks in order, at least one."""
        title, body = self._title_and_body(document)
        chunks = []
        for start, end in _trimmed(body, self.split(body)):
            chunks.append(Chunk(title + body[start:end], len(title) + start, len(title) + end))
        return chunks

    def _title_and_body(self, document: Document) -> tuple[str, str]:
        """What stands before every chunk, and what is cut."""
        content = document.content
        if not self._with_title or not document.title.strip():
            return "", content
        body_starts = len(document.title.lstrip()) + 1
        if body_starts >= len(content):
            return "", content
        return content[:body_starts], content[body_starts:]


def _trimmed(text: str, spans: Iterable[Span]) -> list[Span]:
    """Spans without the space at their ends, empty ones left out; a text of one span stays as it is."""
    tiles = list(spans)
    kept: list[Span] = []
    for start, end in tiles:
        piece = text[start:end]
        if piece.strip():
            kept.append((end - len(piece.lstrip()), start + len(piece.rstrip())))
    if len(tiles) < 2 or not kept:
        return [(0, len(text))]
    return kept
