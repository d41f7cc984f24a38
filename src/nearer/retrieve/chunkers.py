"""Documents cut into chunks, with character offsets: what is embedded when documents are too long.

A chunker is named by a specification that parses back: `document`, `tokens:SIZE:OVERLAP`,
`sentences:SIZE`, `recursive:SIZE`, each also with `+title`, `semchunk:SIZE`, `chonkie:CLASS:SIZE`,
or `module:Class` of your own, which needs a `chunk(document)` like ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nearer import progress
from nearer.errors import ConfigError
from nearer.retrieve.external import import_from
from nearer.types import Document

Span = tuple[int, int]
#: Character span of each token of a text, special tokens left out.
TokenSpans = Callable[[str], list[Span]]

KNOWN = (
    "document, tokens:SIZE:OVERLAP, sentences:SIZE, recursive:SIZE (each also with +title), semchunk:SIZE, chonkie:CLASS:SIZE, module:Class"
)
#: An end of a sentence: a full stop or its kin, closing quotes, then space; CJK enders need no space.
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\s\d]|\d+[^.\d])|(?<=[。！？])|\n+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|no|fig|mr|mrs|ms|dr|prof|st|al|approx|dept|inc|ltd|vol)|\b[A-Z])\.$", re.IGNORECASE
)
#: Borders from coarse to fine that `recursive` tries in turn: blank lines and headings, lines, sentences.
_STRUCTURE = (re.compile(r"\n\s*\n|\n(?=#{1,6} |\d+(?:\.\d+)*[.)] )"), re.compile(r"\n"))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: what is embedded, and where it lies in `Document.content` (characters)."""

    text: str
    start: int
    end: int


@runtime_checkable
class Chunker(Protocol):
    """Cuts a document; content gives at least one chunk, and every word of it lies in some chunk."""

    name: str

    def chunk(self, document: Document) -> list[Chunk]: ...


@dataclass(frozen=True, slots=True)
class SpanChunker:
    """A chunker made of a function text → spans; with `title` every chunk starts with the document's title."""

    name: str
    cut: Callable[[str], list[Span]]
    title: bool = False

    def chunk(self, document: Document) -> list[Chunk]:
        content = document.content
        offset = len(content) - len(document.text) if self.title and document.title else 0
        prefix = f"{document.title} " if offset else ""
        body = content[offset:]
        spans = [(start + offset, end + offset) for start, end in (_trim(body, span) for span in self.cut(body)) if start < end]
        if not spans:
            return [Chunk(content, 0, len(content))]
        return [Chunk(prefix + content[start:end], start, end) for start, end in spans]


def make_chunker(spec: str, spans: TokenSpans, root: Path | None = None) -> Chunker:
    """The chunker that a specification names; `spans` counts in the model's tokens.

    Raises ConfigError for an unknown one, or where the library behind it is not installed.
    """
    plain, plus, _ = spec.partition("+title")
    kind, *rest = plain.split(":")
    if kind == "document" and not rest:
        return SpanChunker(spec, lambda text: [(0, len(text))])
    if kind not in ("tokens", "sentences", "recursive", "semchunk", "chonkie"):
        return _own(spec, root)
    sizes = [int(number) for number in rest if number.isdigit()]
    overlap = sizes[1] if len(sizes) > 1 else sizes[0] // 4 if sizes else 0
    if not sizes or sizes[0] < 1 or overlap >= sizes[0] or len(sizes) + (kind == "chonkie") != len(rest):
        raise ConfigError(f"no chunker called {spec!r}", where="chunker", next_step=f"use one of {KNOWN}")
    size = sizes[0]
    makers: dict[str, Callable[[], Callable[[str], list[Span]]]] = {
        "tokens": lambda: lambda text: _windows(spans(text), size, overlap),
        "sentences": lambda: lambda text: _packed(_sentences(text), spans(text), size),
        "recursive": lambda: lambda text: _recursive(text, spans(text), size),
        "semchunk": lambda: _semchunk(spans, size),
        "chonkie": lambda: _chonkie(rest[0], size),
    }
    return SpanChunker(spec, makers[kind](), bool(plus))


def _own(spec: str, root: Path | None) -> Chunker:
    if ":" not in spec:
        raise ConfigError(f"no chunker called {spec!r}", where="chunker", next_step=f"use one of {KNOWN}")
    made: Any = import_from(spec, root or Path.cwd(), "chunker")()
    if not hasattr(made, "chunk"):
        raise ConfigError("this class has no chunk(document)", where=spec, next_step="see nearer.retrieve.chunkers.Chunker")
    made.name = spec
    chunker: Chunker = made
    return chunker


# -- cutting: every function gives spans in order ------------------------------------------------------


def _trim(text: str, span: Span) -> Span:
    piece = text[span[0] : span[1]]
    return span[0] + len(piece) - len(piece.lstrip()), span[1] - len(piece) + len(piece.rstrip())


def _windows(tokens: Sequence[Span], size: int, overlap: int) -> list[Span]:
    """Windows of `size` tokens, each sharing `overlap` with the one before."""
    if not tokens:
        return []
    starts = range(0, max(1, len(tokens) - overlap), size - overlap)
    return [(tokens[first][0], tokens[min(first + size, len(tokens)) - 1][1]) for first in starts]


def _split(text: str, span: Span, border: re.Pattern[str]) -> list[Span]:
    """The pieces of a span between borders; the border itself stays with the piece before it."""
    cuts = [span[0], *(match.end() for match in border.finditer(text, *span) if span[0] < match.end() < span[1]), span[1]]
    return list(pairwise(cuts))


def _sentences(text: str, span: Span | None = None) -> list[Span]:
    """Sentences of a text; an abbreviation does not end one."""
    found: list[Span] = []
    for start, end in _split(text, span or (0, len(text)), _SENTENCE):
        joins = found and _ABBREVIATION.search(text[found[-1][0] : found[-1][1]].rstrip())
        found = [*found[:-1], (found[-1][0], end)] if joins else [*found, (start, end)]
    return found


def _packed(pieces: Sequence[Span], tokens: Sequence[Span], size: int) -> list[Span]:
    """Neighbouring pieces joined while they stay within `size` tokens; a longer piece is cut by tokens."""
    firsts = np.array([start for start, _ in tokens], dtype=np.int64)
    packed: list[Span] = []
    counts: list[int] = []
    for start, end in pieces:
        low, high = (int(place) for place in np.searchsorted(firsts, (start, end)))
        if high - low > size:
            windows = _windows(tokens[low:high], size, 0)
            packed += windows
            counts += [size] * len(windows)
        elif packed and counts[-1] + high - low <= size:
            packed[-1], counts[-1] = (packed[-1][0], end), counts[-1] + high - low
        else:
            packed.append((start, end))
            counts.append(high - low)
    return packed


def _recursive(text: str, tokens: Sequence[Span], size: int) -> list[Span]:
    """Split by structure as far as needed, coarse borders first, then pack neighbours."""
    firsts = np.array([start for start, _ in tokens], dtype=np.int64)

    def fits(span: Span) -> bool:
        low, high = np.searchsorted(firsts, span)
        return bool(high - low <= size)

    pieces: list[Span] = [(0, len(text))]
    for border in _STRUCTURE:
        pieces = [part for piece in pieces for part in ([piece] if fits(piece) else _split(text, piece, border))]
    pieces = [part for piece in pieces for part in ([piece] if fits(piece) else _sentences(text, piece))]
    return _packed(pieces, tokens, size)


def _semchunk(spans: TokenSpans, size: int) -> Callable[[str], list[Span]]:
    try:
        from semchunk import chunkerify
    except ImportError:
        raise _extra("semchunk") from None
    cut = chunkerify(lambda text: len(spans(text)), size)
    return lambda text: list(map(tuple, cut(text, offsets=True)[1])) if text.strip() else []


def _chonkie(name: str, size: int) -> Callable[[str], list[Span]]:
    try:
        import chonkie
    except ImportError:
        raise _extra("chonkie") from None
    made = getattr(chonkie, name, None)
    if made is None or not name.endswith("Chunker"):
        raise ConfigError(f"chonkie has no {name}", where="chunker", next_step="for example chonkie:RecursiveChunker:128")
    cut = made(tokenizer="word", chunk_size=size)  # it counts words: its own splitters need a tokenizer that decodes
    return lambda text: [(chunk.start_index, chunk.end_index) for chunk in cut.chunk(text)] if text.strip() else []


def _extra(name: str) -> ConfigError:
    return ConfigError(f"{name} is not installed", where="chunker", next_step="pip install 'nearer[chunkers]'")


# -- a whole corpus -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunked:
    """The chunks of a corpus, in corpus order; texts are read again when they are needed.

    `starts` int64 (n_documents,) is the first chunk of each document, `spans` int32 (n_chunks, 2)
    where each lies in its document's content.  An empty document has one empty chunk.
    """

    starts: np.ndarray
    spans: np.ndarray
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.spans)

    def range(self, position: int) -> range:
        """The chunks of the document at a position."""
        stop = int(self.starts[position + 1]) if position + 1 < len(self.starts) else len(self.spans)
        return range(int(self.starts[position]), stop)


def chunk_corpus(corpus: Any, chunker: Chunker) -> Chunked:
    """Cut every document of a corpus (`nearer.data.corpus.Corpus`)."""
    spans: list[Span] = []
    counts = []
    with progress.task(f"cutting documents ({chunker.name})", len(corpus), "documents") as bar:
        for document in corpus:
            chunks = chunker.chunk(document)
            counts.append(len(chunks))
            spans += [(chunk.start, chunk.end) for chunk in chunks]
            bar.advance()
    starts = np.array([0, *accumulate(counts)][:-1], dtype=np.int64)
    return Chunked(starts, np.array(spans, dtype=np.int32).reshape(-1, 2), _Texts(corpus, chunker, starts, len(spans)))


class _Texts(Sequence[str]):
    """Texts of all chunks, cut again from the corpus a document at a time."""

    def __init__(self, corpus: Any, chunker: Chunker, starts: np.ndarray, count: int) -> None:
        self._corpus, self._chunker, self._starts, self._count = corpus, chunker, starts, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (chunk.text for document in self._corpus for chunk in self._chunker.chunk(document))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        place = range(self._count)[index]
        position = int(np.searchsorted(self._starts, place, "right")) - 1
        return self._chunker.chunk(self._corpus[position])[place - int(self._starts[position])].text
