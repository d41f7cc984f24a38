"""Tasks: what vectors are for, and how each is judged by its own goals.

`base.py` states the contract; every other file or folder is one task: its data, measures,
baselines, guardrails and what the report shows of it.
"""

from __future__ import annotations

from pathlib import Path

from nearer import plugins
from nearer.config import Config
from nearer.errors import ConfigError
from nearer.tasks.base import Task

__all__ = ["Task", "find_task", "task_of"]


def task_of(settings: Config, root: Path | None = None) -> Task:
    """The task that the settings name.  Raises ConfigError."""
    return find_task(settings.task, root)


def find_task(name: str, root: Path | None = None) -> Task:
    """A task by its name in the registry, or the user's own `"module:Class"` (first in `root`).

    Raises ConfigError for something that is no task.
    """
    kind = plugins.find("task", name, root)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ConfigError(
            f"{name} is no task: it is no subclass of Task",
            where="task",
            next_step="see nearer.tasks.base",
        )
    return kind()
