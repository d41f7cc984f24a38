"""Parts: the embedded documents of a generation as Arrow files that say which model made them.

A part is written to a temporary file, fsynced and renamed.  In the order of their names a later part
counts, and may also say that documents are gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nearer import files
from nearer.errors import FingerprintError, StoreError
from nearer.index.stores.base import Rows, Space
from nearer.retrieve.fingerprint import Fingerprint, Vectors

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
    return table.replace_schema_metadata(
        {"fingerprint": _identity(fingerprint), "gone": json.dumps(list(gone))}
    )


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
    """
    import pyarrow as pa

    where, mend = str(path), f"delete {path.name}, then run the same command again"
    try:
        with pa.memory_map(where) as source:
            table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        raise StoreError("this part is damaged", where=where, next_step=mend) from None
    meta = table.schema.metadata or {}
    if b"fingerprint" not in meta:
        raise FingerprintError(
            f"this part does not say which model made it (this one: {fingerprint.id})",
            where=where,
            next_step=mend,
        )
    if meta[b"fingerprint"] != _identity(fingerprint):
        fingerprint.require(
            Fingerprint.from_dict(json.loads(meta[b"fingerprint"]), where), where, mend
        )
    return table, json.loads(meta[b"gone"])


def read_rows(path: Path, space: Space, doc_ids: Sequence[str] | None = None) -> Rows:
    """A part as a store takes it; with `doc_ids` these documents alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table, _ = read_part(path, space.fingerprint)
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


def compact(folder: Path, fingerprint: Fingerprint) -> int:
    """Rewrite parts without the chunks that later parts replaced or took away; returns how many chunks went."""
    import pyarrow as pa

    removed, emptied, later = 0, [], set[str]()
    for path in sorted(folder.glob("[0-9]*.arrow"), reverse=True):
        table, gone = read_part(path, fingerprint)
        ids = table["doc_id"].to_pylist()
        keep = [doc_id not in later for doc_id in ids]
        later.update(ids, gone)
        removed += len(keep) - sum(keep)
        if not any(keep):
            emptied.append(path)
        elif not all(keep):
            write_part(path, table.filter(pa.array(keep)))
    for path in reversed(
        emptied
    ):  # what says that a document is gone outlives the parts that held it
        path.unlink()
    return removed
