"""Who is asked which pair next: blind, each pair as often as needed, and none twice by mistake.

Pairs come in blocks of about the same weight.  Within a block their order is random and each
reviewer's own, so that it tells neither a rank nor a system.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from nearer.review.consensus import SPLIT, consensus
from nearer.review.judgments import CANNOT_TELL, GRADE, PICK, Judgments, Subject
from nearer.review.pairs import pair_id
from nearer.review.reviewers import Reviewer

_LEASE = 900.0  # seconds for which a pair that is being read is kept from the others
_DECISIVE = (GRADE, PICK, CANNOT_TELL)


class Asked(Protocol):
    """What a reviewer can be asked about: a pair of a query and a document, or a question."""

    @property
    def subject(self) -> Subject: ...


AskedT = TypeVar("AskedT", bound=Asked)


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` and `open` count judgments that are asked of anybody, overlap included."""

    done: int
    open: int
    own: int
    seconds: float | None  # the median of this reviewer's judgments, None before the first

    @property
    def minutes_left(self) -> float | None:
        """At this reviewer's pace, alone."""
        return None if self.seconds is None else self.open * self.seconds / 60.0


class Desk(Generic[AskedT]):
    """Hands out pairs, or questions.  Safe for threads; what is handed out is forgotten when the server ends.

    `several`: more than one person judges, so that pairs of the overlap are asked twice; it may
    change while people judge.
    """

    def __init__(
        self, pairs: Sequence[AskedT], secret: bytes, *, overlap: float, block: int, several: bool
    ) -> None:
        self.several = several
        self.pairs = list(pairs)
        self.by_id = {pair_id(secret, pair.subject): pair for pair in pairs}
        self._secret, self._block = secret, block
        self._overlap = overlap
        self._leases: dict[Subject, dict[str, float]] = {}
        self._passed: set[tuple[str, Subject]] = set()  # disagreements that somebody left open
        self._orders: dict[str, list[AskedT]] = {}
        self._lock = threading.Lock()

    def id_of(self, pair: AskedT) -> str:
        return pair_id(self._secret, pair.subject)

    def needed(self, subject: Subject) -> int:
        """How many people judge a pair: two of those in the overlap, else one."""
        if not self.several:
            return 1
        return 2 if self._draw("overlap", *subject) < self._overlap else 1

    def next(self, reviewer: Reviewer, judgments: Judgments) -> AskedT | None:
        """The pair that a reviewer is asked next, the same until it is judged; None when all is done."""
        with self._lock:
            if reviewer.adjudicates:
                for pair in self._order(reviewer.name):
                    passed = (reviewer.name, pair.subject) in self._passed
                    if not passed and consensus(judgments, pair.subject).status == SPLIT:
                        return pair
            for pair in self._order(reviewer.name):
                if self._is_open(pair.subject, reviewer.name, judgments):
                    lease = self._leases.setdefault(pair.subject, {})
                    lease[reviewer.name] = time.monotonic() + _LEASE
                    return pair
        return None

    def pass_over(self, reviewer: Reviewer, pair: AskedT) -> None:
        """Do not ask an adjudicator about this disagreement again."""
        with self._lock:
            self._passed.add((reviewer.name, pair.subject))

    def _is_open(self, subject: Subject, name: str, judgments: Judgments) -> bool:
        said = judgments.by_subject.get(subject, {})
        if name in said or subject in judgments.final:
            return False
        deciding = {other for other, entry in said.items() if entry.action in _DECISIVE}
        leases = self._leases.get(subject, {})
        current = time.monotonic()
        reading = {other for other, until in leases.items() if until > current and other != name}
        return len(deciding | (reading - set(said))) < self.needed(subject)

    def progress(self, reviewer: Reviewer, judgments: Judgments) -> Progress:
        """How far all are, and how fast this one is."""
        done = still = 0
        for pair in self.pairs:
            needed = self.needed(pair.subject)
            said = judgments.by_subject.get(pair.subject, {})
            given = sum(entry.action in _DECISIVE for entry in said.values())
            if pair.subject in judgments.final:
                given = needed
            done += min(given, needed)
            still += max(0, needed - given)
        own, seconds = _pace(reviewer.name, judgments)
        return Progress(done, still, own, seconds)

    def _order(self, name: str) -> list[AskedT]:
        if name not in self._orders:
            ordered: list[AskedT] = []
            for start in range(0, len(self.pairs), self._block):
                block = self.pairs[start : start + self._block]
                ordered += sorted(block, key=lambda pair: self._place(name, pair))
            self._orders[name] = ordered
        return self._orders[name]

    def _place(self, name: str, pair: AskedT) -> tuple[float, float]:
        """Pairs of one query stand together, in random order."""
        query_id, _ = pair.subject
        return self._draw(name, query_id), self._draw(name, *pair.subject)

    def _draw(self, *names: str) -> float:
        """A number in [0, 1) that only the secret tells."""
        content = "\0".join(names).encode("utf-8", "replace")
        digest = hmac.digest(self._secret, content, "sha256")
        return int.from_bytes(digest[:8], "big") / 2**64


def _pace(name: str, judgments: Judgments) -> tuple[int, float | None]:
    """How many pairs a reviewer judged, and the median of the seconds each took."""
    seconds = []
    own = 0
    for said in judgments.by_subject.values():
        entry = said.get(name)
        if entry is not None and entry.action in _DECISIVE:
            own += 1
            if entry.seconds is not None:
                seconds.append(entry.seconds)
    if not seconds:
        return own, None
    return own, sorted(seconds)[len(seconds) // 2]
