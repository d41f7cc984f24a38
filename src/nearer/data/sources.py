"""Which files the configuration names, and where a BEIR folder keeps its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nearer.config import Config, Data
from nearer.errors import DataError

COMPRESSED = ("", ".gz", ".bz2", ".xz")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
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


def _locate(folder: Path, stem: str, formats: tuple[str, ...] = FORMATS) -> Path | None:
    """`folder/stem` with any known ending, or a `datasets` folder of that name."""
    found = [
        path
        for ending in formats
        for packed in COMPRESSED
        if (path := folder / f"{stem}{ending}{packed}").is_file()
    ]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise bad(
            f"{names}: which one counts?",
            folder,
            f"name one with data.{stem}, or remove the others",
        )
    if not found and is_dataset(folder / stem):
        return folder / stem
    return found[0] if found else None


def _locate_judgments(folder: Path) -> dict[str, Path]:
    inner = folder / "qrels" if (folder / "qrels").is_dir() else folder
    found: dict[str, Path] = {}
    for name, split in SPLIT_NAMES.items():
        path = _locate(inner, name, _JUDGMENT_FORMATS)
        if path and split in found:
            raise bad(
                f"{found[split].name} and {path.name} are both {split}", inner, "keep one of them"
            )
        found |= {split: path} if path else {}
    for where, stem in ((inner, "all"), (inner, "qrels"), (folder, "qrels")):
        if not found and (path := _locate(where, stem, _JUDGMENT_FORMATS)):
            found["all"] = path
    return found


def corpus_file(data: Data, root: Path) -> Path:
    """The file of documents.  Raises DataError when none is named or found."""
    return _file(data, root, "corpus")


def queries_file(data: Data, root: Path) -> Path | None:
    """The file of queries; None when they come from the click log."""
    if (
        not data.queries
        and data.clicks
        and (not data.folder or _locate(resolve(root, data.folder), "queries") is None)
    ):
        return None
    return _file(data, root, "queries")


def _file(data: Data, root: Path, what: str) -> Path:
    text: str | None = getattr(data, what)
    if text:
        return named(root, text, f"data.{what}")
    if not data.folder:
        raise bad(
            f"no {what} is named", f"data.{what}", f"set data.folder or data.{what} in nearer.yaml"
        )
    folder = named(root, data.folder, "data.folder")
    found = _locate(folder, what)
    if found is None:
        seen = (
            ", ".join(sorted(path.name for path in folder.iterdir())[:12])
            if folder.is_dir()
            else "not a folder"
        )
        message = (
            f"no {what}.jsonl (or .csv, .tsv, .parquet, also .gz) here: {seen or 'it is empty'}"
        )
        raise bad(message, folder, f"name the file with data.{what}")
    return found


def judgment_files(data: Data, root: Path) -> dict[str, Path]:
    """Judgment files by split (`all` when the split is not told by the file); empty when clicks stand in."""
    if isinstance(data.judgments, Mapping):
        return {
            split: named(root, text, f"data.judgments.{split}")
            for split, text in data.judgments.items()
        }
    text = data.judgments or data.folder
    where = (
        named(root, text, "data.judgments" if data.judgments else "data.folder") if text else root
    )
    if data.judgments and (not where.is_dir() or is_dataset(where)):
        return {"all": where}
    found = _locate_judgments(where) if text else {}
    if not found and not data.clicks:
        mend = "add qrels/train.tsv and qrels/test.tsv, or set data.judgments or data.clicks"
        raise bad("no judgments: nothing says which documents are relevant", where, mend)
    return found


def external_inputs(  # noqa: PLR0911 - one return a kind
    name: str, config: Config, root: Path
) -> Mapping[str, Path | str] | None:
    """Inputs of a stage that lie outside the run, by key; None when `name` is not such an input.

    `bridge`: the generation that decide.bridge names; `data`: all files of the data section; `corpus`: the documents alone; `training`: the plain
    training file; `model`, `other models`, `system`, `guard`: the model, what `fix` and `rerank`
    name, the user's own search system and the general-ability set.  A value is a path (its content counts) or a string.  Raises DataError
    for a named file that is missing.
    """
    data, guard = config.data, config.decide.guardrails.general
    match name:
        case "data":
            return _data(data, root)
        case "corpus":
            return {"corpus": corpus_file(data, root)}
        case "training":
            return (
                {"training": named(root, data.training, "data.training")} if data.training else {}
            )
        case "model":
            return {"model": model_source(config.model.name, root)}
        case "other models":
            named_ones = {*config.fix.models, *config.fix.rewriters, config.rerank.model} - {
                None,
                "train",
                "acronyms",
            }
            return {str(one): model_source(str(one), root) for one in sorted(map(str, named_ones))}
        case "system":
            return _system(config, root)
        case "bridge":
            return _bridge(config, root)
        case "guard" if guard in (None, "builtin"):
            return {"guard": guard or "none"}
        case "guard":
            return _data(
                Data(folder=str(named(root, str(guard), "decide.guardrails.general"))), root
            )
    return None


def _data(data: Data, root: Path) -> dict[str, Path]:
    found = {"corpus": corpus_file(data, root)}
    if queries := queries_file(data, root):
        found["queries"] = queries
    found |= {f"judgments.{split}": path for split, path in judgment_files(data, root).items()}
    more = {"clicks": data.clicks, "training": data.training}
    return found | {key: named(root, text, f"data.{key}") for key, text in more.items() if text}


def model_source(name: str, root: Path) -> Path | str:
    """The folder or file that a name means, or the name itself when there is no such path."""
    path = resolve(root, name)
    return path if path.exists() else name


def _bridge(config: Config, root: Path) -> dict[str, Path | str]:
    """What a generation of `nearer index bridge` computes with: its bridge and its model."""
    name = config.decide.bridge
    if not name:
        return {}
    folder = root / "generations" / name
    return {
        part: model_source(str(folder / part), root) for part in ("bridge.safetensors", "model")
    }


def _system(config: Config, root: Path) -> Mapping[str, Path | str]:
    search = config.search
    if search.system == "run" and search.run:
        runs = search.run if isinstance(search.run, Mapping) else {"run": search.run}
        return {f"run.{split}": named(root, text, "search.run") for split, text in runs.items()}
    if search.system == "function" and search.function:
        return {"function": _module_file(search.function, root)}
    if ":" in search.system:
        return {"retriever": _module_file(search.system, root)}
    return {"url": search.url} if search.system == "http" and search.url else {}


def _module_file(name: str, root: Path) -> Path | str:
    """The file of the user's `module:name` in the project's folder; the name itself where it lies elsewhere."""
    module = name.partition(":")[0].replace(".", "/")
    for path in (root / f"{module}.py", root / module / "__init__.py"):
        if path.is_file():
            return path
    return name
