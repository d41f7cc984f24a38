"""What production says of the common mistakes: what answers, on which decision, how it was tried and watched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearer.decision.mistakes import Production
from nearer.errors import NearerError
from nearer.files import read_json
from nearer.live.index.state import read_pointer


def production_of(root: Path) -> Production:
    """As the files beside nearer.yaml say.  What is damaged is for `nearer index` to tell."""
    try:
        pointer = read_pointer(root / "generations")
    except NearerError:
        return Production()
    active = pointer.id
    if active is None:
        return Production()
    manifest = _object(root / "generations" / active / "manifest.json")
    decision = pointer.served.get(active) or manifest.get("decision")
    report = _object(root / "monitor" / "report.json")
    watched = report.get("generation") == active
    return Production(
        active=active,
        decision=decision if isinstance(decision, Mapping) else None,
        shadow=_object(root / "shadow" / f"{active}.json") or None,
        monitored=str(report.get("day", "")) if watched else "",
    )


def _object(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        value = read_json(path) if path.is_file() else {}
    except NearerError:
        value = {}
    return value if isinstance(value, Mapping) else {}
