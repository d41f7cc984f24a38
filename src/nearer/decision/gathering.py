"""Gathers what completes a decision: the mistakes that were looked for, and hashes of what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from nearer.config import Config
from nearer.data.heldout import HeldOut
from nearer.decision.hashes import findings_hash, input_hashes
from nearer.decision.inputs import DecisionInputs
from nearer.decision.leaks import Leaks, leaks
from nearer.decision.mistakes import MADE, Mistake, Saved, mistakes
from nearer.decision.record import DecisionRecord
from nearer.files import content_hash, read_json
from nearer.lifecycle import BY_NAME
from nearer.types import Example, Split

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

    def split(self, name: str) -> Split: ...

    @property
    def held_out(self) -> HeldOut: ...


def completed(
    decided: DecisionRecord,
    inputs: DecisionInputs,
    reads: Reads,
    ladder: Mapping[str, Any] | None,
    examples: Iterable[Example] | None,
) -> tuple[DecisionRecord, tuple[Mistake, ...]]:
    """The record with its hashes and with the mistakes that were made among its reasons.

    `ladder` is `fix/summary.json`; `examples` are those that training read (None: not at hand).
    """
    in_run = reads.run_dir is not None
    path = reads.perhaps(EXAMPLES) if in_run else None
    trained = inputs.tuned is not None
    saved = Saved(
        decision=decided,
        evaluation=read_json(reads.perhaps("evaluate/summary.json")) if in_run else None,
        diagnosis=inputs.diagnosis,
        ladder=ladder,
        mining=inputs.mined,
        leaks=_leaks(examples, inputs, reads) if trained and examples is not None else None,
        trained=trained,
    )
    found = mistakes(saved)
    made = [f"mistake: {row.mistake}: {row.evidence}" for row in found if row.answer == MADE]
    decided = replace(decided, reasons=(*decided.reasons, *made))
    settings = {name: reads.settings.section(name) for name in BY_NAME["decide"].settings}
    mined = content_hash(path) if path is not None and path.is_file() else None
    hashes = input_hashes(reads.inputs, mined, settings)
    hashes["findings"] = findings_hash(decided.as_dict())
    return replace(decided, hashes=hashes), found


def _leaks(examples: Iterable[Example], inputs: DecisionInputs, reads: Reads) -> Leaks:
    """Training examples whose query is a dev or a test query."""
    texts = {query.id: query.text for query in reads.split("train").queries}
    held_out = {query.id for split in (inputs.dev, inputs.test) for query in split.queries}
    return leaks(examples, texts, held_out, reads.held_out.collides)
