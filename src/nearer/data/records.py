"""Rows of any file, one at a time, each with its place.

Read: .jsonl .ndjson .json .csv .tsv .parquet, plain or packed (.gz .bz2 .xz), and folders that
`datasets.load_from_disk` reads.  Only a .json list is ever held whole.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from nearer.data.sources import is_dataset
from nearer.errors import DataError

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Row(NamedTuple):
    """One row: `number` is the 1-based line (text files) or row (parquet, json lists, datasets)."""

    path: Path
    number: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"


def ending(path: Path) -> str:
    """The ending that names the format, packing left out: `corpus.jsonl.gz` → `.jsonl`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in _OPENERS else path.suffix.lower()


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked.  Raises DataError when it is not there."""
    if not path.exists():
        raise DataError("no such file", where=str(path), next_step="correct the path in nearer.yaml")
    handle: IO[bytes] = _OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return handle


def byte_lines(path: Path) -> Iterator[bytes]:
    """Raw lines, line ends included.  Raises DataError for a packed file that is damaged."""
    number = 0
    try:
        with open_bytes(path) as handle:
            for number, line in enumerate(handle, start=1):  # noqa: B007 - used in the error below
                yield line
    except _BROKEN as error:
        raise DataError(
            f"cannot be read: {error or type(error).__name__}", where=f"{path}:{number + 1}", next_step="copy or unpack the file anew"
        ) from None


def lines(path: Path) -> Iterator[str]:
    """Lines as text, a byte order mark removed.  Raises DataError with line and byte where it is not UTF-8."""
    for number, raw in enumerate(byte_lines(path), start=1):
        yield decode(raw, path, number)


def decode(raw: bytes, path: Path, number: int) -> str:
    """One line as text.  Raises DataError with line and byte where it is not UTF-8."""
    if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
        raw = raw[3:]
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: byte {error.start + 1} of the line is 0x{raw[error.start]:02x}",
            where=f"{path}:{number}",
            next_step=f"convert the file, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from None


def read(path: Path) -> Iterator[Row]:
    """All rows of a file.  Raises DataError, with file and line, for anything that cannot be read."""
    if path.is_dir():
        return _dataset(path)
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(ending(path))
    if reader is None:
        raise DataError(
            f"the format {ending(path) or 'without an ending'} is not known",
            where=str(path),
            next_step="use .jsonl, .json, .csv, .tsv or .parquet (also .gz, .bz2, .xz), or a `datasets` folder",
        )
    return reader(path)


def parse_object(text: str, path: Path, number: int) -> dict[str, Any]:
    """One JSON object.  Raises DataError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not valid JSON: {error.msg} at character {error.pos + 1}", where=f"{path}:{number}", next_step="mend that line"
        ) from None
    except RecursionError:
        raise DataError("the JSON is nested too deeply", where=f"{path}:{number}", next_step="mend that line") from None
    if not isinstance(value, dict):
        raise DataError(f"a JSON object is needed, not {type(value).__name__}", where=f"{path}:{number}", next_step="mend that line")
    return value


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            yield Row(path, number, parse_object(line, path, number))


def _json(path: Path) -> Iterator[Row]:
    text = "".join(lines(path))
    if not text.lstrip().startswith("["):
        yield from _jsonl(path)  # many tools write JSON Lines into .json
        return
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}", next_step="mend that line") from None
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"item {number} of the list is not an object", where=str(path), next_step="mend that item")
        yield Row(path, number, value)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # documents are longer than csv's 131,072 characters
    delimiter = "\t" if ending(path) == ".tsv" else ","
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL  # BEIR's TSV does not quote
    reader = csv.reader(lines(path), delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] | None = None
    started = 1
    try:
        for cells in reader:
            number, started = started, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [name.strip() for name in cells]
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise DataError(f"column {twice[0]!r} appears twice", where=f"{path}:{number}", next_step="rename one of them")
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{len(cells)} cells, but the header names {len(header)} columns: {', '.join(header)}",
                    where=f"{path}:{number}",
                    next_step="mend that line (a stray separator or quote?)",
                )
            yield Row(path, number, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"not valid CSV: {error}", where=f"{path}:{started}", next_step="mend that line (an open quote?)") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with open_bytes(path) as handle:
            for batch in pq.ParquetFile(pa.PythonFile(handle, mode="r")).iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(path, number, values)
    except (pa.ArrowException, *_BROKEN) as error:
        raise DataError(
            f"not a readable parquet file: {str(error).splitlines()[0]}", where=str(path), next_step="copy or write the file anew"
        ) from None


def _dataset(path: Path) -> Iterator[Row]:
    if not is_dataset(path):
        raise DataError("a folder, but not one that datasets.load_from_disk reads", where=str(path), next_step="name a file in it")
    import datasets

    loaded = datasets.load_from_disk(str(path))
    number = 0
    for part in loaded.values() if isinstance(loaded, dict) else (loaded,):
        for values in part:
            number += 1
            yield Row(path, number, dict(values))
