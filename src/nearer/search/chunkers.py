"""Documents cut into chunks that know where they lie, so that relevance stays with documents and spans.

A chunker is named by a spec, see `KNOWN`.  Sizes count tokens of the embedding model; a chunk is
cut between tokens (at a space where one is near), its ends are trimmed, and a document that fits
stays as it is.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError
from nearer.plugins import import_from
from nearer.types import Document

Span = tuple[int, int]
#: The characters of each model token of a text, special tokens left out.
TokenSpans = Callable[[str], list[Span]]
_Split = Callable[[str], Iterable[Span]]

#: Of chonkie the classes that need neither a network nor a model: RecursiveChunker, SentenceChunker, TokenChunker.
KNOWN = (
    "document, tokens:SIZE, tokens:SIZE:OVERLAP, sentences:SIZE, paragraphs:SIZE, recursive:SIZE, semchunk:SIZE, "
    "chonkie:RecursiveChunker:SIZE (each also with +title), or module:Class"
)
_SPEC = re.compile(
    r"(?:document|(tokens|sentences|paragraphs|recursive|semchunk|chonkie:(Recursive|Sentence|Token)Chunker):([1-9]\d{0,5})(?::(\d{1,6}))?)(\+title)?",
    re.ASCII,
)
_OWN = re.compile(
    r"(?!(?:document|tokens|sentences|paragraphs|recursive|semchunk|chonkie):)[\w.]+:[^\W\d]\w*"
)
_NEAR = 8  # tokens that a window gives up to end at a space

# A place to cut is where the next text begins: patterns take the space before it.
_HEADING = re.compile(r"^#{1,6}[^\S\n].*\s*", re.MULTILINE)
_BLANK_LINE = re.compile(r"(?>\r\n?|\n)[^\S\r\n]*[\r\n\u2029]\s*")
_LINE = re.compile(r"[\r\n\u2028\u2029]\s*")
_CLOSING = r"[\"'”’»)\]」』）]*"
_SENTENCE = re.compile(
    rf"(?P<stop>[.…]+){_CLOSING}(?:[^\S\r\n]+|[^\S\r\n]*\r?\n[^\S\r\n]*)(?=\S)|[!?؟۔।॥։።]+{_CLOSING}\s+|[。！？｡]+{_CLOSING}\s*"
    rf"|{_BLANK_LINE.pattern}|[\r\n]\s*(?=(?:[-*•–]|\d{{1,3}}[.)]|#{{1,6}})[^\S\r\n])"
)
#: What a full stop follows without ending a sentence: titles, references, initials, numbers of a list.
_ABBREVIATION = re.compile(
    r"(?:\b(?i:e\.g|i\.e|cf|vs|viz|approx|mrs?|ms|mme|drs?|prof|st|sr|jr|gen|col|capt|rev|figs?|eqs?|sec|vol|art|refs?|nr|pp|al|vgl|bzw)"
    r"|\bNos?|\b[^\W\d_]|^\s*\d{1,3})\.\Z",
    re.MULTILINE,
)


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


def make_chunker(spec: str, spans: TokenSpans, root: Path | None = None) -> Chunker:
    """The chunker of a spec; `spans` tells tokens, `root` is where the module of a class of your own is.

    With `+title` the title stands before every chunk of the body and is not counted.  Your class is
    made without arguments.  Raises ConfigError for an unknown spec and a missing library,
    SearchSystemError for a class that cannot be imported.
    """
    if not (found := _SPEC.fullmatch(spec)) and _OWN.fullmatch(spec):
        return _Own(spec, import_from(spec, root or Path(), "chunker"))
    kind, chonkie, number, shared, title = found.groups() if found else [""] * 5
    size, overlap = int(number or 1), int(shared) if shared else int(number or 0) // 4
    if not found or (shared and (kind != "tokens" or overlap >= size)):
        raise ConfigError(f"no chunker called {spec!r}", where="chunker", next_step=f"use {KNOWN}")
    if kind == "tokens":
        return _Cutter(
            f"tokens:{size}:{overlap}{title or ''}",
            lambda text: _windows(text, _starts(text, spans), size, overlap),
            title,
        )
    if kind == "paragraphs":
        return _Cutter(spec, lambda text: _paragraphs(text, _starts(text, spans), size), title)
    if kind == "semchunk":
        return _Cutter(spec, _semchunk(size, spans), title)
    if chonkie:
        return _Cutter(spec, _chonkie(f"{chonkie}Chunker", size, spans), title)
    levels = _structure if kind == "recursive" else _sentences
    return _Cutter(
        spec,
        (lambda text: _packed(text, _starts(text, spans), size, levels))
        if kind
        else (lambda text: [(0, len(text))]),
        title,
    )


@dataclass(frozen=True, slots=True)
class _Cutter:
    """A chunker over a function text → spans; with `title` it gets the body alone."""

    name: str
    split: _Split
    title: str | None

    def chunk(self, document: Document) -> list[Chunk]:
        content, base = document.content, 0
        if self.title and document.title.strip():
            base = len(document.title.lstrip()) + 1
        title, body = (content[:base], content[base:]) if base < len(content) else ("", content)
        return [
            Chunk(title + body[start:end], len(title) + start, len(title) + end)
            for start, end in _trimmed(body, self.split(body))
        ]


class _Own:
    """A class of the user's, its answers checked: wrong offsets would silently lose relevance by spans."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self._make, self._made = name, make, cast(Any, None)

    def chunk(self, document: Document) -> list[Chunk]:
        content = document.content
        try:
            self._made = self._made or self._make()
            found = [_within(chunk, len(content)) for chunk in self._made.chunk(document)]
        except Exception as error:
            problem, contract = (
                f"{type(error).__name__}: {error}",
                "a class made without arguments; chunk(document) gives a list of Chunk",
            )
            raise ConfigError(
                f"document {document.id!r}: {problem}", where=self.name, next_step=contract
            ) from error
        return found or [Chunk(content, 0, len(content))]


def _within(chunk: Any, length: int) -> Chunk:
    if not 0 <= chunk.start <= chunk.end <= length:
        raise ValueError(f"{chunk.start}:{chunk.end} is outside of document.content")
    return Chunk(str(chunk.text), int(chunk.start), int(chunk.end))


def _trimmed(text: str, spans: Iterable[Span]) -> list[Span]:
    """Spans without the space at their ends, empty ones left out; the whole text where it is not cut."""
    spans = list(spans)
    pieces = [(start, end, text[start:end]) for start, end in spans if text[start:end].strip()]
    found = [
        (end - len(piece.lstrip()), start + len(piece.rstrip())) for start, end, piece in pieces
    ]
    return found if found and len(spans) > 1 else [(0, len(text))]


# -- cutting by tokens and structure: spans tile the text, `starts` are the first characters of its tokens


def _starts(text: str, spans: TokenSpans) -> list[int]:
    return list(accumulate((start for start, _ in spans(text)), max))


def _windows(
    text: str, starts: Sequence[int], size: int, overlap: int, piece: Span | None = None
) -> Iterator[Span]:
    """Windows of at most `size` tokens of a piece (or all), each sharing about `overlap` with the one before."""
    begin, end = piece or (0, len(text))
    first, last = bisect_left(starts, begin), bisect_left(starts, end)
    while last - first > size and (stop := _border(text, starts, first, first + size)) < last:
        yield begin, starts[stop]
        first = _border(text, starts, first, max(stop - overlap, first + 1)) if overlap else stop
        begin = starts[first]
    yield begin, end


def _border(text: str, starts: Sequence[int], after: int, at: int) -> int:
    """The token before which to cut: at most `at`, near a space if possible, never inside a character."""
    near = [
        i
        for token in range(at, max(after, at - _NEAR), -1)
        if (i := bisect_left(starts, starts[token])) > after
    ]
    at_space = (i for i in near if any(map(str.isspace, text[starts[i] - 1 : starts[i] + 1])))
    return (
        next(at_space, near[0]) if near else bisect_right(starts, starts[at])
    )  # one character may be many tokens


def _packed(
    text: str, starts: Sequence[int], size: int, levels: Callable[[str], list[list[int]]]
) -> list[Span]:
    """Pieces cut no finer than needed, then neighbours joined up to `size` tokens."""

    def fits(start: int, end: int) -> bool:
        return bisect_left(starts, end) - bisect_left(starts, start) <= size

    pieces: list[Span] = [(0, len(text))]
    for cuts in levels(text) if not fits(0, len(text)) else ():
        inside = [
            () if fits(*piece) else cuts[bisect_right(cuts, piece[0]) : bisect_left(cuts, piece[1])]
            for piece in pieces
        ]
        pieces = [
            part
            for (start, end), places in zip(pieces, inside, strict=True)
            for part in pairwise((start, *places, end))
        ]
    packed: list[Span] = []
    for start, end in (
        window for piece in pieces for window in _windows(text, starts, size, 0, piece)
    ):
        packed.append(
            (packed.pop()[0], end) if packed and fits(packed[-1][0], end) else (start, end)
        )
    return packed


def _paragraphs(text: str, starts: Sequence[int], size: int) -> Iterator[Span]:
    """Every paragraph by itself, however short; one of more than `size` tokens in windows."""
    cuts = [match.end() for match in _BLANK_LINE.finditer(text) if match.end() < len(text)]
    for start, end in pairwise((0, *cuts, len(text))):
        yield from _windows(text, starts, size, 0, (start, end))


def _structure(text: str) -> list[list[int]]:
    """Places to cut from coarse to fine: headings, blank lines, lines, sentences; never just after a heading."""
    headings = list(_HEADING.finditer(text))
    kept = {heading.end() for heading in headings}
    ends = [[match.end() for match in pattern.finditer(text)] for pattern in (_BLANK_LINE, _LINE)]
    return [
        [cut for cut in cuts if cut not in kept]
        for cuts in ([heading.start() for heading in headings], *ends, *_sentences(text))
    ]


def _sentences(text: str) -> list[list[int]]:
    def goes_on(match: re.Match[str]) -> bool:
        before = max(0, match.start() - 16), match.start() + 1
        return match["stop"] is not None and (
            text[match.end()].islower() or bool(_ABBREVIATION.search(text, *before))
        )

    return [
        [
            match.end()
            for match in _SENTENCE.finditer(text)
            if match.end() < len(text) and not goes_on(match)
        ]
    ]


# -- cutting by other libraries


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"{name} is not installed", where="chunker", next_step="pip install 'nearer[chunkers]'"
        ) from None


def _semchunk(size: int, spans: TokenSpans) -> _Split:
    # Its memory of counts is global: it would hold the model for ever.
    chunker = _library("semchunk").chunkerify(lambda text: len(spans(text)), size, memoize=False)
    return lambda text: chunker(text, offsets=True)[1]


def _chonkie(name: str, size: int, spans: TokenSpans) -> _Split:
    chonkie = _library("chonkie")

    class Pieces(chonkie.tokenizer.AutoTokenizer):  # type: ignore[misc, name-defined]
        """Its tokens are pieces of the text itself: joined again they have the length that offsets are made of."""

        def encode(self, text: str) -> list[str]:
            return [
                text[start:end]
                for start, end in pairwise([0, *_starts(text, spans)[1:], len(text)])
            ]

        def decode_batch(self, token_sequences: Sequence[Sequence[str]]) -> list[str]:
            return ["".join(tokens) for tokens in token_sequences]

    chunker = getattr(chonkie, name)(Pieces(spans), chunk_size=size)
    return lambda text: [(chunk.start_index, chunk.end_index) for chunk in chunker.chunk(text)]


# -- a whole corpus


@dataclass(frozen=True, slots=True)
class Chunked:
    """The chunks of a corpus, a document's chunks side by side.

    `owners` int64 (n_chunks,) are positions of documents, ascending; `starts` int64 (n_documents,)
    the first chunk of each (every document has one); `spans` int32 (n_chunks, 2) characters of
    `Document.content`.  `texts` holds no text: it reads the corpus again.
    """

    owners: np.ndarray
    starts: np.ndarray
    spans: np.ndarray
    texts: Sequence[str]

    def of(self, position: int) -> list[str]:
        """Texts of the chunks of the document at a position."""
        low, high = np.searchsorted(self.owners, (position, position + 1)).tolist()
        return list(self.texts[low:high])


class _Texts(Sequence[str]):
    """Texts of all chunks in order; `read` gives those of a document, and is asked once for neighbours."""

    def __init__(
        self, owners: np.ndarray, starts: np.ndarray, read: Callable[[int], list[str]]
    ) -> None:
        self._owners, self._starts, self._read = owners, starts, read
        self._last: tuple[int, list[str]] = -1, []

    def __len__(self) -> int:
        return len(self._owners)

    def __getitem__(self, index: Any) -> Any:
        chunk = range(len(self))[index]
        if isinstance(chunk, range):
            return [self[i] for i in chunk]
        owner, (position, texts) = int(self._owners[chunk]), self._last
        if owner != position:
            self._last = _, texts = owner, self._read(owner)
        return texts[chunk - int(self._starts[owner])]


def chunk_corpus(corpus: Corpus, chunker: Chunker) -> Chunked:
    """Cut every document.  Memory: 28 bytes a chunk."""
    counts, places = array("q"), array("i")
    sliced = True  # a chunk is a slice, its title the beginning of the content; else a document is cut again to read its texts
    with progress.task(f"cutting documents: {chunker.name}", len(corpus), "documents") as bar:
        for document in corpus:
            content, chunks = document.content, chunker.chunk(document)
            counts.append(len(chunks))
            for chunk in chunks:
                title = max(0, len(chunk.text) - chunk.end + chunk.start)
                sliced = sliced and chunk.text == content[:title] + content[chunk.start : chunk.end]
                places.extend((chunk.start, chunk.end, title))
            bar.advance()
    cuts, sizes = np.array(places, np.int32).reshape(-1, 3), np.array(counts, np.int64)
    starts = np.cumsum(sizes) - sizes

    def read(position: int) -> list[str]:
        if not sliced:
            return [chunk.text for chunk in chunker.chunk(corpus[position])]
        content, first = corpus[position].content, int(starts[position])
        return [
            content[:title] + content[start:end]
            for start, end, title in cuts[first : first + counts[position]].tolist()
        ]

    owners = np.repeat(np.arange(len(counts), dtype=np.int64), sizes)
    return Chunked(owners, starts, np.ascontiguousarray(cuts[:, :2]), _Texts(owners, starts, read))
