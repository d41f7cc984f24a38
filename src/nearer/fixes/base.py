"""What a fix is: pipelines to try, what it takes in production, and why it gave nothing to try."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nearer import plugins
from nearer.config import Config
from nearer.diagnosis.values import Failure
from nearer.errors import ConfigError
from nearer.search.pipeline import Pipeline
from nearer.search.systems import Systems
from nearer.types import Split

#: Fixes that one task alone has a use for, which is then tried without being named.
OF_TASKS = {"recommend": ("diversity",)}
OF_ONE_TASK = frozenset(name for names in OF_TASKS.values() for name in names)
#: The names of our fixes for search, cheapest first.
FIXES = tuple(name for name in plugins.SEAMS["fix"].ours if name not in OF_ONE_TASK)


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a fix, or a part of it, gave nothing to measure.

    With `next_step` it was not tried, and that command would try it; without, it does not apply.
    `part`: other variants of the fix were tried, so that the fix itself does not count as untried.
    """

    fix: str
    why: str
    next_step: str = ""
    part: bool = False

    @property
    def tried(self) -> bool:
        """There was nothing to try."""
        return not self.next_step

    @property
    def label(self) -> str:
        if self.tried:
            return f"does not apply here: {self.why}"
        return f"not tried: {self.why}; {self.next_step}"

    def as_dict(self) -> dict[str, Any]:
        line: dict[str, Any] = {"fix": self.fix, "why": self.why, "next": self.next_step}
        if self.part:
            line["part"] = True
        return line


class Fix(ABC):
    """One kind of simpler repair.  A subclass sets `name` and `needs` and writes `variants`."""

    name: ClassVar[str]  # in trials, in the ladder and in the report
    needs: ClassVar[str]  # what it takes in production

    def __init__(self, settings: Config) -> None:
        self.settings = settings

    @abstractmethod
    def variants(self, base: Pipeline, systems: Systems, dev: Split) -> Sequence[Pipeline]:
        """Pipelines to try instead of `base`; none where the fix does not apply."""

    def absent(self, base: Pipeline, systems: Systems, dev: Split) -> Absence:
        """Why there are no variants of `base`."""
        return Absence(self.name, "it has nothing to change in this system")

    def unnamed(self) -> Sequence[Absence]:
        """Parts that the settings leave out, although the fix may have other variants."""
        return ()

    def left_out(self, base: Pipeline, systems: Systems, dev: Split) -> Sequence[Absence]:
        """Parts that could not be tried here, although the fix has other variants."""
        return self.unnamed()

    def cheaper(self, best: Pipeline, variants: Sequence[Pipeline]) -> Sequence[Pipeline]:
        """Variants that cost less in production than the best one, the cheapest first.

        The first that does not lose a useful part of the gain is taken instead.
        """
        return ()

    def suggested(self, failures: Sequence[Failure]) -> Sequence[Absence]:
        """Variants that the diagnosis speaks for and the settings leave out.

        `failures` are lines of `diagnose/failures.jsonl`, of dev queries.
        """
        return ()


def fixes_of(settings: Config, root: Path) -> list[Fix]:
    """The fixes that the configuration asks for, in its order (cheapest first).

    `root` is where modules of the user's own are looked for.  Raises ConfigError for an unknown
    name and for a class that is no fix, SearchSystemError when a module cannot be imported.
    """
    names = dict.fromkeys([*settings.fix.fixes, *OF_TASKS.get(settings.task, ())])
    return [_class_of(name, root)(settings) for name in names]


def _class_of(name: str, root: Path) -> type[Fix]:
    fix = plugins.find("fix", name, root)
    if not (isinstance(fix, type) and issubclass(fix, Fix)):
        raise _no_fix(name, "is no subclass of nearer.fixes.base.Fix")
    lacking = sorted(fix.__abstractmethods__)
    for member in ("name", "needs"):
        if not isinstance(getattr(fix, member, None), str):
            lacking.append(member)
    if lacking:
        raise _no_fix(name, f"lacks {', '.join(lacking)}")
    return fix


def _no_fix(name: str, problem: str) -> ConfigError:
    return ConfigError(
        f"{name} {problem}",
        where="fix.fixes",
        next_step="subclass nearer.fixes.base.Fix; set name and needs, and write variants()",
    )
