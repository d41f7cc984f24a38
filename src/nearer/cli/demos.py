"""The demos of `nearer demo`, one per task: which data, which settings, how long each stage takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.cli import start
from nearer.errors import ConfigError

_NO_CHUNKS = {
    "diagnose": {"splits": ("dev",), "chunkers": ("document",), "limit": 100},
    "fix": {"chunkers": (), "compressions": ("int8",)},
}
_TRAIN = {"method": "top:3", "batch_size": 32, "max_seq_length": 64, "dev_documents": 1000}


@dataclass(frozen=True)
class Demo:
    """One demo: its data below examples/, and what its settings change."""

    folder: str  # where it works
    data: str
    note: str
    settings: Mapping[str, Any]
    #: Share of the time that each stage takes; empty where nobody has measured it.
    shares: Mapping[str, float] = field(default_factory=dict)

    def prepare(self, folder: Path) -> Path:
        """Write the configuration (kept when it is there).  Raises DataError or ModelError."""
        return start.prepare_demo(folder, self.data, self.settings, self.note)


DEMOS: Mapping[str, Demo] = {
    "search": Demo("nearer-demo", "cwe", start.CWE, start.DEMO, start.DEMO_SHARES),
    "recommend": Demo(
        "nearer-demo-recommend",
        "debian-related",
        "8,379 packages of Debian, and which of them recommend, suggest or enhance which; see examples/debian-related/SOURCE.md",
        {
            "task": "recommend",
            "train": {**_TRAIN, "epochs": 3, "learning_rate": 2e-4},
            "mine": {"negatives": 1},
            **_NO_CHUNKS,
        },
    ),
    "cluster": Demo(
        "nearer-demo-cluster",
        "debian-related",
        "8,379 packages of Debian in 53 sections, of which whole sections are held out; see examples/debian-related/SOURCE.md",
        {
            "task": "cluster",
            "cluster": {"label": "section", "per_class": 20},
            "evaluate": {"primary": "P@10", "measures": ("P@10", "nDCG@10", "R@10", "RR@10")},
            "mine": {"positives": 3, "negatives": 0},
            "train": {**_TRAIN, "epochs": 2, "learning_rate": 1e-4, "loss": "supcon"},
            **_NO_CHUNKS,
        },
    ),
}


def demo_of(task: str) -> Demo:
    """The demo of a task.  Raises ConfigError for one that has none."""
    if task not in DEMOS:
        raise ConfigError(
            f"no demo of {task!r}", where="--task", next_step=f"use {', '.join(DEMOS)}"
        )
    return DEMOS[task]
