"""Reading and writing files so that a kill, a full disk or a second reader never sees half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nearer.errors import BusyError, DataError, DiskError, NearerError

if TYPE_CHECKING:
    import numpy as np

#: NumPy reads the header of an array with Python's own parser.  Where two threads parse at once,
#: CPython 3.11 may raise SystemError ("recursion depth mismatch", python/cpython#106905), so one
#: thread at a time reads headers.
_PARSING = threading.Lock()

_SPACE = "free space there, then run the same command again; what was finished is kept"
_ACCESS = "make it writable for this user, then run the same command again"
#: Errors that a disk makes, and what mends them.
_DISK: Mapping[int, str] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: _ACCESS,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EIO: "check the disk and its cables or its network, then run the same command again",
    errno.EMFILE: "allow more open files: ulimit -n 65536, then run the same command again",
}
_NUMBERED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
#: What libraries say that drop the number: torch's writer tells nothing but this.
_WORDS: Mapping[str, int] = {
    **{os.strerror(number).lower(): number for number in _DISK if number != errno.EPERM},
    "pytorchstreamwriter failed writing": errno.ENOSPC,
    "file write failed": errno.ENOSPC,
}


def disk_error(error: BaseException, where: Path | str | None = None) -> DiskError | None:
    """What an exception says of the disk, however a library wrapped it; None when it is about something else.

    Libraries written in Rust and C++ raise their own kinds of errors for a full disk.
    """
    visited: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        visited.add(id(cause))
        number = _number_of(cause)
        if number in _DISK:
            path = where or getattr(cause, "filename", None)
            what = os.strerror(number)
            if not isinstance(cause, OSError):
                first_line = next(iter(str(cause).splitlines()), "")
                what = f"{what} ({first_line[:200]})"
            return DiskError(what, where=str(path) if path else None, next_step=_DISK[number])
        cause = cause.__cause__ or cause.__context__
    return None


def _number_of(error: BaseException) -> int:
    """The errno behind an exception, 0 where there is none."""
    if isinstance(error, NearerError):
        return 0
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    numbered = _NUMBERED.search(text)
    if numbered:
        return int(numbered[1] or numbered[2])
    for words, number in _WORDS.items():
        if words in text.lower():
            return number
    return 0


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Whatever a library raises for a disk that fails inside becomes a DiskError that names `where`."""
    try:
        yield
    except NearerError:
        raise
    except Exception as error:
        disk = disk_error(error, where)
        if disk is None:
            raise
        raise disk from error


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path`; on success flush, fsync and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(temporary, mode, **text) as handle:  # type: ignore[call-overload]
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # a failed write does not say where
        with suppress(OSError):  # what fails here must not hide why
            temporary.unlink(missing_ok=True)
        raise


def own_file(path: Path) -> None:
    """Make a file that is appended to this folder's own, where a copy made of hard links shares it."""
    if not path.exists() or path.stat().st_nlink == 1:
        return
    content = path.read_bytes()
    with atomic(path, "wb") as handle:
        handle.write(content)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as handle:
        handle.write(text)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; keys keep their order.  NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """One JSON object per line; returns how many."""
    count = 0
    with atomic(path) as handle:
        for line in lines:
            handle.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_json(path: Path) -> Any:
    """Parsed JSON.  Raises DataError with the line of the fault."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            "not valid JSON",
            where=f"{path}{line}",
            next_step="restore the file or rerun its stage with --force",
        ) from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSONL file that nearer wrote, one at a time."""
    with open(path, "rb") as handle:  # one line that is no UTF-8 must not fail without its number
        for number, line in enumerate(handle, start=1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"not a JSON object: {error}",
                    where=f"{path}:{number}",
                    next_step="mend the line or rerun its stage with --force",
                ) from None
            yield value


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted; folders that are symbolic links are entered, each once."""
    paths: list[Path] = []
    entered: set[Path] = set()
    for current, folders, names in os.walk(folder, followlinks=True):
        resolved = Path(current).resolve()
        if resolved in entered:  # a link to a folder above it
            folders.clear()
            continue
        entered.add(resolved)
        paths.extend(Path(current, name) for name in names)
    return sorted(path for path in paths if path.is_file())


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes below a folder."""
    if path.is_dir():
        digest = hashlib.sha256()
        for child in files_below(path):
            name = child.relative_to(path).as_posix()
            digest.update(f"{name}\0{content_hash(child)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def swap_folder(new: Path, target: Path, aside: Path) -> None:
    """Put folder `new` at `target`; what was there goes through `aside`, then away.

    A kill between the two renames leaves `aside`, which `recover_folder` puts back.
    """
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.rename(target, aside)
    os.rename(new, target)
    shutil.rmtree(aside, ignore_errors=True)


def recover_folder(target: Path, aside: Path) -> None:
    """Undo a `swap_folder` that was killed half-way."""
    if aside.exists() and not target.exists():
        os.rename(aside, target)


def load_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array of an `.npy` file; `mapped`: its values are read when they are asked for.

    Raises OSError, EOFError and ValueError.
    """
    import numpy as np

    with _PARSING:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array


def load_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an `.npz` file by their names.

    Raises OSError, EOFError, KeyError, TypeError, ValueError and zipfile.BadZipFile.
    """
    import numpy as np

    with _PARSING, np.load(path, allow_pickle=False) as stored:
        return [stored[name] for name in names]


@contextmanager
def locked(path: Path, patience: float = 5.0, what: str = "this generation") -> Iterator[None]:
    """Hold a lock file against other writers.  Raises BusyError when another keeps it longer than `patience` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:
        stop = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= stop:
                    raise BusyError(
                        f"another process is writing {what}",
                        where=str(path.parent),
                        next_step="wait for it",
                    ) from None
                time.sleep(0.02)
        yield
