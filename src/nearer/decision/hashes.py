"""What a decision rests on, and what it found, as SHA-256: two decisions can be told apart at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearer.decision.payback import QUESTION
from nearer.files import value_hash

Json = dict[str, Any]

#: What a clock measured, or what counts looks and approvals: it differs between equal decisions.
_MEASURED = frozenset(
    {
        "latency",
        "p50_ms",
        "p95_ms",
        "seconds",
        "build_seconds",
        "hours",
        "machine_hours",
        "tokens_per_second",
        "price",
        "pays",
        "test_looks",
        "sign_off",
        "hashes",
    }
)


def input_hashes(inputs: Mapping[str, Any], examples: str | None, settings: Any) -> dict[str, str]:
    """One hash per input of `decide`, by the name that `lifecycle.py` gives it.

    `inputs` are content hashes by name, of several files as a mapping; `examples` is the hash of the
    mined examples that training read; `settings` are those that matter to the stage.
    """
    hashes = {}
    for name, value in inputs.items():
        hashes[name] = value if isinstance(value, str) else value_hash(value)
    if examples:
        hashes["mine/examples.jsonl"] = examples
    hashes["settings"] = value_hash(settings)
    return hashes


def reproducible(record: Mapping[str, Any]) -> Json:
    """The record without what a clock measured: the same seed and inputs give the same again.

    Left out with it is what is computed from a time: what a re-index costs, and whether it pays.
    A verdict and a choice of finalists that rest on a latency stay: they are what was decided.
    """
    kept: Json = _without_times(record)
    for row in kept.get("checklist", ()):
        if row.get("question") == QUESTION:
            row.pop("answer", None)
            row.pop("evidence", None)
    guardrails = []
    for row in kept.get("guardrails", ()):
        timed = str(row.get("name", "")).startswith("latency")
        guardrails.append({"name": row["name"]} if timed else row)
    kept["guardrails"] = guardrails
    return kept


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_times(item) for key, item in value.items() if key not in _MEASURED}
    if isinstance(value, list | tuple):
        return [_without_times(item) for item in value]
    return value


def findings_hash(record: Mapping[str, Any]) -> str:
    """Hash of what the decision found; equal for the same seed and inputs.

    Unless a system is so near to `decide.guardrails.latency_ratio` that it is now in time and now
    late: then two decisions differ.
    """
    return value_hash(reproducible(record))
