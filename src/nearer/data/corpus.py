"""Documents with random access, in memory bounded by their ids and offsets."""

from __future__ import annotations

import array
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nearer import progress
from nearer.config import Columns
from nearer.data import fields, records
from nearer.data.records import Row, ending
from nearer.errors import DataError
from nearer.types import Document

_CANONICAL = Columns()
Placed = tuple[Document, Row, int, int]  # with the offset and length of its line, in bytes
Index: TypeAlias = "tuple[list[str], array.array[int]]"  # ids, and offset and length of each line in turn


class Corpus:
    """Documents by position and by id.

    Kept in memory: ids and byte offsets.  Texts stay in the JSONL file they came from; other
    formats are written once, row by row, into a private temporary file that vanishes with the
    corpus.  Reading is safe from several threads (`os.pread`).
    """

    def __init__(self, source: Path, handle: int, columns: Columns, index: Index) -> None:
        """Use `Corpus.open` or `Corpus.from_documents`; the corpus owns the file descriptor `handle`."""
        self.ids, spans = index
        self.source = source
        self._handle = handle
        self._columns = columns
        self._spans = np.frombuffer(spans, dtype=np.int64).reshape(-1, 2) if spans else np.empty((0, 2), np.int64)
        self._positions = {doc_id: position for position, doc_id in enumerate(self.ids)}
        weakref.finalize(self, os.close, handle)

    @classmethod
    def open(cls, path: Path, columns: Columns = _CANONICAL) -> Corpus:
        """Read a file of documents once, checking every line.

        Raises DataError for malformed lines, missing columns, duplicate ids and an empty file.
        """
        if ending(path) in (".jsonl", ".ndjson") and path.suffix.lower() == ending(path) and path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                index = _index(_plain_lines(path, columns))
            except BaseException:
                os.close(handle)
                raise
            corpus = cls(path, handle, columns, index)
        else:
            corpus = cls._spool(((fields.document(row, columns), row) for row in records.read(path)), path)
        if not corpus.ids:
            raise DataError("the file holds no documents", where=str(path), next_step="correct data.corpus or data.folder")
        return corpus

    @classmethod
    def from_documents(cls, documents: Iterable[Document]) -> Corpus:
        """A corpus of documents made in Python.  Raises DataError for duplicate ids."""
        source = Path("from_documents")
        return cls._spool(((one, Row(source, number, {})) for number, one in enumerate(documents, start=1)), source)

    @classmethod
    def _spool(cls, documents: Iterable[tuple[Document, Row]], source: Path) -> Corpus:
        def lines() -> Iterator[Placed]:
            start = 0
            for one, row in documents:
                values = {"_id": one.id, "title": one.title, "text": one.text, **fields.plain(dict(one.metadata))}
                # A metadata field may not take the place of the id, title or text.
                values |= {"_id": one.id, "title": one.title, "text": one.text}
                line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
                spool.write(line)
                yield one, row, start, len(line)
                start += len(line)

        with tempfile.TemporaryFile(prefix="nearer-") as spool:
            index = _index(lines())
            spool.flush()
            return cls(source, os.dup(spool.fileno()), _CANONICAL, index)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._positions

    def __iter__(self) -> Iterator[Document]:
        return (self[position] for position in range(len(self)))

    def position(self, doc_id: str) -> int:
        """Place of a document in the corpus.  Raises KeyError when it is not there."""
        return self._positions[doc_id]

    def get(self, doc_id: str) -> Document | None:
        position = self._positions.get(doc_id)
        return None if position is None else self[position]

    def __getitem__(self, position: int) -> Document:
        """The document at a position (from the end when negative).  Raises IndexError, and DataError when the file changed."""
        start, length = (int(n) for n in self._spans[position])
        raw = os.pread(self._handle, length, start)
        number = position + 1 if position >= 0 else len(self) + position + 1
        try:
            text = raw.decode("utf-8-sig" if start == 0 else "utf-8")
            one = fields.document(Row(self.source, number, json.loads(text)), self._columns)
        except (ValueError, DataError):
            one = None
        if one is None or one.id != self.ids[position]:
            raise DataError("the file changed while it was read", where=f"{self.source} (document {number})", next_step="run it again")
        return one

    def contents(self, positions: Sequence[int] | None = None) -> Iterator[str]:
        """Title and text of each document, in order of `positions` (default: all)."""
        return (self[int(position)].content for position in (range(len(self)) if positions is None else positions))


def _plain_lines(path: Path, columns: Columns) -> Iterator[Placed]:
    start = 0
    for number, raw in enumerate(records.byte_lines(path), start=1):
        if raw.strip():
            row = Row(path, number, records.parse_object(records.decode(raw, path, number), path, number))
            yield fields.document(row, columns), row, start, len(raw)
        start += len(raw)


def _index(placed: Iterable[Placed]) -> Index:
    ids: list[str] = []
    spans = array.array("q")
    places: dict[str, int] = {}
    with progress.task("reading documents", unit="documents") as task:
        for one, row, start, length in placed:
            if one.id in places:
                raise DataError(
                    f"document id {one.id!r} stands on lines {places[one.id]} and {row.number}",
                    where=row.where,
                    next_step="keep one of them: judgments would not say which is meant",
                )
            places[one.id] = row.number
            ids.append(one.id)
            spans.extend((start, length))
            if len(ids) % 1024 == 0:
                task.advance(1024)
    return ids, spans
