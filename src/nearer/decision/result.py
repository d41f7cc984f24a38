"""The result of the stage `decide`: its files, and how it shows itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nearer.decision.mistakes import Mistake, brief, read_mistakes
from nearer.decision.record import DecisionRecord
from nearer.decision.showing import decision_blocks
from nearer.decision.shown import Shown
from nearer.errors import DataError
from nearer.files import read_json, write_json
from nearer.results import Block, Line, Result
from nearer.tasks.showing import blocks_of

#: What `step.json` repeats of the record.
_BRIEF = (
    "verdict",
    "recommended",
    "sentence",
    "primary",
    "n_queries",
    "test_looks",
    "candidates",
    "comparisons",
)
#: Without these a file is no decision.
_NEEDED = ("verdict", "recommended", "sentence", "reasons", "primary", "candidates")


@dataclass(frozen=True)
class Decision(Result):
    """The decision record, and what the report shows beside it."""

    decided: DecisionRecord
    examples: dict[str, Any]
    margins: dict[str, Any]
    shown: Shown = field(default_factory=Shown)  # pictures, queries to browse, answers
    mistakes: tuple[Mistake, ...] = ()

    @property
    def verdict(self) -> str:
        """`ship`, `use_simpler_fix`, `do_not_ship` or `inconclusive`."""
        return self.decided.verdict

    @cached_property
    def record(self) -> dict[str, Any]:
        """`decision.json` as plain JSON values."""
        return self.decided.as_dict()

    def save(self, folder: Path) -> None:
        """`decision.json`, `examples.json`, `margins.json`, `mistakes.json`, and what is shown."""
        write_json(folder / "decision.json", self.record)
        write_json(folder / "examples.json", self.examples)
        write_json(folder / "margins.json", self.margins)
        rows = [row.as_dict() for row in self.mistakes]
        write_json(folder / "mistakes.json", {"mistakes": rows})
        self.shown.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Decision:
        value = read_json(folder / "decision.json")
        record = value if isinstance(value, dict) else {}
        missing = [key for key in _NEEDED if key not in record]
        if missing:
            raise DataError(
                f"this decision lacks {', '.join(missing)}",
                where=str(folder / "decision.json"),
                next_step="nearer decide --force",
            )
        examples = folder / "examples.json"
        margins = folder / "margins.json"
        return cls(
            DecisionRecord.of(record),
            read_json(examples) if examples.is_file() else {},
            read_json(margins) if margins.is_file() else {},
            Shown.load(folder),
            read_mistakes(folder / "mistakes.json"),
        )

    def brief(self) -> dict[str, Any]:
        return {key: self.record.get(key) for key in _BRIEF}

    def rows(self) -> Iterable[dict[str, Any]]:
        """One record per candidate: its name, role, and the mean of each measure."""
        for row in self.decided.candidates:
            means = {name: measure.mean for name, measure in row.measures.items()}
            yield {"name": row.name, "role": row.role, **means}

    def blocks(self) -> list[Block]:
        looked = [Line(brief(self.mistakes), "dim")] if self.mistakes else []
        return [*decision_blocks(self.decided), *blocks_of(self.shown.task), *looked]
