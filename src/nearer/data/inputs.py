"""What each stage reads from outside its run: files whose content counts, and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nearer import shortlist
from nearer.config import Config, Data
from nearer.data.reviewed import pooled_files
from nearer.data.sources import (
    corpus_file,
    generated_files,
    is_only_training,
    judgment_files,
    model_source,
    named,
    queries_file,
    scored_files,
    training_files,
)

#: Inputs of a stage by key: a path, whose content counts, or a string.
Inputs = Mapping[str, Path | str]


def external_inputs(  # noqa: PLR0911, PLR0912 - one branch per kind
    name: str, config: Config, root: Path
) -> Inputs | None:
    """Inputs of a stage that lie outside the run, by key; None when `name` is not such an input.

    `bridge`: the generation that decide.bridge names; `data`: all files of the data section, what
    was generated where it is used, and what was reviewed; `review`: what the reviews say of themselves;
    `corpus`: the documents alone; `training`: the plain training file; `model`, `other models`,
    `reranker`, `second model`, `system`, `guard`: the model, what `fix` and `rerank` name, what
    `rerank` and what `mine.model` name, the user's own search system and the
    general-ability set; `loss`: the user's own loss, the teacher and the general set of training;
    `guardrails`: modules of the user's own; `graded`: answers that people graded; `production`:
    which generation answers, the shadow records, and whether it is monitored.
    A value is a path (its content counts) or a string.  Raises DataError for a named file that is
    missing.
    """
    match name:
        case "data":
            paths = {**_of_task(config, root), **generated_files(config.data, root)}
            return {**paths, **_reviewed(config.data, root)}
        case "review":
            return _kept(root / "review", "history.jsonl", "summary.json", "odd_one_out.json")
        case "corpus":
            return _corpus(config.data, root)
        case "training":
            return _training(config.data, root)
        case "model":
            return {"model": _model(config.model.name, root)}
        case "other models":
            return _other_models(config, root)
        case "reranker":
            return _reranker(config, root)
        case "second model":
            return _second_model(config, root)
        case "system":
            return _system(config, root)
        case "bridge":
            return _bridge(config, root)
        case "loss":
            return _loss(config, root)
        case "guardrails":
            tasks = [guard.task for guard in config.decide.guards or ()]
            return _own_modules([*config.decide.guardrails.more, *tasks], root)
        case "guard":
            return _guard(config, root)
        case "graded":
            return _graded(config, root)
        case "production":
            return _production(root)
    return None


def _corpus(data: Data, root: Path) -> dict[str, Path]:
    if is_only_training(data):
        return _training(data, root)
    return {"corpus": corpus_file(data, root)}


def _of_task(config: Config, root: Path) -> dict[str, Path]:
    """The files of a task: documents alone say what a cluster task needs, or a log beside them."""
    if config.task == "cluster":
        return {"corpus": corpus_file(config.data, root)} | _training(config.data, root)
    log = config.recommend.interactions
    if config.task == "recommend" and log:
        paths = {"corpus": corpus_file(config.data, root)}
        paths["interactions"] = named(root, log, "recommend.interactions")
        return paths | _training(config.data, root)
    return _data(config.data, root)


def _data(data: Data, root: Path) -> dict[str, Path]:
    if is_only_training(data):
        held_out = scored_files(data, root)
        return _training(data, root) | {f"scored.{name}": held_out[name] for name in held_out}
    paths = {"corpus": corpus_file(data, root)}
    queries = queries_file(data, root)
    if queries:
        paths["queries"] = queries
    for split, path in judgment_files(data, root).items():
        paths[f"judgments.{split}"] = path
    if data.clicks:
        paths["clicks"] = named(root, data.clicks, "data.clicks")
    return paths | _training(data, root)


def _reviewed(data: Data, root: Path) -> dict[str, Path]:
    """Judgments that people made later (see `nearer.data.reviewed`)."""
    if is_only_training(data):
        return {}
    pools = {f"{path.parent.name}/{path.name}": path for path in pooled_files(root)}
    return _kept(root / "review", "qrels.tsv") | pools


def _kept(folder: Path, *names: str) -> dict[str, Path]:
    """Those files of a folder that are there, under `FOLDER/NAME`."""
    paths = {f"{folder.name}/{name}": folder / name for name in names}
    return {key: path for key, path in paths.items() if path.is_file()}


def _training(data: Data, root: Path) -> dict[str, Path]:
    """`training`, and `training.2` and so on where there are several files."""
    inputs: dict[str, Path] = {}
    for number, path in enumerate(training_files(data, root), start=1):
        key = "training" if number == 1 else f"training.{number}"
        inputs[key] = path
    return inputs


def _other_models(config: Config, root: Path) -> Inputs:
    """What `fix` and `rerank` name, without the names that stand for something of ours."""
    names = {*config.fix.models, *config.fix.rewriters}
    if config.rerank.model is not None:
        names.add(config.rerank.model)
    names -= {"train", "acronyms", "static", shortlist.AUTO}
    inputs: dict[str, Path | str] = dict(_own_modules(config.fix.fixes, root))
    inputs |= _automatic(config)
    for name in sorted(names):
        inputs[name] = _model(name, root)
    return inputs


def _automatic(config: Config) -> dict[str, Path | str]:
    """What `auto` stands for: the models that are here or can be had, by name."""
    inputs: dict[str, Path | str] = {}
    if shortlist.AUTO in config.fix.models:
        here = shortlist.names(shortlist.available(shortlist.encoders()))
        here += [f"{folder.parent.name}/{folder.name}" for folder in shortlist.carried()]
        inputs["auto models"] = ", ".join(here)
    if config.rerank.automatic:
        here = shortlist.names(shortlist.available(shortlist.rerankers()))
        inputs["auto reranker"] = ", ".join(here)
    return inputs


def _reranker(config: Config, root: Path) -> Inputs:
    name = config.rerank.model
    if name is None or not config.rerank.named or name == "train":
        return {}
    return {name: model_source(name, root)}


def _second_model(config: Config, root: Path) -> Inputs:
    name = config.mine.model
    return {} if name is None else {name: model_source(name, root)}


def _loss(config: Config, root: Path) -> Inputs:
    """What training learns with besides its examples: the user's own loss, the teacher, its general set."""
    inputs = dict(_own_modules([config.train.loss], root))
    if config.train.teacher is not None:
        inputs["teacher"] = model_source(config.train.teacher, root)
    if config.train.general not in (None, "builtin"):
        for key, source in _general_folder(config.train.general, "train.general", root).items():
            inputs[f"general {key}"] = source
    return inputs


def _guard(config: Config, root: Path) -> Inputs:
    """The general-ability set."""
    folder = config.decide.guardrails.general
    if folder is None or folder == "builtin":
        return {"guard": folder or "none"}
    return _general_folder(folder, "decide.guardrails.general", root)


def _graded(config: Config, root: Path) -> Inputs:
    """The answers that people graded, which the judge of answers is compared with."""
    if config.rag.graded is None:
        return {}
    return {"graded": named(root, config.rag.graded, "rag.graded")}


def _general_folder(folder: str, setting: str, root: Path) -> Inputs:
    """The files of a general set of the user's own, which `setting` names."""
    return _data(Data(folder=str(named(root, folder, setting))), root)


def _model(name: str, root: Path) -> Path | str:
    """What the vectors of a model depend on, as far as it is here: its folder, or the file of a class."""
    source = model_source(name, root)
    if isinstance(source, str) and ":" in name:
        return _own_module(name, root)
    return source


def _bridge(config: Config, root: Path) -> Inputs:
    """What a generation of `nearer index bridge` computes with: its bridge and its model."""
    name = config.decide.bridge
    if not name:
        return {}
    folder = root / "generations" / name
    inputs: dict[str, Path | str] = {}
    for part in ("bridge.safetensors", "model"):
        inputs[part] = model_source(str(folder / part), root)
    return inputs


#: Key of a run file by its split, or by "run" where one file holds all.
_RUN = "run.{}"


def _system(config: Config, root: Path) -> Inputs:
    """The user's own search system, and what reads filters out of queries."""
    inputs = dict(_searched(config, root))
    if config.search.extract:
        inputs["extract"] = _own_module(config.search.extract, root)
    return inputs


def _searched(config: Config, root: Path) -> Inputs:
    search = config.search
    if search.system == "run" and search.run:
        if isinstance(search.run, str):
            return {_RUN.format("run"): named(root, search.run, "search.run")}
        runs: dict[str, Path] = {}
        for split, text in search.run.items():
            runs[_RUN.format(split)] = named(root, text, "search.run")
        return runs
    if search.system == "function" and search.function:
        return {"function": _own_module(search.function, root)}
    if ":" in search.system:
        return {"retriever": _own_module(search.system, root)}
    if search.system == "http" and search.url:
        return {"url": search.url}
    return {}


def _production(root: Path) -> Inputs:
    """What production says that a report repeats.  That it is monitored counts, not every day of it."""
    inputs: dict[str, Path | str] = {}
    for name in ("generations/ACTIVE", "shadow"):
        path = root / name
        inputs[name] = path if path.exists() else "none"
    monitored = (root / "monitor" / "report.json").is_file()
    inputs["monitor"] = "monitored" if monitored else "none"
    return inputs


def _own_modules(names: Iterable[str], root: Path) -> dict[str, Path | str]:
    """The files of those names that are `"module:Class"`, by name."""
    return {name: _own_module(name, root) for name in names if ":" in name}


def _own_module(name: str, root: Path) -> Path | str:
    """The file of `"module:name"` in `root`, or the name itself where it lies elsewhere."""
    module = name.partition(":")[0].replace(".", "/")
    for path in (root / f"{module}.py", root / module / "__init__.py"):
        if path.is_file():
            return path
    return name
