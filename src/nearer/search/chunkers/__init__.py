"""Documents cut into chunks that know where they lie, so that relevance stays with documents and spans.

A chunker is named by a spec such as `tokens:200:50`, see `specs.known_forms`.  Sizes count tokens of
the embedding model; a chunk is cut between tokens (at a space where one is near), its ends are
trimmed, and a document that fits stays as it is.
"""

from nearer.search.chunkers.base import Chunk, Chunker, Cutter, Span, Spec, TokenSpans
from nearer.search.chunkers.corpus import Chunked, chunk_corpus
from nearer.search.chunkers.specs import make_chunker

__all__ = [
    "Chunk",
    "Chunked",
    "Chunker",
    "Cutter",
    "Span",
    "Spec",
    "TokenSpans",
    "chunk_corpus",
    "make_chunker",
]
