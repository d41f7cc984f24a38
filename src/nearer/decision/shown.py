"""The files beside the decision record that people look at: pictures, queries to browse, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.decision.answering import RagFindings
from nearer.decision.browsing import browsed_queries
from nearer.decision.candidates import Finalists, PlannedCandidate
from nearer.decision.examples import Changes
from nearer.decision.inputs import DecisionInputs
from nearer.decision.neighbourhoods import neighbourhoods
from nearer.decision.record import DecisionRecord
from nearer.decision.tasks import measure_task
from nearer.files import read_json, read_jsonl, write_json, write_jsonl

_QUERIES, _NEIGHBOURS, _ANSWERS = "queries.json", "neighbours.json", "answers.jsonl"
_TASK = "task.json"
_LISTS = "lists.json"  # the ranked lists of both finalists, which `nearer review` shows blind


@dataclass(frozen=True)
class Shown:
    """Name of a file → what it holds; `rag` also goes into the record."""

    files: Mapping[str, Any] = field(default_factory=dict)
    rag: RagFindings = field(default_factory=RagFindings)

    @classmethod
    def of(
        cls,
        plan: Sequence[PlannedCandidate],
        finalists: Finalists,
        changes: Changes | None,
        inputs: DecisionInputs,
    ) -> Shown:
        files: dict[str, Any] = {_QUERIES: browsed_queries(plan, finalists, inputs)}
        if changes is not None and finalists.tuned is not None and inputs.tuned is not None:
            seed = inputs.settings.seed
            files[_NEIGHBOURS] = neighbourhoods(inputs.base, inputs.tuned, changes, seed)
        lists = {} if changes is None else changes.lists()
        if lists:
            files[_LISTS] = lists
        task = measure_task(inputs, finalists.candidates)
        if task:
            files[_TASK] = task
        rag = RagFindings.of(plan, finalists, inputs)
        if rag.lines:
            files[_ANSWERS] = list(rag.lines)
        return cls(files, rag)

    def added_to(self, decided: DecisionRecord) -> DecisionRecord:
        """The record with what a language model makes of the results."""
        return self.rag.added_to(decided)

    @property
    def task(self) -> Mapping[str, Any]:
        """What the task measured besides; empty for one without measures of its own."""
        found: Mapping[str, Any] = self.files.get(_TASK, {})
        return found

    def save(self, folder: Path) -> None:
        for name, value in self.files.items():
            if name == _ANSWERS:
                write_jsonl(folder / name, value)
            else:
                write_json(folder / name, value)

    @classmethod
    def load(cls, folder: Path) -> Shown:
        """The files that are there."""
        files: dict[str, Any] = {}
        for name in (_QUERIES, _NEIGHBOURS, _LISTS, _TASK):
            if (folder / name).is_file():
                files[name] = read_json(folder / name)
        if (folder / _ANSWERS).is_file():
            files[_ANSWERS] = list(read_jsonl(folder / _ANSWERS))
        return cls(files)
