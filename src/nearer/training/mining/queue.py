"""Suspects in the queue of queries that people judge (`review/queue.jsonl`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence

from nearer.training.mining.suspects import Suspect

#: Value of `split` in lines about training queries: their judgments never count for a candidate.
TRAINING = "train"


def queue_lines(suspects: Sequence[Suspect], waiting: Container[object]) -> list[bytes]:
    """Lines of the suspects whose request ids do not wait yet, in their order."""
    lines = []
    for suspect in suspects:
        request_id = request_id_of(suspect)
        if request_id not in waiting:
            lines.append(_line(suspect, request_id))
    return lines


def request_id_of(suspect: Suspect) -> str:
    """The same for the same pair, whenever it is found again."""
    content = json.dumps(suspect.key).encode()
    return f"mine-{hashlib.sha256(content).hexdigest()[:16]}"


def _line(suspect: Suspect, request_id: str) -> bytes:
    line = {
        "query": suspect.query,
        "request_id": request_id,
        "split": TRAINING,
        "results": [{"id": suspect.positive, "rank": 1}],
        "disagreement": round(suspect.score, 4),
        "reasons": list(suspect.reasons),
    }
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
