"""What a disk does wrong is told as such, exit code 2, however a library wraps it; user input never ends as a bug."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from generations_kit import World, documents, static_model
from nearer.cli import app
from nearer.cli.shared import boundary
from nearer.errors import DataError, DiskError
from nearer.files import atomic, disk_error, disk_errors, read_json, read_jsonl
from nearer.live.index.build import build


def wrapped(inner: Exception, outer: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


#: How libraries tell a disk that fails: safetensors and tokenizers (Rust), torch, NumPy, PyArrow, LanceDB.
TOLD: dict[str, Exception] = {
    "safetensors": Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    "tokenizers": Exception("No space left on device (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/0: file write failed"),
    "lance": RuntimeError("lance error: LanceError(IO): Generic LocalFileSystem error: Read-only file system (os error 30)"),
    "quota": RuntimeError("write: Disk quota exceeded"),
    "cause": wrapped(OSError(errno.EIO, "Input/output error", "/data/x"), RuntimeError("cannot save")),
    "plain": OSError(errno.EROFS, "Read-only file system", "/data/x"),
}  # fmt: skip


@pytest.mark.parametrize("library", TOLD)
def test_a_failing_disk_is_exit_code_2_with_what_where_and_next(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, boundary(True, False):
        raise TOLD[library]
    assert ended.value.exit_code == 2
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "DiskError"
    assert "run the same command again" in told["next"]
    with pytest.raises(DiskError) as error, disk_errors(Path("/there/model")):
        raise TOLD[library]
    assert error.value.where == "/there/model"


def test_what_is_no_disk_stays_a_bug() -> None:
    for error in (KeyError("x"), RuntimeError("shape mismatch"), ValueError("(os error x)")):
        assert disk_error(error) is None
        with pytest.raises(typer.Exit) as ended, boundary(True, False):
            raise error
        assert ended.value.exit_code == 3
    assert disk_error(DataError("No space left on device")) is None


def test_a_write_that_fails_says_where(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as error, atomic(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_the_model_is_copied_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "project", static_model(tmp_path / "model")).write(documents(range(8)))
    encoder = world.encoder()

    def save(*_: Any, **__: Any) -> None:
        raise TOLD["safetensors"]

    monkeypatch.setattr(encoder.model, "save", save)
    with pytest.raises(DiskError) as error:
        build(world.generations, world.corpus, encoder, "model", today=True)
    assert str(error.value.where).endswith("/model")
    monkeypatch.undo()
    assert build(world.generations, world.corpus, encoder, "model", today=True).embedded == 8


def test_a_maximum_length_for_a_static_model_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path / "project", static_model(tmp_path / "model")).write(documents(range(3)))
    world.settings["model"]["max_seq_length"] = 32
    (world.root / "nearer.yaml").write_text(json.dumps(world.settings))
    config = str(world.root / "nearer.yaml")
    done = CliRunner().invoke(app, ["index", "build", "--json", "-c", config])
    assert done.exit_code == 2, done.output
    told = json.loads(done.stdout)
    assert told["error"] == "ModelError"
    assert "model.max_seq_length" in told["next"]


@pytest.mark.parametrize("full", ["stdout", "both"])
def test_a_full_disk_behind_stdout_is_exit_code_2(full: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "b"}\n')
    (tmp_path / "nearer.yaml").write_text('{"data": {"corpus": "corpus.jsonl"}}')
    with open("/dev/full", "w") as device:
        streams = {"stdout": device, "stderr": device if full == "both" else subprocess.PIPE}
        done = subprocess.run(
            [sys.executable, "-m", "nearer", "index", "list", "--json"],
            cwd=tmp_path,
            env=os.environ,
            check=False,
            **streams,  # type: ignore[call-overload]
        )
    assert done.returncode == 2
    if full == "stdout":
        assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 10_000, "{", "\xff"])
def test_a_file_that_is_no_json_is_told_with_its_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + content.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        list(read_jsonl(path))
    path.write_bytes(content.encode("latin-1"))
    if not content.startswith("1"):
        with pytest.raises(DataError):
            read_json(path)
