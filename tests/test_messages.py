"""Every setting and every command that a text of the product names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

import nearer
from nearer import config
from nearer.cli import app

SOURCE = Path(nearer.__file__).parent
COMMAND_LINE: Any = typer.main.get_command(app)
SECTIONS = {
    name: field.annotation
    for name, field in config.Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, config.Section)
}
_SETTING = re.compile(
    rf"(?<![\w./{{}}-])({'|'.join(SECTIONS)})((?:\.[a-z_]+)+)(?![\w/(])(?!\.[a-z*])"
)
#: Files that are called like settings.
_FILES = re.compile(
    r"\.(?:tsv|jsonl|json|npz|parquet|csv|html|js|md|py|bin|yaml|gz|safetensors|css|trec|prom|db|pt|pth|onnx|xml)$"
)
_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")
_SET = re.compile(r"(?:^|\s)(?:--)?set ([a-z_]+(?:\.[a-z_]+)+)")
#: Modules of libraries.
_NO_SETTINGS = {"ray.data"}
#: `nearer` as an adverb, and as the name of the product before other words.
_COMMAND = re.compile(r"(?:^|(?<=[\s`(→'\"]))nearer ([a-z][^\n`;()\[→…]*)")
_PROSE = {
    "than",
    "the",
    "what",
    "does",
    "has",
    "makes",
    "keeps",
    "and",
    "in",
    "is",
    "itself",
    "to",
    "raises",
    "wrote",
    "adds",
}


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a file with its line, placeholders in place of what f-strings put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            yield node.lineno, str(node.value)


def unknown_settings(text: str) -> list[str]:
    found = [name for name in _named(text) if name.split(".")[0] not in SECTIONS]
    for match in _SETTING.finditer(text):
        name = match.group()
        if not _FILES.search(name) and not _exists(SECTIONS[match[1]], match[2][1:].split(".")):
            found.append(name)
    return found


def _named(text: str) -> list[str]:
    """What can be nothing but a setting: a text that is dotted words alone, or follows "set"."""
    alone = [text] if _DOTTED.fullmatch(text) else []
    names = alone + _SET.findall(text)
    return [
        name
        for name in names
        if not _FILES.search(name)
        and not name.startswith(("nearer.", "http."))
        and name not in _NO_SETTINGS
    ]


def _exists(section: Any, names: list[str]) -> bool:
    field = section.model_fields.get(names[0])
    if field is None:
        return False
    inner = field.annotation
    if len(names) == 1:
        return True
    if isinstance(inner, type) and issubclass(inner, config.Section):
        return _exists(inner, names[1:])
    return "dict" in str(inner)


def unknown_commands(text: str) -> list[str]:
    found = []
    for match in _COMMAND.finditer(text):
        # a comma, a full stop or `&&` ends a command
        words = re.split(r"[,.:!?]?(?:\s|$)+|\s*&&\s*", re.split(r",\s|\.\s|&&", match[1])[0])
        if words[0] in _PROSE:
            continue
        problem = _problem(COMMAND_LINE, [word for word in words if word])
        if problem:
            found.append(f"nearer {match[1].strip()}: {problem}")
    return found


def _problem(command: Any, words: list[str]) -> str:
    """What is wrong with the words of a command line; empty when nothing is."""
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not words or words[0].startswith(("-", "{")):
            return ""
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {name for one in command.params for name in one.opts} | {"--help"}
    wrong = [word for word in words if word.startswith("-") and _option(word) not in options]
    return f"no option {wrong[0]}" if wrong else ""


def _option(word: str) -> str:
    return word.split("=", maxsplit=1)[0].rstrip(".,:;'\"”")


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_setting_that_a_text_names_exists(path: Path) -> None:
    found = [(line, name) for line, text in literals(path) for name in unknown_settings(text)]
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_command_that_a_text_names_exists(path: Path) -> None:
    found = [(line, name) for line, text in literals(path) for name in unknown_commands(text)]
    assert found == []


def test_what_does_not_exist_is_noticed() -> None:
    assert unknown_settings("rewrite.function") == ["rewrite.function"]
    assert unknown_settings("please --set rewriting.with=x") == ["rewriting.with"]
    assert unknown_settings("either search.sistem or data.columns.idd") == [
        "search.sistem",
        "data.columns.idd",
    ]
    assert unknown_settings("set data.columns.id or decide.guardrails.general_margin") == []
    assert unknown_settings("look at train.tsv or data.judgments.train") == []
    assert [each.split(": ")[1] for each in unknown_commands("→ nearer indexx build")] == [
        "no command indexx"
    ]
    assert unknown_commands("run nearer index bild --force, then see") != []
    assert unknown_commands("nearer index build --fast") != []
    assert unknown_commands("nearer run --from mine --set mine.negatives=2") == []
    assert unknown_commands("the right one is nearer than the others") == []
