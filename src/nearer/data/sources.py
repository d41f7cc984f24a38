"""Which files the configuration names, and where a BEIR folder keeps its own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

from nearer.config import Data
from nearer.errors import DataError

_PACKED = ("", ".gz", ".bz2", ".xz")
_FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_JUDGMENT_FORMATS = (".tsv", ".csv", ".jsonl", ".parquet", ".txt", ".qrels")
_DEV = dict.fromkeys(("dev", "valid", "val", "validation", "development"), "dev")
SPLIT_NAMES = {"train": "train", "training": "train", **_DEV, "test": "test"}


def bad(what: str, where: object, next_step: str = "mend that line") -> DataError:
    """The error for data that cannot be used."""
    return DataError(what, where=str(where), next_step=next_step)


def resolve(root: Path, text: str) -> Path:
    """The path that a setting means: `~` is the home folder, relative paths start at `root`."""
    return root / Path(text).expanduser()


def named(root: Path, text: str, key: str) -> Path:
    """The existing file or folder that configuration key `key` names.  Raises DataError."""
    path = resolve(root, text)
    if not path.exists():
        raise bad(f"{key} names a file that is not there", path, f"correct {key} in nearer.yaml")
    return path


def is_dataset(path: Path) -> bool:
    """Whether `path` is a folder that `datasets.load_from_disk` reads."""
    return (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()


def _locate(folder: Path, stem: str, formats: tuple[str, ...] = _FORMATS) -> Path | None:
    """`folder/stem` with any known ending, or a `datasets` folder of that name."""
    endings = [f"{ending}{packed}" for ending, packed in product(formats, _PACKED)]
    paths = [folder / f"{stem}{ending}" for ending in endings]
    existing = [path for path in paths if path.is_file()]
    if len(existing) > 1:
        names = ", ".join(path.name for path in existing)
        raise bad(
            f"{names}: which one counts?",
            folder,
            f"name one with data.{stem}, or remove the others",
        )
    if existing:
        return existing[0]
    if is_dataset(folder / stem):
        return folder / stem
    return None


def _locate_judgments(folder: Path) -> dict[str, Path]:
    """Judgment files of a BEIR folder by split; `all` where one file holds all of them."""
    inner = folder
    if (folder / "qrels").is_dir():
        inner = folder / "qrels"
    paths: dict[str, Path] = {}
    for name, split in SPLIT_NAMES.items():
        path = _locate(inner, name, _JUDGMENT_FORMATS)
        if path is None:
            continue
        if split in paths:
            names = f"{paths[split].name} and {path.name}"
            raise bad(f"{names} are both {split}", inner, "keep one of them")
        paths[split] = path
    if paths:
        return paths
    for where, stem in ((inner, "all"), (inner, "qrels"), (folder, "qrels")):
        path = _locate(where, stem, _JUDGMENT_FORMATS)
        if path is not None:
            return {"all": path}
    return {}


def corpus_file(data: Data, root: Path) -> Path:
    """The file of documents.  Raises DataError when none is named or found."""
    return _file(data, root, "corpus")


def queries_file(data: Data, root: Path) -> Path | None:
    """The file of queries; None when they come from the click log, or may be generated ones alone."""
    if (data.clicks or uses_generated(data)) and not data.queries:
        if not data.folder:
            return None
        if _locate(resolve(root, data.folder), "queries") is None:
            return None
    return _file(data, root, "queries")


def _file(data: Data, root: Path, what: str) -> Path:
    text: str | None = getattr(data, what)
    if text:
        return named(root, text, f"data.{what}")
    key = f"data.{what}"
    if not data.folder:
        raise bad(f"no {what} is named", key, f"set data.folder or {key} in nearer.yaml")
    folder = named(root, data.folder, "data.folder")
    path = _locate(folder, what)
    if path is None:
        expected = f"no {what}.jsonl (or .csv, .tsv, .parquet, also .gz) here"
        raise bad(f"{expected}: {_contents(folder)}", folder, f"name the file with {key}")
    return path


def _contents(folder: Path) -> str:
    """The first names in a folder, for a message."""
    if not folder.is_dir():
        return "not a folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:12]) or "it is empty"


def judgment_files(data: Data, root: Path) -> dict[str, Path]:
    """Judgment files by split (`all` when the split is not told by the file).

    Empty when clicks or generated queries stand in.
    """
    if isinstance(data.judgments, Mapping):
        files: dict[str, Path] = {}
        for split, text in data.judgments.items():
            files[split] = named(root, text, f"data.judgments.{split}")
        return files
    where = root
    located: dict[str, Path] = {}
    if data.judgments:
        where = named(root, data.judgments, "data.judgments")
        if not where.is_dir() or is_dataset(where):
            return {"all": where}
        located = _locate_judgments(where)
    elif data.folder:
        where = named(root, data.folder, "data.folder")
        located = _locate_judgments(where)
    if not located and not data.clicks and not uses_generated(data):
        mend = (
            "add qrels/train.tsv and qrels/test.tsv, or set data.judgments or data.clicks; with "
            "documents alone: nearer init DIR --documents FOLDER, then nearer generate"
        )
        raise bad("no judgments: nothing says which documents are relevant", where, mend)
    return located


def is_only_training(data: Data) -> bool:
    """Whether plain training files are all the data: nothing to search, and no judgments."""
    others = (data.folder, data.corpus, data.queries, data.judgments, data.clicks)
    return bool(data.training) and not any(others)


def uses_generated(data: Data) -> bool:
    """Whether the settings take in queries that `nearer generate` made."""
    return data.generated != "none" and not is_only_training(data)


def generated_files(data: Data, root: Path) -> dict[str, Path]:
    """The files of generated queries, by input; empty where the settings take in none.

    Raises DataError where they are not there yet.
    """
    if not uses_generated(data):
        return {}
    paths = {name: root / "generated" / name for name in ("queries.jsonl", "qrels.tsv")}
    for path in paths.values():
        if not path.is_file():
            raise bad(
                f"data.generated is {data.generated}, and no queries were generated yet",
                path,
                "nearer generate",
            )
    return {f"generated/{name}": path for name, path in paths.items()}


def training_files(data: Data, root: Path) -> list[Path]:
    """The plain training files, in the order in which they are named.  Raises DataError."""
    names = data.training or ()
    if isinstance(names, str):
        names = (names,)
    return [named(root, name, "data.training") for name in names]


def scored_files(data: Data, root: Path) -> dict[str, Path]:
    """Files of held-out scored pairs by split.  Raises DataError."""
    return {name: named(root, path, f"data.scored.{name}") for name, path in data.scored.items()}


def model_source(name: str, root: Path) -> Path | str:
    """The folder or file that a name means, or the name itself when there is no such path."""
    path = resolve(root, name)
    if path.exists():
        return path
    return name
