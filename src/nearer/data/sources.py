"""Which files the configuration names, and where a BEIR folder keeps its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nearer.config import Config, Data
from nearer.errors import DataError

COMPRESSED = ("", ".gz", ".bz2", ".xz")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev", "development": "dev",
    "test": "test",
}  # fmt: skip


def resolve(root: Path, text: str) -> Path:
    """The path that a setting means: `~` is the home folder, relative paths start at `root`."""
    path = Path(text).expanduser()
    return path if path.is_absolute() else root / path


def named(root: Path, text: str, key: str) -> Path:
    """The existing file or folder that configuration key `key` names.  Raises DataError."""
    path = resolve(root, text)
    if not path.exists():
        raise DataError(f"{key} names a file that is not there", where=str(path), next_step=f"correct {key} in nearer.yaml")
    return path


def locate(folder: Path, stem: str, formats: tuple[str, ...] = FORMATS) -> Path | None:
    """`folder/stem` with any known ending, or a `datasets` folder of that name.  Raises DataError when there are two."""
    found = [path for ending in formats for packed in COMPRESSED if (path := folder / f"{stem}{ending}{packed}").is_file()]
    if not found and is_dataset(folder / stem):
        return folder / stem
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{names}: which one counts?", where=str(folder), next_step=f"name one with data.{stem}, or remove the others")
    return found[0] if found else None


def is_dataset(path: Path) -> bool:
    """Whether `path` is a folder that `datasets.load_from_disk` reads."""
    return (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()


def locate_judgments(folder: Path) -> dict[str, Path]:
    """Judgment files of a BEIR folder (or of its `qrels` folder) by split; `all` for one file without a split."""
    formats = (".tsv", ".csv", ".jsonl", ".parquet", ".txt", ".qrels")
    found: dict[str, Path] = {}
    inner = folder / "qrels" if (folder / "qrels").is_dir() else folder
    for name, split in SPLIT_NAMES.items():
        path = locate(inner, name, formats)
        if path is None:
            continue
        if split in found:
            raise DataError(f"{found[split].name} and {path.name} are both {split}", where=str(inner), next_step="keep one of them")
        found[split] = path
    for where, stem in ((inner, "all"), (inner, "qrels"), (folder, "qrels")):
        if not found and (path := locate(where, stem, formats)) is not None:
            found["all"] = path
    return found


def corpus_file(data: Data, root: Path) -> Path:
    """The file of documents.  Raises DataError when none is named or found."""
    return _file(data, root, "corpus")


def queries_file(data: Data, root: Path) -> Path | None:
    """The file of queries; None when they come from the click log."""
    if not data.queries and data.clicks and (not data.folder or locate(resolve(root, data.folder), "queries") is None):
        return None
    return _file(data, root, "queries")


def _file(data: Data, root: Path, what: str) -> Path:
    text: str | None = getattr(data, what)
    if text:
        return named(root, text, f"data.{what}")
    if not data.folder:
        raise DataError(f"no {what} is named", where=f"data.{what}", next_step=f"set data.folder or data.{what} in nearer.yaml")
    folder = named(root, data.folder, "data.folder")
    found = locate(folder, what)
    if found is None:
        seen = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) if folder.is_dir() else "not a folder"
        raise DataError(f"no {what}.jsonl (or .csv, .tsv, .parquet, also .gz) here: {seen or 'it is empty'}", where=str(folder),
                        next_step=f"name the file with data.{what}")  # fmt: skip
    return found


def judgment_files(data: Data, root: Path) -> dict[str, Path]:
    """Judgment files by split (`all` when the split is not told by the file); empty when clicks stand in."""
    if isinstance(data.judgments, Mapping):
        return {split: named(root, text, f"data.judgments.{split}") for split, text in data.judgments.items()}
    if data.judgments:
        path = named(root, data.judgments, "data.judgments")
        if not path.is_dir() or is_dataset(path):
            return {"all": path}
        found, where = locate_judgments(path), path
    elif data.folder:
        where = named(root, data.folder, "data.folder")
        found = locate_judgments(where)
    else:
        found, where = {}, root
    if not found and not data.clicks:
        raise DataError("no judgments: nothing says which documents are relevant", where=str(where),
                        next_step="add qrels/train.tsv and qrels/test.tsv, or set data.judgments or data.clicks")  # fmt: skip
    return found


def external_inputs(name: str, config: Config, root: Path) -> dict[str, Path | str] | None:
    """Inputs of a stage that lie outside the run, by key; None when `name` is not such an input.

    `data`: all files of the data section; `corpus`: the documents alone; `training`: the plain
    training file; `model`, `system`, `guard`: the model, the user's own search system and the
    general-ability set.  A value is a path (its content counts) or a string.  Raises DataError
    for a named file that is missing.
    """
    finder = _FINDERS.get(name)
    return finder(config, root) if finder else None


def _data(config: Config, root: Path) -> dict[str, Path | str]:
    data = config.data
    found: dict[str, Path | str] = {"corpus": corpus_file(data, root)}
    queries = queries_file(data, root)
    if queries:
        found["queries"] = queries
    found |= {f"judgments.{split}": path for split, path in judgment_files(data, root).items()}
    if data.clicks:
        found["clicks"] = named(root, data.clicks, "data.clicks")
    return found | _training(config, root)


def _corpus(config: Config, root: Path) -> dict[str, Path | str]:
    return {"corpus": corpus_file(config.data, root)}


def _training(config: Config, root: Path) -> dict[str, Path | str]:
    text = config.data.training
    return {"training": named(root, text, "data.training")} if text else {}


def _model(config: Config, root: Path) -> dict[str, Path | str]:
    return {"model": model_source(config.model.name, root)}


def model_source(name: str, root: Path) -> Path | str:
    """The folder that a model name means, or the name itself when there is no such folder."""
    path = resolve(root, name)
    return path if path.is_dir() else name


def _system(config: Config, root: Path) -> dict[str, Path | str]:
    search = config.search
    if search.system == "run" and search.run:
        runs = search.run if isinstance(search.run, Mapping) else {"run": search.run}
        return {f"run.{split}": named(root, text, "search.run") for split, text in runs.items()}
    if search.system == "function" and search.function:
        module = search.function.partition(":")[0].replace(".", "/")
        files = [path for path in (root / f"{module}.py", root / module / "__init__.py") if path.is_file()]
        return {"function": files[0] if files else search.function}
    return {"url": search.url} if search.system == "http" and search.url else {}


def _guard(config: Config, root: Path) -> dict[str, Path | str]:
    text = config.decide.guardrails.general
    if text is None or text == "builtin":
        return {"guard": text or "none"}
    folder = named(root, text, "decide.guardrails.general")
    return _data(Config(data=Data(folder=str(folder))), root)


_FINDERS = {"data": _data, "corpus": _corpus, "training": _training, "model": _model, "system": _system, "guard": _guard}
