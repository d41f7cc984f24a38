"""Lines of text files: packed or not, in UTF-8, UTF-16 or UTF-32."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nearer.data.sources import bad

MARK = "\ufeff"  # the byte order mark, as text

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)

#: What a file begins with → its encoding; the longer marks first, since they begin like others.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

#: What files begin with that are no text → what they are, and what to do.
_NO_TEXT = (
    (b"\x1f\x8b", "packed by gzip", "name it so that it ends in .gz"),
    (b"BZh91AY&SY", "packed by bzip2", "name it so that it ends in .bz2"),
    (b"\xfd7zXZ\x00", "packed by xz", "name it so that it ends in .xz"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it: zstd -d"),
    (b"PAR1\x15", "a Parquet file", "name it so that it ends in .parquet"),
    (
        b"PK\x03\x04",
        "a ZIP archive or a spreadsheet",
        "unpack it, or save the table as CSV in UTF-8",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save the table as CSV in UTF-8"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"%PDF-", "a PDF", "give its text"),
)
_LONGEST_MARK = 16  # bytes


def ending(path: Path) -> str:
    """The ending that names the format, packing left out: `corpus.jsonl.gz` → `.jsonl`."""
    if path.suffix.lower() in _OPENERS:
        return Path(path.stem).suffix.lower()
    return path.suffix.lower()


def open_bytes(path: Path) -> IO[bytes]:
    """A file to read, unpacked on the way.  Raises DataError when it is not there."""
    if not path.exists():
        raise bad("no such file", path, "correct the path in nearer.yaml")
    handle: IO[bytes] = _OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return handle


def is_utf8(path: Path) -> bool:
    """Whether the offsets of a file's lines can be decoded one by one as UTF-8."""
    with open_bytes(path) as handle:
        return _encoding(handle, path) == "utf-8"


def _encoding(handle: IO[bytes], path: Path) -> str:
    """The encoding that a file's first bytes show; the handle stands at the beginning afterwards.

    Raises DataError where they show that it is no text.
    """
    start = handle.read(_LONGEST_MARK)
    handle.seek(0)
    for mark, what, mend in _NO_TEXT:
        if start.startswith(mark):
            raise bad(f"this is {what}, not text", path, mend)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    # Without a mark: no format read here begins with a character whose code is 0.
    zeros = tuple(byte == 0 for byte in start[:4])
    by_zeros: dict[tuple[bool, ...], str] = {
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
    }
    return by_zeros.get(zeros, "utf-8")


def lines(path: Path) -> Iterator[tuple[int, str, int]]:
    """Number from 1, text and length in bytes of each line, byte order marks at its beginning removed.

    Files that were joined have marks inside.  Where no line ends in a line feed, lines end in the
    carriage return of old Macs.  The length is 0 where the file is not UTF-8.  Raises DataError with the line for what cannot be
    decoded and for a packed file that is damaged.
    """
    number, encoding = 0, "utf-8"
    try:
        with open_bytes(path) as handle:
            encoding = _encoding(handle, path)
            if encoding == "utf-8":
                for number, raw in enumerate(_raw_lines(handle), start=1):
                    yield number, raw.decode().lstrip(MARK), len(raw)
            else:
                wide = io.TextIOWrapper(handle, encoding, newline="\n")
                for number, line in enumerate(_wide_lines(wide), start=1):
                    yield number, line.lstrip(MARK), 0
    except UnicodeDecodeError as error:
        raise _undecodable(path, number, encoding, error) from None
    except BROKEN as error:
        mend = "copy or unpack the file anew"
        if isinstance(error, gzip.BadGzipFile):
            mend = f"{mend}; if it is not packed, name it without {path.suffix}"
        what = f"cannot be read: {error or type(error).__name__}"
        raise bad(what, f"{path}:{number + 1}", mend) from None


def _raw_lines(handle: IO[bytes]) -> Iterator[bytes]:
    first = next(iter(handle), b"")
    if first.endswith(b"\n"):
        yield first
    else:  # the whole file
        yield from first.splitlines(keepends=True)
    yield from handle


def _wide_lines(handle: IO[str]) -> Iterator[str]:
    first = next(iter(handle), "")
    if first.endswith("\n"):
        yield first
    else:
        yield from (line.decode() for line in first.encode().splitlines(keepends=True))
    yield from handle


def _undecodable(path: Path, number: int, encoding: str, error: UnicodeDecodeError) -> Exception:
    if encoding == "utf-8":
        byte = f"0x{error.object[error.start]:02x}"
        what = f"not UTF-8 text: byte {error.start + 1} of the line is {byte}"
        mend = f"convert the file, for example: iconv -f latin1 -t utf-8 {path.name}"
        return bad(what, f"{path}:{number}", mend)
    what = f"begins as {encoding.upper()} text, but cannot be read as such: {error.reason}"
    mend = f"write the file anew as UTF-8; iconv -f {encoding} -t utf-8 {path.name} shows the place"
    return bad(what, f"{path}:{number + 1}", mend)
