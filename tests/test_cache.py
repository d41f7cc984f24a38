"""Vectors computed once stay computed, and never meet another model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from nearer.embed.encoder import SentenceEncoder
from nearer.errors import FingerprintError
from nearer.files import write_json

TEXTS = [f"weakness number {i} of the list" for i in range(20)]


def encoder(folder: Path, cache: Path, change: float = 0.0) -> SentenceEncoder:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    if change:
        with torch.no_grad():
            next(model.parameters())[0, 0] += change
    return SentenceEncoder(model, cache=cache)


def counted(made: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    forwarded: list[int] = []
    real = made._forward

    def forward(texts: list[str], *more: Any) -> np.ndarray:
        forwarded.append(len(texts))
        return real(texts, *more)

    monkeypatch.setattr(made, "_forward", forward)
    return forwarded


def folder_of(cache: Path) -> Path:
    return next((cache / "embeddings").iterdir())


def test_what_is_cached_is_not_computed_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encoder(tiny_model, tmp_path)
    vectors = first.encode(TEXTS, "document")
    again = encoder(tiny_model, tmp_path)
    forwarded = counted(again, monkeypatch)
    assert np.array_equal(again.encode(TEXTS[::-1], "document"), vectors[::-1])
    assert forwarded == []
    again.encode([*TEXTS, "new", "new"], "document")
    assert sum(forwarded) == 1  # the same new text twice is one text


def test_queries_and_documents_are_kept_apart(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoder(tiny_model, tmp_path)
    made.encode(TEXTS[:3], "document")
    forwarded = counted(made, monkeypatch)
    made.encode(TEXTS[:3], "query")
    assert sum(forwarded) == 3


def test_a_changed_model_in_the_same_folder_reuses_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder(tiny_model, tmp_path).encode(TEXTS, "document")
    changed = encoder(tiny_model, tmp_path, change=0.01)
    forwarded = counted(changed, monkeypatch)
    changed.encode(TEXTS, "document")
    assert sum(forwarded) == len(TEXTS)


@pytest.mark.parametrize(("name", "extra"), [("vectors.f32", b"x" * 100), ("keys.bin", b"x" * 40)])
def test_what_a_kill_left_half_written_is_cut_back(
    name: str, extra: bytes, tiny_model: Path, tmp_path: Path
) -> None:
    vectors = encoder(tiny_model, tmp_path).encode(TEXTS, "document")
    path = folder_of(tmp_path) / name
    path.write_bytes(path.read_bytes() + extra)
    assert np.array_equal(encoder(tiny_model, tmp_path).encode(TEXTS, "document"), vectors)
    more = encoder(tiny_model, tmp_path).encode(["another", *TEXTS], "document")
    assert np.array_equal(more[1:], vectors)


def test_lost_rows_are_computed_again(tiny_model: Path, tmp_path: Path) -> None:
    vectors = encoder(tiny_model, tmp_path).encode(TEXTS, "document")
    path = folder_of(tmp_path) / "vectors.f32"
    path.write_bytes(path.read_bytes()[: 7 * 4 * vectors.shape[1] + 3])
    assert np.allclose(encoder(tiny_model, tmp_path).encode(TEXTS, "document"), vectors, atol=1e-6)


def test_finished_blocks_survive_an_interruption(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearer.embed.encoder._BLOCK", 5)
    made = encoder(tiny_model, tmp_path)
    real = made.compute
    done: list[int] = []

    def killed(texts: Any, *more: Any) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(texts))
        return real(texts, *more)

    monkeypatch.setattr(made, "compute", killed)
    with pytest.raises(KeyboardInterrupt):
        made.encode(TEXTS, "document")
    resumed = encoder(tiny_model, tmp_path)
    forwarded = counted(resumed, monkeypatch)
    resumed.encode(TEXTS, "document")
    assert sum(forwarded) == len(TEXTS) - 10


def test_vectors_without_a_fingerprint_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    encoder(tiny_model, tmp_path).encode(TEXTS[:2], "document")
    (folder_of(tmp_path) / "fingerprint.json").unlink()
    with pytest.raises(FingerprintError, match="without a fingerprint"):
        encoder(tiny_model, tmp_path)


def test_an_edited_fingerprint_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    encoder(tiny_model, tmp_path).encode(TEXTS[:2], "document")
    path = folder_of(tmp_path) / "fingerprint.json"
    path.write_text(path.read_text().replace('"max_seq_length": 64', '"max_seq_length": 32'))
    with pytest.raises(FingerprintError, match="edited"):
        encoder(tiny_model, tmp_path)


#: Keeps the vectors of twenty texts, one after the other, as an encoder does: FOLDER FIRST PREFIX.
WRITER = """
import sys
from pathlib import Path
import numpy as np
from nearer.embed.cache import EmbeddingCache
from nearer.embed.fingerprint import Fingerprint
from nearer.files import read_json

folder, first, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
table = np.load(folder / "vectors.npy")
said = folder / "fingerprint.json"
cache = EmbeddingCache(folder / "cache", Fingerprint.from_dict(read_json(said), str(said)))
for number in range(first, first + 20):
    cache.through([f"text {number}"], f"{kind}\\0\\0", lambda texts: table[[number]])
"""


def test_two_processes_may_append_at_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number}" for number in range(30)]
    cached = encoder(tiny_model, tmp_path / "cache")
    expected = cached.without_cache().encode(texts, "document")
    np.save(tmp_path / "vectors.npy", expected)
    write_json(tmp_path / "fingerprint.json", cached.fingerprint.as_dict())
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(first), "document"]) for first in (0, 10)]
    assert [writer.wait() for writer in writers] == [0, 0]
    again = encoder(tiny_model, tmp_path / "cache")
    forwarded = counted(again, monkeypatch)
    assert np.array_equal(again.encode(texts, "document"), expected)
    assert forwarded == []
