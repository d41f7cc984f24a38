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
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

from nearer.data.sources import bad, is_dataset
from nearer.errors import DataError
from nearer.types import by_field_name

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Row(NamedTuple):
    """One row: `number` is the 1-based line (text files) or row (parquet, json lists, datasets)."""

    path: Path
    number: int
    values: dict[str, Any]
    span: tuple[int, int] = (0, 0)  # offset and length of its line in bytes, in unpacked .jsonl

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    def bad(self, what: str, next_step: str = "mend that line") -> DataError:
        """The error for a row that cannot be used."""
        return bad(what, self.where, next_step)


def ending(path: Path) -> str:
    """The ending that names the format, packing left out: `corpus.jsonl.gz` → `.jsonl`."""
    return (
        Path(path.stem).suffix.lower() if path.suffix.lower() in _OPENERS else path.suffix.lower()
    )


def _open(path: Path) -> IO[bytes]:
    if not path.exists():
        raise bad("no such file", path, "correct the path in nearer.yaml")
    handle: IO[bytes] = _OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return handle


def lines(path: Path) -> Iterator[tuple[int, str, int]]:
    """Number from 1, text and length in bytes of each line, a byte order mark removed.

    Raises DataError with the line for what is not UTF-8 and for a packed file that is damaged.
    """
    number = 0
    try:
        with _open(path) as handle:
            for number, raw in enumerate(handle, start=1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8"), len(raw)
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: byte {error.start + 1} of the line is 0x{error.object[error.start]:02x}"
        raise bad(
            what,
            f"{path}:{number}",
            f"convert the file, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from None
    except _BROKEN as error:
        raise bad(
            f"cannot be read: {error or type(error).__name__}",
            f"{path}:{number + 1}",
            "copy or unpack the file anew",
        ) from None


def read(path: Path) -> Iterator[Row]:
    """All rows of a file.  Raises DataError, with file and line, for anything that cannot be read."""
    if path.is_dir():
        return map(_with_field_names, _dataset(path))
    readers = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
    }
    if ending(path) not in readers:
        mend = "use .jsonl, .json, .csv, .tsv or .parquet (also .gz, .bz2, .xz), or a `datasets` folder"
        raise bad(f"the format {ending(path) or 'without an ending'} is not known", path, mend)
    return map(_with_field_names, readers[ending(path)](path))


def _with_field_names(row: Row) -> Row:
    """The row with its columns under the names in which fields are compared.  Raises DataError for two alike."""
    values = by_field_name(row.values)
    if len(values) != len(row.values):
        raise row.bad("two columns have the same name in different Unicode forms", "rename one")
    return row if values is row.values else row._replace(values=dict(values))


def _jsonl(path: Path) -> Iterator[Row]:
    start = 0
    for number, line, length in lines(path):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise bad(
                    f"not valid JSON: {error.msg} at character {error.pos + 1}", f"{path}:{number}"
                ) from None
            except RecursionError:
                raise bad("the JSON is nested too deeply", f"{path}:{number}") from None
            yield Row(path, number, _object(value, f"{path}:{number}"), (start, length))
        start += length


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"a JSON object is needed, not {type(value).__name__}", where)
    return value


def _json(path: Path) -> Iterator[Row]:
    text = "".join(line for _, line, _ in lines(path))
    if not text.lstrip().startswith("["):
        yield from _jsonl(path)  # many tools write JSON Lines into .json
        return
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise bad(f"not valid JSON: {error.msg}", f"{path}:{error.lineno}") from None
    yield from (
        Row(path, number, _object(value, f"{path}, item {number}"))
        for number, value in enumerate(values, start=1)
    )


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # documents are longer than csv's 131,072 characters
    texts = (line for _, line, _ in lines(path))
    tabs = ending(path) == ".tsv"  # BEIR's TSV does not quote
    reader = csv.reader(
        texts,
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] = []
    started = 1
    try:
        for cells in reader:
            number, started = started, reader.line_num + 1
            if not header:
                header = [name.strip() for name in cells]
                if twice := [name for name in header if header.count(name) > 1]:
                    raise bad(
                        f"column {twice[0]!r} appears twice",
                        f"{path}:{number}",
                        "rename one of them",
                    )
            elif cells and len(cells) != len(header):
                what = f"{len(cells)} cells, but the header names {len(header)} columns: {', '.join(header)}"
                raise bad(what, f"{path}:{number}", "mend that line (a stray separator or quote?)")
            elif cells:
                yield Row(path, number, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise bad(
            f"not valid CSV: {error}", f"{path}:{started}", "mend that line (an open quote?)"
        ) from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _open(path) as handle:
            batches = pq.ParquetFile(pa.PythonFile(handle, mode="r")).iter_batches(batch_size=1024)
            for number, values in enumerate(
                (row for batch in batches for row in batch.to_pylist()), start=1
            ):
                yield Row(path, number, values)
    except (pa.ArrowException, *_BROKEN) as error:
        raise bad(
            f"not a readable parquet file: {str(error).splitlines()[0]}",
            path,
            "copy or write the file anew",
        ) from None


def _dataset(path: Path) -> Iterator[Row]:
    if not is_dataset(path):
        raise bad(
            "a folder, but not one that datasets.load_from_disk reads", path, "name a file in it"
        )
    import datasets

    loaded = datasets.load_from_disk(str(path))
    parts = loaded.values() if isinstance(loaded, dict) else (loaded,)
    yield from (
        Row(path, number, dict(values))
        for number, values in enumerate(chain.from_iterable(parts), start=1)
    )
