"""The built wheel is enough: an empty environment outside the clone runs the demo's beginning.

The environment borrows this one's installed libraries (by a path file, which does not bring the
editable install of nearer with it), so nothing is downloaded; `make wheel` installs everything anew.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with nearer's wheel in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves files behind
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for demo in ("cwe", "debian-related"):
        shutil.copytree(ROOT / "examples" / demo, source / "examples" / demo)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True, capture_output=True, cwd=folder)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    site = Path(
        sysconfig.get_path("purelib", vars={"base": str(environment)}, scheme="posix_prefix")
    )
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = next(folder.glob("*.whl"))
    install = [*pip, "install", "--quiet", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, cwd=folder)
    return environment / "bin"


def run(binaries: Path, arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(binaries / "python"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


def test_the_demo_begins_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    where = run(installed, ["-c", "import nearer; print(nearer.__file__)"], tmp_path)
    assert str(installed.parent) in where.stdout, where.stderr
    # The whole demo takes minutes; its first stage reads the data and the model that came along.
    begin = (
        "import sys; from nearer.cli import start; from pathlib import Path;"
        "path = start.prepare_demo(Path('nearer-demo')); print(path)"
    )
    prepared = run(installed, ["-c", begin], tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    checked = run(
        installed, ["-m", "nearer", "check", "--json", "-c", prepared.stdout.strip()], tmp_path
    )
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["stage"] == "check"
    told = (tmp_path / "nearer-demo" / "nearer.yaml").read_text()
    assert str(ROOT / "examples") not in told


def test_the_wheel_holds_all_that_the_package_reads(installed: Path) -> None:
    site = Path(
        sysconfig.get_path("purelib", vars={"base": str(installed.parent)}, scheme="posix_prefix")
    )
    package = ROOT / "src" / "nearer"
    wanted = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    present = {
        path.relative_to(site / "nearer").as_posix() for path in (site / "nearer").rglob("*")
    }
    assert wanted <= present, wanted - present
    assert {"examples/cwe/corpus.jsonl", "examples/cwe/LICENSE.txt"} <= present


#: Packages of extras that the tests do without, by the name of their module.
_ELSEWHERE = {"umap": "umap-learn"}


def test_everything_that_is_imported_is_declared() -> None:
    """What the borrowed libraries would hide: a package that nobody asks pip for."""
    declared = _declared((ROOT / "pyproject.toml").read_text())
    owners = packages_distributions()
    missing: dict[str, str] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            if name in sys.stdlib_module_names or name == "nearer":
                continue
            owned = owners.get(name, [_ELSEWHERE.get(name, name)])
            distributions = {_canonical(one) for one in owned}
            if not distributions & declared:
                missing[name] = path.name
    assert not missing


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _declared(project: str) -> set[str]:
    import tomllib

    described = tomllib.loads(project)["project"]
    wanted = list(described["dependencies"])
    for name, extra in described["optional-dependencies"].items():
        if name != "dev":
            wanted += extra
    return {_canonical(re.split(r"[\[<>=! ]", requirement)[0]) for requirement in wanted}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
