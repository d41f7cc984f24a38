"""What holds the product together: imports run downwards, help is everywhere, settings are documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import nearer
from nearer import config, lifecycle
from nearer.cli import app

SOURCE = Path(nearer.__file__).parent

#: Lowest first; a module may import what stands before it, and its own level where that is a package.
LEVELS = (
    {"errors"},
    {"types", "files", "progress", "text", "tables", "plugins", "records", "shortlist"},
    {"results", "settings"},
    {"config", "lifecycle"},
    {"data", "measure"},
    {"embed"},
    {"search"},
    {"tasks"},
    {"diagnosis"},
    {"rag"},
    {"fixes", "training", "guardrails"},
    {"decision"},
    {"project"},
    {"report"},
    {"generated"},
    {"live.traffic"},
    {"live.stores", "live.index"},
    {"live.rollout", "live.monitor"},
    {"live.web"},
    {"review"},
    {"workspace"},
    {"stages"},
    {"cli"},
    {"__init__", "__main__"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def place_of(parts: list[str]) -> str:
    """The level name of a module: its top folder, and one folder deeper below `live`."""
    return ".".join(parts[: 2 if parts[0] == "live" else 1])


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted nearer modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("nearer.")}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downwards_only(path: Path) -> None:
    place = place_of(list(path.relative_to(SOURCE).with_suffix("").parts))
    for name in imported(path):
        target = place_of(name.split(".")[1:])
        if target not in LEVEL:  # a name imported from the package itself
            continue
        assert (
            target == place
            or LEVEL[target] < LEVEL[place]
            or (place, target)
            in {("data", "measure"), ("live.stores", "live.index"), ("live.index", "live.stores")}
        ), f"{place} imports {name}"


def test_measure_and_data_do_not_depend_on_each_other_in_a_circle() -> None:
    into_data = {
        name
        for path in (SOURCE / "measure").rglob("*.py")
        for name in imported(path)
        if name.startswith("nearer.data")
    }
    assert into_data == set()


def test_stages_never_import_each_other() -> None:
    stages = {stage.name for stage in lifecycle.STAGES}
    for path in (SOURCE / "stages").glob("*.py"):
        others = {
            name.split(".")[2] for name in imported(path) if name.startswith("nearer.stages.")
        }
        assert not (others & stages) - {path.stem}, path.name


def test_measure_reads_no_clock_and_no_files() -> None:
    for path in (SOURCE / "measure").rglob("*.py"):
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in (
                node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")]
            )
        }
        assert not names & {"time", "datetime", "pathlib", "os", "io"}, path.name


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'datasets', 'scipy', 'pandas', 'bm25s', 'pydantic', 'numpy', 'lancedb', 'ray'}"
    code = f"import sys, nearer.cli; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_exported_names_exist() -> None:
    for name in nearer.__all__:
        assert getattr(nearer, name) is not None
    assert set(nearer.__all__) == set(dir(nearer))


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "check",
        "evaluate",
        "diagnose",
        "why",
        "fix",
        "mine",
        "train",
        "decide",
        "report",
        "run",
        "status",
        "demo",
        "generate",
        "export",
        "push",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Example: nearer" in result.output


def test_every_stage_has_a_command_and_a_module() -> None:
    commands = {command.name for command in app.registered_commands}
    for stage in lifecycle.STAGES:
        assert stage.name in commands | {"decide"}
        assert (SOURCE / "stages" / f"{stage.name}.py").is_file()
        assert set(stage.settings) <= set(config.Config.model_fields)


def test_every_live_stage_has_a_command_a_home_and_settings() -> None:
    groups = {group.name for group in app.registered_groups}
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    for stage in (*lifecycle.BEFORE, *lifecycle.LIVE):
        assert stage.name in groups | commands
        assert (SOURCE.parent / stage.module.replace(".", "/")).is_dir()
        assert set(stage.settings) <= set(config.Config.model_fields)


def test_every_stage_says_what_it_asks_and_writes() -> None:
    for stage in (*lifecycle.BEFORE, *lifecycle.STAGES, *lifecycle.LIVE):
        assert stage.question.endswith("?")
        assert stage.writes


def test_the_written_configuration_reads_back_to_the_same_settings() -> None:
    settings = config.build(
        {
            "train": {"learning_rate": 1e-5},
            "data": {"judgments": {"train": "a.tsv", "test": "b.tsv"}},
        }
    )
    assert config.build(yaml.safe_load(config.template(settings))) == settings


def test_every_setting_is_used_somewhere() -> None:
    declarations = {SOURCE / "config.py", *(SOURCE / "settings").glob("*.py")}
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in modules() if path not in declarations
    )

    def names(section: type[config.Section]) -> set[str]:
        found = set()
        for name, field in section.model_fields.items():
            inner = field.annotation
            found |= (
                names(inner)
                if isinstance(inner, type) and issubclass(inner, config.Section)
                else {name}
            )
        return found

    unused = {
        name for name in names(config.Config) if f".{name}" not in code and f'"{name}"' not in code
    }
    assert unused == set()


def test_no_product_file_is_too_long() -> None:
    lengths = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules()
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_a_long_function_says_why_it_is_long() -> None:
    """Most are of ten lines; what is longer than fifty has a reason beside it."""
    without_reason = []
    for path in modules():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
            reason = any("# Longer than fifty lines" in line for line in lines)
            if len(lines) > 50 and not reason:
                without_reason.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}")
    assert without_reason == []
