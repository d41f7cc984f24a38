"""A person's approval of a decision, bound to that very decision by its hash.

It stands under `sign_off` in `decision.json`.  Whatever else in the record changes afterwards, by a
new decision or by hand, makes it void: `standing` then gives nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer.errors import DataError, MissingStepError
from nearer.files import content_hash, read_json, swap_folder, value_hash, write_json
from nearer.lifecycle import STEP
from nearer.records import Record, flag, perhaps_text, text

#: One line per approval that was ever given in a run.
LOG = "sign_offs.jsonl"
DECISION = "decision.json"
_KEY = "sign_off"


@dataclass(frozen=True, kw_only=True)
class SignOff(Record):
    """Who approved what, when, and why.  `decision` is the hash of the record without this key."""

    by: str = text()
    note: str | None = perhaps_text(optional=True)
    time: str = text()  # ISO 8601
    verdict: str = text()
    recommended: str = text()
    decision: str = text()
    outdated: bool | None = flag(optional=True)  # what the decision rests on had changed by then


def decision_hash(record: Mapping[str, Any]) -> str:
    """SHA-256 of a decision record without its sign-off, whatever the order of its keys."""
    return value_hash({key: value for key, value in record.items() if key != _KEY})


def standing(record: Any) -> SignOff | None:
    """The approval of this very record; None where there is none, or it is of another one."""
    if not isinstance(record, Mapping):
        return None
    given = SignOff.of(record.get(_KEY))
    if not given.by.strip() or given.decision != decision_hash(record):
        return None
    return given


def is_void(record: Any) -> bool:
    """Whether there is an approval that does not count, because it is not of this record."""
    return isinstance(record, Mapping) and bool(record.get(_KEY)) and standing(record) is None


def signed(record: Mapping[str, Any], by: str, time: str, **more: Any) -> dict[str, Any]:
    """The record with an approval of it; `more` are `note` and `outdated`.

    Raises DataError for a record without a verdict, and for an approval by nobody.
    """
    if not isinstance(record.get("verdict"), str):
        raise DataError(
            "there is no verdict to sign", where=DECISION, next_step="nearer decide --force"
        )
    if not by.strip():
        raise DataError(
            "an approval needs the name of a person", where="--by", next_step="--by 'Ann Lee'"
        )
    approval = SignOff(
        by=by.strip(),
        time=time,
        verdict=record["verdict"],
        recommended=str(record.get("recommended", "")),
        decision=decision_hash(record),
        **more,
    )
    return {**record, _KEY: approval.as_dict()}


def sign(run_dir: Path, aside: Path, by: str, time: str, **more: Any) -> SignOff:
    """Put an approval into the decision of a run, by one rename, and a line into its log.

    The caller holds the lock of the run; `aside` is where the old folder stands meanwhile (see
    `files.swap_folder`).  The record of the step takes the new hash, so that nothing looks edited
    by hand.  Raises MissingStepError without a decision, DataError for one that is damaged.
    """
    folder = run_dir / "decide"
    if not (folder / DECISION).is_file():
        raise MissingStepError(
            "there is no decision to sign", where=str(folder), next_step="nearer decide"
        )
    record = read_json(folder / DECISION)
    if not isinstance(record, dict):
        raise DataError(
            "must hold a JSON object",
            where=str(folder / DECISION),
            next_step="nearer decide --force",
        )
    copy = run_dir / ".work" / "signing"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    written = signed(record, by, time, **more)
    write_json(copy / DECISION, written)
    _keep_fresh(folder, copy)
    # First the line: after a death in between, an approval too many is told, and none is missing.
    with open(run_dir / LOG, "a", encoding="utf-8") as log:
        log.write(json.dumps(written[_KEY], ensure_ascii=False) + "\n")
        log.flush()
        os.fsync(log.fileno())
    swap_folder(copy, folder, aside)
    return SignOff.of(written[_KEY])


def _keep_fresh(before: Path, after: Path) -> None:
    """Note the new hash in `step.json`, unless the decision had been edited by hand before."""
    path = after / STEP
    if not path.is_file():
        return
    step = read_json(path)
    outputs = step.get("outputs") if isinstance(step, dict) else None
    if not isinstance(outputs, dict):
        return
    if outputs.get(DECISION) == content_hash(before / DECISION):
        outputs[DECISION] = content_hash(after / DECISION)
        write_json(path, step)
