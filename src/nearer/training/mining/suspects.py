"""Positives that are probably wrong: what is said about them, and what becomes of their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from nearer.types import Example

Action = Literal["downweight", "drop", "keep"]
#: The smallest share of its weight that a doubtful example keeps.
LEAST = 0.05
#: What the summary and the terminal call each action.
DONE = {"downweight": "weighted down", "drop": "dropped", "keep": "listed only"}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A judged pair that is probably wrong.

    `score` is the probability of that, 0 to 1, as far as the data says; `reasons` are for people.
    `query_id` is None where the pair comes from a training file: `positive` is then a text.
    """

    query: str
    positive: str
    score: float
    reasons: tuple[str, ...]
    query_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The line of `mine/suspects.jsonl`."""
        line: dict[str, Any] = {} if self.query_id is None else {"query_id": self.query_id}
        return {
            **line,
            "query": self.query,
            "positive": self.positive,
            "score": round(self.score, 4),
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Suspect:
        """What `as_dict` wrote."""
        return cls(
            line["query"],
            line["positive"],
            line["score"],
            tuple(line["reasons"]),
            line.get("query_id"),
        )

    @property
    def key(self) -> tuple[str, str]:
        """What names the pair in the examples."""
        return self.query_id or self.query, self.positive


def treated(
    examples: Sequence[Example], suspects: Sequence[Suspect], action: Action
) -> list[Example]:
    """The examples after the suspects among them were weighted down, dropped or kept."""
    if action == "keep" or not suspects:
        return list(examples)
    scores = {suspect.key: suspect.score for suspect in suspects}
    kept = []
    for example in examples:
        score = scores.get((str(example.query_id or example.query), example.positive))
        if score is None:
            kept.append(example)
        elif action == "downweight":
            weight = example.weight * max(LEAST, 1.0 - score)
            kept.append(replace(example, weight=round(weight, 6)))
    return kept
