"""nearer.yaml as a whole: reading, checking, overriding and writing it.

Unknown keys are refused with the nearest known one.  The sections stand in `nearer.settings`; they
can be imported from here.  `template()` is what `nearer init` writes: every setting with its value
and its description as a comment; a test holds the two together.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from nearer.errors import ConfigError
from nearer.settings.analysis import Check, Diagnose, Evaluate, Fix
from nearer.settings.base import Section, Seed
from nearer.settings.data import Columns, Data, SplitSettings
from nearer.settings.decision import Decide, Guardrails
from nearer.settings.generate import Generate
from nearer.settings.live import Index, Monitor, Serve, Shadow
from nearer.settings.rag import Rag
from nearer.settings.review import Review
from nearer.settings.system import Model, Rerank, Search
from nearer.settings.tasks import Cluster, Recommend, TaskGuard, TaskName
from nearer.settings.training import Mine, Train

__all__ = [
    "Check",
    "Cluster",
    "Columns",
    "Config",
    "Data",
    "Decide",
    "Diagnose",
    "Evaluate",
    "Fix",
    "Generate",
    "Guardrails",
    "Index",
    "Mine",
    "Model",
    "Monitor",
    "Rag",
    "Recommend",
    "Rerank",
    "Review",
    "Search",
    "Section",
    "Serve",
    "Shadow",
    "SplitSettings",
    "TaskGuard",
    "Train",
    "build",
    "load",
    "template",
]


class Config(Section):
    """All of nearer.yaml."""

    run: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="results go to runs/<run>/",
    )
    seed: Seed = Field(7, description="splits, sampling, resampling; training has its own")
    data: Data = Data()
    model: Model = Model()
    search: Search = Search()
    rerank: Rerank = Rerank()
    check: Check = Check()
    evaluate: Evaluate = Evaluate()
    diagnose: Diagnose = Diagnose()
    fix: Fix = Fix()
    mine: Mine = Mine()
    train: Train = Train()
    decide: Decide = Decide()
    index: Index = Index()
    serve: Serve = Serve()
    shadow: Shadow = Shadow()
    monitor: Monitor = Monitor()
    review: Review = Review()
    rag: Rag = Rag()
    generate: Generate = Generate()
    task: TaskName = Field(
        "search", description="what the vectors are for: search, recommend or cluster"
    )
    recommend: Recommend = Recommend()
    cluster: Cluster = Cluster()

    def section(self, name: str) -> dict[str, Any]:
        """One section (or top-level value) as plain JSON values, for fingerprints."""
        value = getattr(self, name)
        if not isinstance(value, Section):
            return {"value": value}
        return value.model_dump(mode="json", exclude=set(value.without_effect))


def load(path: Path, overrides: Iterable[str] = (), run: str | None = None) -> Config:
    """Read nearer.yaml and apply `section.key=value` overrides.

    Raises ConfigError for a missing file, bad YAML, unknown keys and bad values.
    """
    if not path.is_file():
        raise ConfigError(
            "no configuration here",
            where=str(path),
            next_step="nearer init DIR --data FOLDER, or -c PATH",
        )
    try:
        values = _read_yaml(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError:
        what = "not valid YAML: the file is not UTF-8 text"
        raise ConfigError(what, where=str(path), next_step="save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ConfigError(
            f"not valid YAML: {problem}", where=where, next_step="mend that line"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            "the top level must be sections such as `data:`",
            where=str(path),
            next_step="see nearer init --help",
        )
    for override in overrides:
        _apply(values, override)
    if run is not None:
        values["run"] = run
    return build(values, where=str(path))


def defaults(overrides: Iterable[str] = ()) -> Config:
    """The settings where there is no nearer.yaml.  Raises ConfigError for overrides that are unknown."""
    values: dict[str, Any] = {}
    for override in overrides:
        _apply(values, override)
    return build(values, where="--set")


class _Yaml(yaml.SafeLoader):
    """YAML of settings: what looks like a date is text, and no key stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                what = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


#: The resolvers of plain YAML without the one that makes dates of texts.
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, shape) for tag, shape in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(text: str) -> Any:
    """Plain values.  Raises yaml.YAMLError, also for numbers and nesting beyond what Python reads."""
    try:
        return yaml.load(text, _Yaml)  # noqa: S506 - a safe loader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError:  # an integer of more than 4,300 digits
        raise yaml.YAMLError("a number has too many digits") from None


def build(values: Mapping[str, Any], where: str = "configuration") -> Config:
    """Config from plain values; pydantic's errors become one ConfigError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_readable(problem) for problem in error.errors()]
        raise ConfigError("; ".join(problems), where=where, next_step="mend that key") from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `section.key=value`; the value is YAML, or text where it is no YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {override!r} is not section.key=value",
            next_step="for example: --set train.epochs=1",
        )
    try:
        value = _read_yaml(text)
    except yaml.YAMLError:
        value = text
    *parents, leaf = key.strip().split(".")
    section = values
    for parent in parents:
        child = section.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(
                f"{parent!r} is not a section", where=f"--set {key}", next_step="see nearer.yaml"
            )
        section = child
    section[leaf] = value


def _readable(problem: Any) -> str:
    """One of pydantic's errors as a clause for people."""
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location)
    message = str(problem["msg"]).removeprefix("Value error, ")
    sentence = f"{message[:1].lower()}{message[1:]}"
    try:
        value = json.dumps(problem.get("input"), default=str)[:60]
    except (TypeError, ValueError, RecursionError):  # a key that is no text, a value inside itself
        value = f"a {type(problem.get('input')).__name__}"
    return f"{'.'.join(location)}: {sentence} (got {value})"


def _unknown_key(location: Sequence[str]) -> str:
    """The clause about a key that no section has, with the nearest key beside it."""
    *parents, last = location
    section: Any = Config
    for parent in parents:
        field = getattr(section, "model_fields", {}).get(parent)
        section = getattr(field, "annotation", None)
    known = list(getattr(section, "model_fields", {}))
    nearest = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
    hint = f"known here: {', '.join(known)}"
    if nearest:
        hint = f"did you mean {'.'.join([*parents, nearest[0]])}?"
    return f"unknown key {'.'.join(location)}; {hint}"


def template(config: Config, notes: Mapping[str, str] | None = None) -> str:
    """nearer.yaml with every setting, its value in `config` and its description as a comment.

    `notes` adds what `init` saw, by section name.
    """
    lines = ["# nearer.yaml: every setting with its value. Delete what you do not change.", ""]
    _write(config, lines, 0, notes or {})
    return "\n".join(lines).rstrip() + "\n"


def _entry(value: BaseModel) -> dict[str, Any]:
    """An entry of a list of settings, without what it leaves open."""
    return value.model_dump(mode="json", exclude_none=True)


def _write(section: BaseModel, lines: list[str], depth: int, notes: Mapping[str, str]) -> None:
    pad = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            if depth == 0:
                lines.append("")
            doc = (type(value).__doc__ or "").strip().splitlines()[0]
            lines.append(f"{pad}{name}:  # {doc}")
            lines.extend(f"{pad}  # {note}" for note in notes.get(name, "").splitlines())
            _write(value, lines, depth + 1, notes)
            continue
        text = json.dumps(value, ensure_ascii=False, default=_entry)
        comment = f"  # {field.description}" if field.description else ""
        lines.append(f"{pad}{name}: {text}{comment}")
