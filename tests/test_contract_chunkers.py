"""The contract of the chunker seam, held to every chunker that can be named, and to one of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nearer import plugins
from nearer.data.corpus import Corpus
from nearer.errors import ConfigError
from nearer.search.chunkers import Chunk, Chunker, chunk_corpus, make_chunker
from nearer.text import token_spans
from nearer.types import Document

OWN_MODULE = "contract_chunkers"
OWN = f"{OWN_MODULE}:Lines"
OWN_SOURCE = """
from nearer.search.chunkers import Chunk, Cutter

class Lines:
    def chunk(self, document):
        chunks, start = [], 0
        for line in document.content.splitlines(keepends=True):
            chunks.append(Chunk(line, start, start + len(line)))
            start += len(line)
        return chunks

class Tenth(Cutter):
    forms = ("tenth", "tenth:SIZE")

    def split(self, text):
        size = self.size if self.size else 10
        return [(start, min(start + size, len(text))) for start in range(0, len(text), size)]

    def __init__(self, spec):
        super().__init__(spec)
        self.size = spec.size if spec.arguments else 0
"""


def specs() -> list[str]:
    """Every form of every chunker, with the title where it can be; other classes and sizes; the user's own."""
    plain: list[str] = []
    for name in plugins.names("chunker"):
        forms = getattr(plugins.find("chunker", name), "forms", (name,))
        plain += [form.replace("SIZE", "6").replace("OVERLAP", "2") for form in forms]
    titled = [f"{spec}+title" for spec in plain]
    more = ["tokens:1", "tokens:4:0", "chonkie:SentenceChunker:6", "chonkie:TokenChunker:6"]
    return [*plain, *titled, *more, OWN]


SPECS = specs()

MARKDOWN = (
    "# Guide\r\n\r\nDr. Smith paid 3.14 dollars, e.g. for tea. Was it good? It was.\r\n\r\n## Setup\r\n\r\n"
    "1. Unpack the box.\r\n2. Read this page to the end, please, before you begin.\r\nIt is short."
)
ODD = (
    "",
    "   \n ",
    "x" * 10_000,
    "東京は日本の首都です。人口は多い。" * 9,
    "👩‍👩‍👧🎉 " * 20,
    MARKDOWN,
    "\x00\u200b a",
    "ab\n\n\n" * 30,
    "e\u0301 " * 40,
)
texts = st.text(
    st.sampled_from("aB3 .\n\r\t#!?。、東é🎉\u200b\u2029-\"'()"), max_size=200
) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore").decode())


def odd(function: Callable[..., None]) -> Callable[..., None]:
    for text in ODD:
        function = example(title="A title", text=text)(function)
    return function


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project's folder with the user's module in it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{OWN_MODULE}.py").write_text(OWN_SOURCE)
    yield folder
    sys.modules.pop(OWN_MODULE, None)


@pytest.fixture(scope="module")
def corpus(small_data: Path) -> Corpus:
    return Corpus.open(small_data / "corpus.jsonl")


@pytest.mark.parametrize("spec", SPECS)
@settings(deadline=None, max_examples=50)
@given(title=st.sampled_from(["", "A title", "  padded "]), text=texts)
@odd
def test_no_character_is_lost_and_offsets_are_true(
    root: Path, spec: str, title: str, text: str
) -> None:
    content = Document("d", text, title).content
    chunks = make_chunker(spec, token_spans, root).chunk(Document("d", text, title))
    assert all(0 <= chunk.start < chunk.end <= len(content) for chunk in chunks) or not content
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)
    bodies = [content[chunk.start : chunk.end] for chunk in chunks]
    covered = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
    before = (
        f"{title.lstrip()} " if spec.endswith("+title") and title.strip() and text.strip() else ""
    )
    assert [chunk.text for chunk in chunks] == [before + body for body in bodies]
    assert all(
        place in covered
        for place in range(len(before), len(content))
        if not content[place].isspace()
    )


@pytest.mark.parametrize("spec", SPECS)
@settings(deadline=None, max_examples=10)
@given(text=texts)
def test_the_name_makes_the_same_chunker_again(root: Path, spec: str, text: str) -> None:
    document = Document("d", text, "A title")
    first = make_chunker(spec, token_spans, root)
    again = make_chunker(first.name, token_spans, root)
    assert isinstance(first, Chunker)
    assert again.name == first.name
    assert again.chunk(document) == first.chunk(document)


@pytest.mark.parametrize("spec", SPECS)
def test_a_document_that_fits_is_left_as_it_is(root: Path, spec: str) -> None:
    chunks = make_chunker(spec, token_spans, root).chunk(Document("d", " a\n"))
    assert chunks == [Chunk(" a\n", 0, 3)]


@pytest.mark.parametrize("spec", SPECS)
def test_chunks_of_a_corpus_are_those_of_its_documents(
    root: Path, corpus: Corpus, spec: str
) -> None:
    chunker = make_chunker(spec, token_spans, root)
    chunked = chunk_corpus(corpus, chunker)
    wanted = [
        (position, chunk)
        for position, document in enumerate(corpus)
        for chunk in chunker.chunk(document)
    ]
    assert chunked.owners.tolist() == [position for position, _ in wanted]
    assert [tuple(span) for span in chunked.spans.tolist()] == [
        (chunk.start, chunk.end) for _, chunk in wanted
    ]
    assert list(chunked.texts) == [chunk.text for _, chunk in wanted]
    assert len(chunked.texts) == len(wanted)
    assert chunked.texts[-2] == wanted[-2][1].text
    assert chunked.texts[3:9:2] == [chunk.text for _, chunk in wanted[3:9:2]]
    assert [text for position in range(len(corpus)) for text in chunked.of(position)] == list(
        chunked.texts
    )
    assert (chunked.owners.dtype, chunked.starts.dtype, chunked.spans.dtype) == (
        np.int64,
        np.int64,
        np.int32,
    )
    last = np.maximum.reduceat(np.arange(len(wanted)), chunked.starts)
    assert last.tolist() == [*(chunked.starts[1:] - 1).tolist(), len(wanted) - 1]


def test_an_installed_package_brings_a_chunker_with_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root))
    points = (
        EntryPoint("chunker.lines", OWN, plugins.GROUP),
        EntryPoint("chunker.tenth", f"{OWN_MODULE}:Tenth", plugins.GROUP),
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    document = Document("d", "one\ntwo, and three")
    lines = make_chunker("lines", token_spans)
    assert [chunk.text for chunk in lines.chunk(document)] == ["one\n", "two, and three"]
    with pytest.raises(ConfigError, match="'lines:3'"):  # it takes no settings
        make_chunker("lines:3", token_spans)
    tenth = make_chunker("tenth:8", token_spans)
    assert tenth.name == "tenth:8"
    assert [chunk.text for chunk in tenth.chunk(document)] == ["one\ntwo,", "and thr", "ee"]
    with pytest.raises(ConfigError, match="tenth:SIZE"):
        make_chunker("tenth:x", token_spans)
