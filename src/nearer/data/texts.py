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

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)

#: What a file begins with → its encoding; the longer marks first, since they begin like others.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


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
        return _encoding(handle) == "utf-8"


def _encoding(handle: IO[bytes]) -> str:
    """The encoding that a file's first bytes show; the handle stands at the beginning afterwards."""
    start = handle.read(4)
    handle.seek(0)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    # Without a mark: no format read here begins with a character whose code is 0.
    zeros = tuple(byte == 0 for byte in start)
    by_zeros: dict[tuple[bool, ...], str] = {
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
    }
    return by_zeros.get(zeros, "utf-8")


def lines(path: Path) -> Iterator[tuple[int, str, int]]:
    """Number from 1, text and length in bytes of each line, a byte order mark removed.

    The length is 0 where the file is not UTF-8.  Raises DataError with the line for what cannot be
    decoded and for a packed file that is damaged.
    """
    number, encoding = 0, "utf-8"
    try:
        with open_bytes(path) as handle:
            encoding = _encoding(handle)
            if encoding == "utf-8":
                for number, raw in enumerate(handle, start=1):
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8"), len(raw)
            else:
                wide = io.TextIOWrapper(handle, encoding, newline="\n")
                for number, line in enumerate(wide, start=1):
                    yield number, line, 0
    except UnicodeDecodeError as error:
        raise _undecodable(path, number, encoding, error) from None
    except BROKEN as error:
        raise bad(
            f"cannot be read: {error or type(error).__name__}",
            f"{path}:{number + 1}",
            "copy or unpack the file anew",
        ) from None


def _undecodable(path: Path, number: int, encoding: str, error: UnicodeDecodeError) -> Exception:
    if encoding == "utf-8":
        byte = f"0x{error.object[error.start]:02x}"
        what = f"not UTF-8 text: byte {error.start + 1} of the line is {byte}"
        mend = f"convert the file, for example: iconv -f latin1 -t utf-8 {path.name}"
        return bad(what, f"{path}:{number}", mend)
    what = f"begins as {encoding.upper()} text, but cannot be read as such: {error.reason}"
    mend = f"write the file anew as UTF-8; iconv -f {encoding} -t utf-8 {path.name} shows the place"
    return bad(what, f"{path}:{number + 1}", mend)
