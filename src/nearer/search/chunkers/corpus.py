"""The chunks of a whole corpus: which document each belongs to, where it lies, and its text, read when needed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.search.chunkers.base import Chunker


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


def chunk_corpus(corpus: Corpus, chunker: Chunker) -> Chunked:
    """Cut every document.  Memory: 28 bytes per chunk."""
    counts = array("q")
    cuts = array("i")  # start, end and length of the title of each chunk
    sliced = True
    with progress.task(f"cutting documents: {chunker.name}", len(corpus), "documents") as bar:
        for document in corpus:
            content = document.content
            chunks = chunker.chunk(document)
            counts.append(len(chunks))
            for chunk in chunks:
                title = max(0, len(chunk.text) - chunk.end + chunk.start)
                sliced = sliced and chunk.text == _slice(content, chunk.start, chunk.end, title)
                cuts.extend((chunk.start, chunk.end, title))
            bar.advance()
    table = np.array(cuts, np.int32).reshape(-1, 3)
    sizes = np.array(counts, np.int64)
    owners = np.repeat(np.arange(len(counts), dtype=np.int64), sizes)
    starts = np.cumsum(sizes) - sizes

    def read(position: int) -> list[str]:
        if not sliced:
            return [chunk.text for chunk in chunker.chunk(corpus[position])]
        content = corpus[position].content
        first = int(starts[position])
        rows = table[first : first + counts[position]].tolist()
        return [_slice(content, *row) for row in rows]

    spans = np.ascontiguousarray(table[:, :2])
    return Chunked(owners, starts, spans, _Texts(owners, starts, read))


def _slice(content: str, start: int, end: int, title: int) -> str:
    """The text of most chunks: a slice of the content, before it a title that begins the content.

    Where a chunk has any other text, documents are cut again to read their texts.
    """
    return content[:title] + content[start:end]


class _Texts(Sequence[str]):
    """Texts of all chunks in order; `read` gives those of a document, and is called once for neighbours."""

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
            return [self[row] for row in chunk]
        owner = int(self._owners[chunk])
        position, texts = self._last
        if owner != position:
            texts = self._read(owner)
            self._last = owner, texts
        return texts[chunk - int(self._starts[owner])]
