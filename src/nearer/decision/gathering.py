"""Gathers what completes a decision: the mistakes that were looked for, and hashes of what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from nearer.config import Config
from nearer.decision.hashes import findings_hash, input_hashes
from nearer.decision.inputs import DecisionInputs
from nearer.decision.mistakes import MADE, Mistake, Saved, mistakes
from nearer.decision.record import DecisionRecord
from nearer.files import content_hash, read_json
from nearer.lifecycle import BY_NAME

EXAMPLES = "mine/examples.jsonl"


class Reads(Protocol):
    """What a project gives to the stage `decide`."""

    @property
    def settings(self) -> Config: ...

    @property
    def run_dir(self) -> Path | None: ...

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    def perhaps(self, relative: str) -> Path: ...


def completed(
    decided: DecisionRecord,
    inputs: DecisionInputs,
    reads: Reads,
    ladder: Mapping[str, Any] | None,
) -> tuple[DecisionRecord, tuple[Mistake, ...]]:
    """The record with its hashes and with the mistakes that were made among its reasons.

    `ladder` is `fix/summary.json`.
    """
    saved = Saved(
        decision=decided,
        evaluation=_evaluation(reads),
        diagnosis=inputs.diagnosis,
        ladder=ladder,
        mining=inputs.mined,
        leakage=inputs.leakage,
        trained=inputs.tuned is not None,
    )
    found = mistakes(saved)
    made = [f"mistake: {row.mistake}: {row.evidence}" for row in found if row.answer == MADE]
    decided = replace(decided, reasons=(*decided.reasons, *made))
    return with_hashes(decided, reads), found


def with_hashes(decided: DecisionRecord, reads: Reads) -> DecisionRecord:
    """The record with hashes of what it rests on and of what it found."""
    path = None if reads.run_dir is None else reads.perhaps(EXAMPLES)
    mined = content_hash(path) if path is not None and path.is_file() else None
    settings = {name: reads.settings.section(name) for name in BY_NAME["decide"].settings}
    hashes = input_hashes(reads.inputs, mined, settings)
    hashes["findings"] = findings_hash(decided.as_dict())
    return replace(decided, hashes=hashes)


def _evaluation(reads: Reads) -> Mapping[str, Any] | None:
    """`evaluate/summary.json`; None in a notebook, and where there is none."""
    if reads.run_dir is None:
        return None
    path = reads.perhaps("evaluate/summary.json")
    value = read_json(path) if path.is_file() else None
    return value if isinstance(value, Mapping) else None
