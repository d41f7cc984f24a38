"""One day of traffic with what it is compared with, and the report about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from nearer.live.monitor.series import Row
from nearer.live.traffic.exposure import Exposure
from nearer.live.traffic.log import Request
from nearer.types import Query


@dataclass(frozen=True, slots=True)
class Asked:
    """Distinct queries and their vectors, float32 (n, dimension)."""

    texts: Sequence[str]
    vectors: np.ndarray

    def without(self, excluded: Asked) -> Asked:
        """Those that `excluded` does not have."""
        theirs = set(excluded.texts)
        rows = [row for row, text in enumerate(self.texts) if text not in theirs]
        return Asked([self.texts[row] for row in rows], self.vectors[rows])


@dataclass(frozen=True, slots=True)
class Labelled:
    """Judged queries: the primary measure now, and what it is compared with (the same queries, or others)."""

    queries: Sequence[Query]
    now: np.ndarray
    before: np.ndarray


@dataclass(frozen=True, slots=True)
class Freshness:
    """Documents against the active generation, by content hash.  `terms`: of some that are in it, and of those to come."""

    documents: int
    missing: Sequence[str] = ()
    changed: Sequence[str] = ()
    extra: Sequence[str] = ()
    terms: tuple[Sequence[Collection[str]], Sequence[Collection[str]]] = ((), ())


@dataclass(frozen=True, slots=True)
class Seen:
    """One day and what it is compared with.  What is None or empty is not judged."""

    day: str
    today: Sequence[Request]
    generation: str = ""
    before: Sequence[Sequence[Request]] = ()  # the reference, a list of requests per day
    asked: Asked | None = None
    reference: Asked | None = None
    known: frozenset[str] = frozenset()  # terms of the documents
    canaries: Labelled | None = None
    judged: Labelled | None = None
    documents: Freshness | None = None
    moves: Sequence[tuple[datetime, str]] = ()  # which generation answered from when on
    fingerprint: str | None = None  # what is wrong with the model of the generation; empty: nothing
    exposure: Exposure | None = None  # where the task judges which items are shown
    whole: bool = True  # is the day over?  Otherwise only facts and canary queries are judged


@dataclass(frozen=True)
class Report:
    """What was found on a day."""

    day: str
    generation: str
    requests: int
    alerts: Sequence[Mapping[str, Any]]
    series: Sequence[Row]
    conditions: Mapping[str, Mapping[str, Any]]  # size, threshold, p and alpha of what was judged
    skipped: Mapping[str, str]  # why the others were not

    def as_dict(self) -> dict[str, Any]:
        """`monitor/report.json`."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {"series": [row._asdict() for row in self.series]}
