"""The example plug-in package, installed: the contract suites run over what it brings, and a run uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]

#: Contract suites, and the tests of each that run over what is installed.
SUITES = {
    "losses": "finite_scalar or order_of_the_rows",
    "stores": "sqlite",
    "guardrails": "identical_systems or clearly_worse or rows_have_the_keys",
    "fixes": "courtesies",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the plug-in, as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    source = folder / "source"
    shutil.copytree(ROOT / "examples" / "plugin", source)  # a build leaves files beside the source
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--target", str(folder / "site"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def with_plugin(site: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python where the plug-in is installed."""
    paths = [str(site), str(ROOT / "src"), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_it_brings_stands_among_the_names(site: Path, tmp_path: Path) -> None:
    code = (
        "from nearer import plugins;"
        "print([plugins.names(seam)[-1] for seam in ('loss', 'store', 'guardrail', 'fix')])"
    )
    done = with_plugin(site, "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "['hardest', 'sqlite', 'identifiers', 'courtesies']", done.stderr


def test_it_passes_the_contract_suites(site: Path, tmp_path: Path) -> None:
    """In one process: loading the libraries takes longer than the tests."""
    files = [str(ROOT / "tests" / f"test_contract_{suite}.py") for suite in SUITES]
    chosen = " or ".join(f"(contract_{suite} and ({only}))" for suite, only in SUITES.items())
    options = ["-rpfEs", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")]
    done = with_plugin(site, "-m", "pytest", *options, "-k", chosen, *files, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    for suite in SUITES:
        assert f"PASSED tests/test_contract_{suite}.py" in done.stdout, done.stdout[-3000:]


def test_a_run_trains_fixes_and_decides_with_it(
    site: Path, write_project: Any, tmp_path: Path
) -> None:
    path = write_project(
        tmp_path / "project",
        train={"loss": "hardest"},
        fix={"fixes": ["courtesies", "hybrid"]},
        decide={"guardrails": {"more": ["identifiers"], "general": None}},
    )
    words = ["-m", "nearer", "run", "-c", str(path), "--json"]
    done = with_plugin(site, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = path.parent / "runs" / "default"
    assert json.loads((run / "train/summary.json").read_text())["settings"]["loss"] == "hardest"
    rungs = json.loads((run / "fix/summary.json").read_text())["rungs"]
    assert [rung["fix"] for rung in rungs] == ["courtesies", "hybrid"]
    assert "nearer_example" not in json.dumps(rungs[1])
