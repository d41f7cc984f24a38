"""Parts: the embedded documents of a generation as Arrow files that say which model made them.

A part is written to a temporary file, fsynced and renamed.  In the order of their names a later part
counts, and may also say that documents are gone.  Each carries a checksum of its content; the
manifest keeps the checksums too, so that neither damage nor an exchanged file goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nearer import files, progress
from nearer.embed.fingerprint import Fingerprint, Vectors
from nearer.errors import FingerprintError, ModelError, StoreError
from nearer.live.stores.base import Rows, Space

COLUMNS = ("chunk_id", "doc_id", "text", "metadata", "hash")


def make_part(
    fingerprint: Fingerprint,
    columns: Mapping[str, Sequence[str]],
    vectors: np.ndarray,
    gone: Sequence[str] = (),
) -> Any:
    """The Arrow table of one part: a row a chunk, `columns` as in COLUMNS, vectors float32 (n_chunks, dimension)."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    arrays = {name: pa.array(columns[name], pa.string()) for name in COLUMNS}
    table = pa.table(
        arrays | {"vector": pa.FixedSizeListArray.from_arrays(flat, fingerprint.dimension)}
    )
    meta = {b"fingerprint": _identity(fingerprint), b"gone": json.dumps(list(gone)).encode()}
    return _sealed(table.replace_schema_metadata(meta))


def require_embedded(vectors: np.ndarray, chunks: int, fingerprint: Fingerprint) -> None:
    """Raise ModelError unless a model gave one vector of finite numbers per chunk.

    In a part such vectors would stay: every later build would take it for finished.
    """
    wanted = (chunks, fingerprint.dimension)
    if vectors.shape != wanted:
        problem = f"the model gives vectors {vectors.shape} for {chunks} texts, not {wanted}"
    elif not np.isfinite(vectors).all():
        problem = "the model gives vectors that are not finite"
    else:
        return
    raise ModelError(
        problem,
        where=f"model {fingerprint.id}",
        next_step="mend the encoder, or use another model; finished parts stay",
    )


def _sealed(table: Any) -> Any:
    """The same table with the checksum of its content."""
    meta = {**table.schema.metadata, b"checksum": checksum(table).encode()}
    return table.replace_schema_metadata(meta)


def checksum(table: Any) -> str:
    """32 hexadecimal digits over all that a part says: its model, its rows, what is gone."""
    digest = hashlib.blake2b(digest_size=16)
    for key in (b"fingerprint", b"gone"):
        digest.update(table.schema.metadata[key] + b"\0")
    for name in COLUMNS:
        for piece in _bytes_of(table[name].combine_chunks()):
            digest.update(piece)
    vectors = table["vector"].combine_chunks().flatten().to_numpy()
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()


def _bytes_of(strings: Any) -> tuple[Any, ...]:
    """The lengths and the characters of a column of texts, wherever its buffers begin."""
    if not len(strings):
        return ()
    _, places, characters = strings.buffers()
    ends = np.frombuffer(places, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    text = memoryview(characters)[ends[0] : ends[-1]] if characters else b""
    return np.diff(ends).tobytes(), text


@lru_cache(maxsize=8)
def _identity(fingerprint: Fingerprint) -> bytes:
    return json.dumps(fingerprint.as_dict()).encode()


def write_part(path: Path, table: Any) -> None:
    import pyarrow as pa

    with files.atomic(path, "wb") as handle, pa.ipc.new_file(handle, table.schema) as writer:
        writer.write_table(table)


def read_part(path: Path, fingerprint: Fingerprint) -> tuple[Any, list[str]]:
    """The table of a part, memory-mapped, and the documents that it says are gone.

    Raises FingerprintError for a part of another model or of none, StoreError for a damaged one.
    The rows themselves are not read here: `require_whole` compares their checksum.
    """
    import pyarrow as pa

    where = str(path)
    try:
        with pa.memory_map(where) as source:
            table = pa.ipc.open_file(source).read_all()
        table.select(["doc_id", "hash"]).validate(full=True)  # which document is where
        meta = table.schema.metadata or {}
        gone = json.loads(meta.get(b"gone", b"[]"))
        shape = table.select([*COLUMNS, "vector"])
    except (pa.ArrowException, KeyError, ValueError):
        raise _damaged(path, "it cannot be read") from None
    except OSError as error:
        # pyarrow also raises OSError for bytes that make no sense; those of the disk have a number.
        if error.errno is not None:
            raise
        raise _damaged(path, "it cannot be read") from None
    if b"fingerprint" not in meta:
        raise FingerprintError(
            f"this part does not say which model made it (this one: {fingerprint.id})",
            where=where,
            next_step=_again(path),
        )
    if meta[b"fingerprint"] != _identity(fingerprint):
        try:
            kept = json.loads(meta[b"fingerprint"])
        except ValueError:
            raise _damaged(path, "its fingerprint cannot be read") from None
        fingerprint.require(Fingerprint.from_dict(kept, where), where, _again(path))
    if not isinstance(gone, list):
        raise _damaged(path, "it does not say which documents are gone")
    return shape, [str(doc_id) for doc_id in gone]


def require_whole(path: Path, table: Any, expected: str | None = None) -> str:
    """Raise StoreError unless a part holds what was written; returns its checksum.

    `expected` is the checksum in the manifest.  Parts of older versions carry none: then only that
    one is compared.
    """
    import pyarrow as pa

    try:
        table.validate(full=True)
        actual = checksum(table)
    except (pa.ArrowException, ValueError, TypeError):
        raise _damaged(path, "its rows cannot be read") from None
    written = table.schema.metadata.get(b"checksum")
    if written is not None and written.decode("ascii", "replace") != actual:
        raise _damaged(path, "its content is not what was written")
    if expected is not None and expected != actual:
        raise _damaged(path, "it is not the part that this generation was built from")
    return actual


def _damaged(path: Path, problem: str) -> StoreError:
    return StoreError(f"this part is damaged: {problem}", where=str(path), next_step=_again(path))


def _again(path: Path) -> str:
    return f"delete {path.name}, then run the same command again: its documents are embedded anew"


def checksums(
    folder: Path, fingerprint: Fingerprint, known: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The checksum of each part in a folder; those in `known` are taken over, not read again."""
    found = {}
    for path in parts_in(folder):
        if path.name in known:
            found[path.name] = known[path.name]
            continue
        table, _ = read_part(path, fingerprint)
        written = table.schema.metadata.get(b"checksum")
        found[path.name] = checksum(table) if written is None else written.decode()
    return found


def parts_in(folder: Path) -> list[Path]:
    """The parts in a folder, the earliest first."""
    return sorted(folder.glob("[0-9]*.arrow"))


def read_rows(
    path: Path, space: Space, doc_ids: Sequence[str] | None = None, expected: str | None = None
) -> Rows:
    """A part as a store takes it, after its checksum was compared; with `doc_ids` these documents alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table, _ = read_part(path, space.fingerprint)
    require_whole(path, table, expected)
    if doc_ids is not None:
        table = table.filter(pc.is_in(table["doc_id"], pa.array(doc_ids, pa.string())))
    vectors = (
        table["vector"]
        .combine_chunks()
        .flatten()
        .to_numpy()
        .reshape(-1, space.fingerprint.dimension)
    )
    chunk_ids, ids, texts, metadata, hashes = (table[name].to_pylist() for name in COLUMNS)
    return Rows(
        chunk_ids,
        ids,
        texts,
        [json.loads(text) for text in metadata],
        hashes,
        Vectors(vectors, space.fingerprint),
    )


def _alive(folder: Path, fingerprint: Fingerprint) -> Iterator[tuple[Path, Any, list[bool]]]:
    """Each part, the latest first, and which of its chunks no later part replaced or took away."""
    later = set[str]()
    for path in reversed(parts_in(folder)):
        table, gone = read_part(path, fingerprint)
        ids = table["doc_id"].to_pylist()
        yield path, table, [doc_id not in later for doc_id in ids]
        later.update(ids, gone)


def outdated(folder: Path, fingerprint: Fingerprint) -> set[str]:
    """The names of the parts that hold chunks which no longer count, or nothing at all."""
    return {path.name for path, _, keep in _alive(folder, fingerprint) if not keep or not all(keep)}


def compact(
    folder: Path, fingerprint: Fingerprint, known: Mapping[str, str] = MappingProxyType({})
) -> int:
    """Rewrite parts without the chunks that later parts replaced or took away; returns how many chunks went.

    A damaged part stays as it is, and is reported: rewritten, it would carry a new checksum.
    """
    import pyarrow as pa

    removed, emptied = 0, []
    for path, table, keep in _alive(folder, fingerprint):
        if not any(keep):
            removed += len(keep)
            emptied.append(path)
        elif not all(keep):
            try:
                require_whole(path, table, known.get(path.name))
            except StoreError as error:
                progress.warn(str(error))
                continue
            removed += len(keep) - sum(keep)
            write_part(path, _sealed(table.filter(pa.array(keep))))
    for path in reversed(
        emptied
    ):  # what says that a document is gone outlives the parts that held it
        path.unlink()
    return removed
