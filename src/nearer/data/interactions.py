"""Logs of who engaged with which item → which items are related, and how strongly.

A row is one event: a session (or user), an item, where there is one a time, and a kind of event.
Two items are related when they met in at least `recommend.min_together` sessions, counted by the
weight of their kinds (`recommend.kinds`).

How much a related pair counts in training is corrected for popularity: what everybody buys meets
everything.  The weight is n(a, b) / (n(a)^(1-c) · n(b)^c) beside that of the item's best pair, where
n counts sessions and c is (1 + `recommend.correction`) / 2: at 0 it is the cosine of item-kNN
(Deshpande and Karypis, TOIS 2004), at 1 popular items are discounted by all of their sessions.  Dev
and test are never corrected: they say what people did.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from nearer.config import Recommend
from nearer.data import cells, fields, records
from nearer.data.corpus import Corpus
from nearer.data.records import Row
from nearer.data.sources import bad
from nearer.data.times import read_time
from nearer.types import Judgments

#: From this share of unknown items on, the log belongs to other data.
_FOREIGN = 0.5
#: Items of one session that are paired with each other, at most: the last ones.
_LONGEST = 50
_LEAST_WEIGHT = 0.05

Weights = dict[str, dict[str, float]]  # item → related item → weight above 0 to 1


@dataclass(frozen=True, slots=True)
class Event:
    """One item of a session; `moment` is seconds since 1970 where the log has times."""

    item: str
    weight: float
    moment: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """The distinct items of one session, in the order in which they were first met."""

    id: str
    events: tuple[Event, ...]

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(event.item for event in self.events)

    @property
    def end(self) -> float:
        """The last moment; 0 where the log has no times."""
        return max((event.moment or 0.0 for event in self.events), default=0.0)


@dataclass(frozen=True)
class Interactions:
    """Sessions in the order of their ends, and what was left out, by reason."""

    sessions: tuple[Session, ...]
    timed: bool
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Reading:
    """Events as they come in, and what is wrong with them."""

    path: Path
    settings: Recommend
    corpus: Corpus
    by_session: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    dropped: Counter[str] = field(default_factory=Counter)
    timed: bool | None = None
    rows: int = 0
    unknown: int = 0
    first_unknown: str = ""

    def add(self, row: Row) -> None:
        """Read one row.  Raises DataError, with file and line."""
        settings = self.settings
        self.rows += 1
        session = _id(row, settings.session, "session")
        item = _id(row, settings.item, "item")
        moment = self._moment(row)
        if item not in self.corpus:
            self.unknown += 1
            self.first_unknown = self.first_unknown or f"{row.path.name}:{row.number}: {item!r}"
            return
        kind = str(row.values.get(settings.kind) or "")
        events = self.by_session[session]
        if events and moment is not None and moment < (events[-1].moment or 0.0):
            self.dropped[
                "events stood before an earlier one of their session: they were sorted"
            ] += 1
        events.append(Event(item, settings.kinds.get(kind, 1.0), moment))

    def _moment(self, row: Row) -> float | None:
        column = self.settings.time
        value = row.values.get(column) if column else None
        has_time = not cells.is_empty(value)
        if self.timed is None:
            self.timed = has_time
        if has_time != self.timed:
            what = "has no time, though others do" if self.timed else "has a time, others have none"
            raise row.bad(f"this event {what}", "fill the column, or set recommend.time: null")
        if not has_time:
            return None
        try:
            return read_time(value).timestamp()
        except ValueError as error:
            raise row.bad(str(error), "mend that time, or set recommend.time: null") from None


def read_interactions(path: Path, settings: Recommend, corpus: Corpus) -> Interactions:
    """Sessions of a log.  Raises DataError, with file and line.

    Events of unknown items are left out and counted; where they are most of the log, or one item
    is all that is left, the log is refused.
    """
    reading = _Reading(path, settings, corpus)
    for row in records.read(path):
        reading.add(row)
    if not reading.rows:
        raise bad("the file holds no interactions", path, "name a log in recommend.interactions")
    if reading.unknown >= _FOREIGN * reading.rows:
        raise bad(
            f"{reading.unknown} of {reading.rows} events are about items that the corpus lacks, "
            f"first {reading.first_unknown}",
            path,
            "correct recommend.item or data.corpus: these are the items of other data",
        )
    if reading.unknown:
        where = f"events of unknown items were left out, first {reading.first_unknown}"
        reading.dropped[where] = reading.unknown
    sessions = [_session(name, events) for name, events in reading.by_session.items()]
    items = {item for session in sessions for item in session.items}
    if len(items) < 2:
        raise bad(
            f"all interactions are about {len(items)} item",
            path,
            "use a log of several items: nothing can be recommended beside one",
        )
    sessions.sort(key=lambda session: (session.end, session.id))
    return Interactions(tuple(sessions), bool(reading.timed), dict(reading.dropped))


def _id(row: Row, column: str, what: str) -> str:
    if column not in row.values:
        present = ", ".join(row.values) or "none"
        raise row.bad(f"no column {column!r}; the columns here: {present}", f"set recommend.{what}")
    return fields.as_id(row.values[column], row, what)


def _session(name: str, events: list[Event]) -> Session:
    """Events in the order of their times (of the file where there are none), each item once."""
    events.sort(key=lambda event: event.moment or 0.0)
    first: dict[str, Event] = {}
    for event in events:
        known = first.get(event.item)
        if known is None or event.weight > known.weight:
            moment = event.moment if known is None else known.moment
            first[event.item] = Event(event.item, event.weight, moment)
    return Session(name, tuple(first.values()))


@dataclass(frozen=True)
class Meetings:
    """How often items were met, and how often together, by the weight of their events."""

    single: Mapping[str, float]
    together: Mapping[tuple[str, str], float]  # (a, b), a < b
    sessions: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> Meetings:
        """Count; of very long sessions the last 50 items are paired."""
        single: dict[str, float] = defaultdict(float)
        together: dict[tuple[str, str], float] = defaultdict(float)
        number: Counter[tuple[str, str]] = Counter()
        for session in sessions:
            for event in session.events:
                single[event.item] += event.weight
            for one, other in combinations(session.events[-_LONGEST:], 2):
                pair = (min(one.item, other.item), max(one.item, other.item))
                together[pair] += min(one.weight, other.weight)
                number[pair] += 1
        return cls(single, together, number)

    def related(self, min_together: int) -> dict[str, dict[str, int]]:
        """Item → related item → 1, in both directions."""
        related: dict[str, dict[str, int]] = defaultdict(dict)
        for (one, other), count in self.sessions.items():
            if count >= min_together:
                related[one][other] = 1
                related[other][one] = 1
        return dict(related)

    def met(
        self, items: Container[str], left_out: Container[tuple[str, str]]
    ) -> dict[str, list[str]]:
        """Item → all that it met, even once, in the order of their ids, for some items.

        `left_out` are pairs (item, other) of which nobody may know.
        """
        met: dict[str, list[str]] = defaultdict(list)
        for pair in self.sessions:
            for item, other in (pair, pair[::-1]):
                if item in items and (item, other) not in left_out:
                    met[item].append(other)
        return {item: sorted(others) for item, others in met.items()}

    def weights(self, related: Judgments, correction: float) -> Weights:
        """How much each related pair counts in training, beside the best pair of its item."""
        power = (1 + correction) / 2
        weights: Weights = {}
        for item, others in related.items():
            raw = {}
            for other in others:
                pair = (min(item, other), max(item, other))
                popular = self.single[item] ** (1 - power) * self.single[other] ** power
                raw[other] = self.together[pair] / popular
            best = max(raw.values(), default=1.0)
            weights[item] = {
                other: round(max(_LEAST_WEIGHT, value / best), 4) for other, value in raw.items()
            }
        return weights


def reversed_relations(*held_out: Mapping[str, Mapping[str, int]]) -> set[tuple[str, str]]:
    """Held-out relations, said the other way round."""
    return {
        (doc_id, query_id)
        for judged in held_out
        for query_id, graded in judged.items()
        for doc_id in graded
    }


def without_reversed(
    train: Mapping[str, Mapping[str, int]], *held_out: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, dict[str, int]], int]:
    """Training relations without those that say a held-out one the other way round; how many those were.

    That b is related to a tells a model that a is related to b.
    """
    reverse = reversed_relations(*held_out)
    kept: dict[str, dict[str, int]] = {}
    dropped = 0
    for query_id, graded in train.items():
        own = {
            doc_id: grade for doc_id, grade in graded.items() if (query_id, doc_id) not in reverse
        }
        dropped += len(graded) - len(own)
        if own:
            kept[query_id] = own
    return kept, dropped


def in_thirds(
    sessions: Sequence[Session], dev: float, test: float
) -> tuple[list[Session], list[Session], list[Session]]:
    """Sessions before, between and after two moments, by the shares that dev and test take."""
    n_test, n_dev = round(test * len(sessions)), round(dev * len(sessions))
    n_train = max(0, len(sessions) - n_dev - n_test)
    middle = n_train + n_dev
    return list(sessions[:n_train]), list(sessions[n_train:middle]), list(sessions[middle:])
