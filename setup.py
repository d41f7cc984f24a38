"""The one thing pyproject.toml cannot say: the data of the demos travels inside the wheel.

It lies in examples/, where readers of the repository look for it; `nearer demo` finds it there in
a clone, and in nearer/examples after `pip install nearer[demo]`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DEMOS = (Path("examples") / "cwe", Path("examples") / "debian-related")


class BuildWithDemo(build_py):
    """Copies the data of the demos beside the modules of a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for demo in DEMOS:
                target = Path(self.build_lib) / "nearer" / demo
                shutil.copytree(demo, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithDemo})
