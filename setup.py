"""The one thing pyproject.toml cannot say: the demo's data travels inside the wheel.

It lies in examples/cwe, where readers of the repository look for it; `nearer demo` finds it there in
a clone, and in nearer/examples/cwe after `pip install nearer[demo]`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DEMO = Path("examples") / "cwe"


class BuildWithDemo(build_py):
    """Copies the demo's data beside the modules of a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "nearer" / DEMO
            shutil.copytree(DEMO, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithDemo})
