"""Reading and writing files so that a kill, a full disk or a second reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nearer.errors import DataError


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
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with atomic(path) as handle:
        handle.write(text)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; keys keep their order.  NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """One JSON object a line; returns how many."""
    count = 0
    with atomic(path) as handle:
        for line in lines:
            handle.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_json(path: Path) -> Any:
    """Parsed JSON.  Raises DataError with the place of the fault."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            "not valid JSON",
            where=f"{path}{line}",
            next_step="restore the file or rerun its stage with --force",
        ) from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSONL file that nearer wrote, one at a time."""
    with open(path, encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"not a JSON object: {error.msg}",
                    where=f"{path}:{number}",
                    next_step="mend the line or rerun its stage with --force",
                ) from None
            yield value


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted; folders that are symbolic links are entered, each once."""
    found: list[Path] = []
    entered: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        if here in entered:  # a link to a folder above it
            folders.clear()
            continue
        entered.add(here)
        found += [Path(place, name) for name in names]
    return sorted(path for path in found if path.is_file())


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes below a folder."""
    if path.is_dir():
        digest = hashlib.sha256()
        for child in files_below(path):
            digest.update(f"{child.relative_to(path).as_posix()}\0{content_hash(child)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()
    ).hexdigest()


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
