"""What `POST /similar` was asked, as the traffic log keeps it: enough to ask another generation the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SimilarTo:
    """One item, or a `history` of items with the last one last; the filter stands beside it in a request."""

    items: tuple[str, ...]
    k: int  # results that were asked for
    history: bool = False
    diversity: float | None = None  # weight of relevance; None: not reordered

    def as_dict(self) -> dict[str, Any]:
        """Its part of a line of the log: `{id | history, k, diversity?}`, as in the request's body."""
        asked: dict[str, Any] = {"id": self.items[0]}
        if self.history:
            asked = {"history": list(self.items)}
        asked["k"] = self.k
        if self.diversity is not None:
            asked["diversity"] = self.diversity
        return asked

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> SimilarTo:
        """What `as_dict` made.  Raises KeyError, TypeError or ValueError when it is no such thing."""
        history = "history" in line
        items = line["history"] if history else [line["id"]]
        if not isinstance(items, list) or not items:
            raise TypeError("history is not a list of items")
        k = int(line["k"])
        diversity = line.get("diversity")
        weight = None if diversity is None else float(diversity)
        if k < 1 or not (weight is None or 0 <= weight <= 1):
            raise ValueError("k is below 1, or diversity is not between 0 and 1")
        return cls(tuple(map(str, items)), k, history, weight)
