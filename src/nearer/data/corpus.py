"""Documents with random access, in memory bounded by their ids and offsets."""

from __future__ import annotations

import array
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nearer import progress
from nearer.config import Columns
from nearer.data import fields, records, texts
from nearer.data.fields import DEFAULT
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.errors import DataError
from nearer.types import Document, by_field_name


class Corpus:
    """Documents by position and by id.

    Kept in memory: ids and byte offsets.  Texts stay in the JSONL file they came from; other
    formats are written once, row by row, into a private temporary file that vanishes with the
    corpus.  Reading is safe from several threads (`os.pread`).
    """

    def __init__(
        self, source: Path, handle: int, columns: Columns, rows: Iterable[tuple[Document, Row]]
    ) -> None:
        """Use `Corpus.open` or `Corpus.from_documents`; the corpus owns the file descriptor `handle`."""
        weakref.finalize(self, os.close, handle)
        self.source, self._handle, self._columns = source, handle, columns
        self.ids: list[str] = []
        self._positions: dict[str, int] = {}
        spans, numbers = array.array("q"), array.array("q")
        with progress.task("reading documents", unit="documents") as task:
            for position, (document, row) in enumerate(rows):
                first = self._positions.setdefault(document.id, position)
                if first != position:
                    lines = f"lines {numbers[first]} and {row.number}"
                    raise row.bad(
                        f"document id {document.id!r} stands on {lines}",
                        "keep one of them: judgments would not say which is meant",
                    )
                self.ids.append(document.id)
                spans.extend(row.span)
                numbers.append(row.number)
                if position % 1024 == 0:
                    task.reach(position)
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 2)

    @classmethod
    def open(cls, path: Path, columns: Columns = DEFAULT) -> Corpus:
        """Read a file of documents once, checking every line.

        Raises DataError for malformed lines, missing columns, duplicate ids and an empty file.
        """
        rows = ((fields.document(row, columns), row) for row in records.read(path, "corpus"))
        in_place = path.suffix.lower() in (".jsonl", ".ndjson") and path.is_file()
        if in_place and texts.is_utf8(path):
            corpus = cls(path, os.open(path, os.O_RDONLY), columns, rows)
        else:
            corpus = cls._spooled(rows, path)
        if not corpus.ids:
            raise bad("the file holds no documents", path, "correct data.corpus or data.folder")
        return corpus

    @classmethod
    def from_documents(cls, documents: Iterable[Document]) -> Corpus:
        """A corpus of documents made in Python.  Raises DataError for duplicate ids.

        As in files, half of a surrogate pair is replaced.
        """
        source = Path("from_documents")

        def rows() -> Iterator[tuple[Document, Row]]:
            for number, document in enumerate(documents, start=1):
                yield _encodable(document), Row(source, number, {})

        return cls._spooled(rows(), source)

    @classmethod
    def _spooled(cls, rows: Iterable[tuple[Document, Row]], source: Path) -> Corpus:
        def written() -> Iterator[tuple[Document, Row]]:
            start = 0
            for document, row in rows:
                own = {"_id": document.id, "title": document.title, "text": document.text}
                # A metadata field may not take the place of the id, title or text.
                values = own | fields.plain(document.metadata) | own
                text = json.dumps(values, ensure_ascii=False) + "\n"
                line = text.encode()
                spool.write(line)
                yield document, row._replace(span=(start, len(line)))
                start += len(line)
            spool.flush()

        with tempfile.TemporaryFile(prefix="nearer-") as spool:
            return cls(source, os.dup(spool.fileno()), DEFAULT, written())

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._positions

    def __iter__(self) -> Iterator[Document]:
        return (self[position] for position in range(len(self)))

    def position(self, doc_id: str) -> int:
        """Position of a document in the corpus.  Raises KeyError when it is not there."""
        return self._positions[doc_id]

    def get(self, doc_id: str) -> Document | None:
        position = self._positions.get(doc_id)
        if position is None:
            return None
        return self[position]

    def __getitem__(self, position: int) -> Document:
        """The document at a position (from the end when negative).  Raises IndexError, and DataError when the file changed."""
        doc_id = self.ids[position]
        start, length = self._spans[position].tolist()
        try:
            line = os.pread(self._handle, length, start)
            values = json.loads(line.decode().lstrip(texts.MARK))
            row = Row(self.source, 0, dict(by_field_name(values)))
            document = fields.document(row, self._columns)
        except (ValueError, AttributeError, TypeError, DataError):
            document = None
        if document is None or document.id != doc_id:
            where = f"{self.source} (document {doc_id})"
            raise bad("the file changed while it was read", where, "run it again")
        return document

    def contents(self, positions: Sequence[int] | None = None) -> Iterator[str]:
        """Title and text of each document, in order of `positions` (default: all)."""
        if positions is None:
            positions = range(len(self))
        return (self[int(position)].content for position in positions)


def _encodable(document: Document) -> Document:
    """The document with texts that UTF-8 can hold, as the readers of files make them."""
    return replace(
        document,
        id=fields.plain(document.id),
        title=fields.plain(document.title),
        text=fields.plain(document.text),
    )
