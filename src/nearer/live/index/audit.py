"""Are the parts of a generation whole, and does its store hold what they say?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nearer.embed.compress import decode_rows, encode_rows
from nearer.embed.fingerprint import Vectors
from nearer.errors import NearerError
from nearer.live.index.manifest import Manifest
from nearer.live.index.parts import parts_in, read_part, read_rows, require_whole
from nearer.live.stores.base import Rows, Space, VectorStore
from nearer.live.stores.vectors import fit, spec

_BATCH = 512  # documents compared at once
_NEAR = 1e-6  # a stored component may differ from its part by the rounding of one addition
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report of `verify`."""

    passed: bool
    text: str


def check_parts(manifest: Manifest, folder: Path) -> Finding:
    """Every part against its own checksum and the one in the manifest."""
    problems, unchecked = [], 0
    paths = parts_in(folder)
    for path in paths:
        expected = manifest.parts.get(path.name)
        try:
            table, _ = read_part(path, manifest.fingerprint)
            require_whole(path, table, expected)
            carries = table.schema.metadata.get(b"checksum") is not None
            unchecked += expected is None and not carries
        except NearerError as error:
            problems.append(f"{path.name}: {error.what}")
    if problems:
        more = len(problems) - _SHOWN
        rest = f", and {more} more" if more > 0 else ""
        text = f"{len(problems)} of {len(paths)} parts: {'; '.join(problems[:_SHOWN])}{rest}"
        return Finding(False, text)
    text = f"{len(paths)} parts have the checksums that were written with them"
    if unchecked:
        text += f"; {unchecked} are of an older version, which wrote none"
    missing = len(manifest.parts.keys() - {path.name for path in paths})
    if missing:
        text += f"; {missing} were deleted"
    return Finding(True, text)


def compare_with_parts(store: VectorStore, manifest: Manifest, folder: Path) -> Finding:
    """Every stored chunk (text, metadata, hash, vector) against the part that it came from."""
    space, compared, wrong = manifest.space, 0, list[str]()
    for path, doc_ids in _latest(manifest, folder):
        expected = manifest.parts.get(path.name)
        for start in range(0, len(doc_ids), _BATCH):
            batch = doc_ids[start : start + _BATCH]
            try:
                rows = read_rows(path, space, batch, expected)
            except NearerError as error:
                return Finding(False, f"{path.name}: {error.what}")
            wrong.extend(_differences(space, rows, store.fetch(space, batch)))
            compared += len(batch)
    documents, _ = store.count(space)
    if wrong:
        named = ", ".join(wrong[:_SHOWN])
        return Finding(
            False, f"{len(wrong)} of {compared} documents differ from their part: {named}"
        )
    if compared < documents:
        text = f"{documents - compared} of {documents} documents have no part to compare with"
        return Finding(False, f"{text} (parts were deleted); the others agree")
    return Finding(True, f"all {documents} documents agree with their parts, every vector included")


def _latest(manifest: Manifest, folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each part with the documents for which it is the last word, that are not gone."""
    later = set[str]()
    for path in reversed(parts_in(folder)):
        table, gone = read_part(path, manifest.fingerprint)
        doc_ids = list(dict.fromkeys(table["doc_id"].to_pylist()))
        living = [doc_id for doc_id in doc_ids if doc_id not in later]
        later.update(doc_ids, gone)
        if living:
            yield path, living


def _differences(space: Space, rows: Rows, stored: Rows) -> list[str]:
    """The documents that a store holds otherwise than their part says."""
    exact = fit(space, rows.vectors, f"parts of {space.generation}")
    exact = decode_rows(encode_rows(exact, spec(space), space.fingerprint.similarity), spec(space))
    wanted = _chunks(replace(rows, vectors=Vectors(exact, space.fingerprint)))
    held = _chunks(stored)
    different = []
    for chunk_id in sorted(wanted.keys() | held.keys()):
        ours, theirs = wanted.get(chunk_id), held.get(chunk_id)
        if ours is None or theirs is None:
            different.append(chunk_id)
            continue
        scale = max(1.0, float(np.abs(ours[1]).max(initial=0.0)))
        near = np.abs(ours[1] - theirs[1]).max(initial=0.0) <= _NEAR * scale
        if ours[0] != theirs[0] or not near:
            different.append(chunk_id)
    return sorted({chunk_id.rsplit("#", 1)[0] for chunk_id in different})


def _chunks(rows: Rows) -> dict[str, tuple[tuple[object, ...], np.ndarray]]:
    """Chunk id → what is kept of it, and its vector."""
    columns = zip(rows.chunk_ids, rows.doc_ids, rows.texts, rows.hashes, strict=True)
    chunks: dict[str, tuple[tuple[object, ...], np.ndarray]] = {}
    for row, (chunk_id, doc_id, text, content) in enumerate(columns):
        told = json.dumps([text, dict(rows.metadata[row])], sort_keys=True)
        kept = told.replace("\\u0000", "\\ufffd")  # what PostgreSQL keeps instead
        chunks[chunk_id] = (doc_id, kept, content), rows.vectors.array[row]
    return chunks
