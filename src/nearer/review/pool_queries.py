"""Which queries a test set is made of: what users asked, or a file, drawn with known probabilities."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.fields import read_queries
from nearer.data.generated import is_generated
from nearer.data.heldout import HeldOut
from nearer.data.importance import frequencies_of
from nearer.data.near import normalise
from nearer.data.reviewed import refuse_other_texts
from nearer.errors import DataError
from nearer.live.traffic.log import Request, read_traffic
from nearer.measure.sampling import BANDS, draw_queries, frequency_bands
from nearer.project import Project
from nearer.types import Query, is_blank

_THUMBS_DOWN = -1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that can be drawn: how often it was asked, and whether most requests of it failed."""

    query: Query
    requests: float
    fails: bool = False


@dataclass(frozen=True, slots=True)
class PooledQuery:
    """A query that was drawn.

    `order` is its place in the order of judging, which is random; `whole`: all of its pool is
    judged, not a sample alone.
    """

    query: Query
    requests: float
    probability: float
    band: str
    order: int
    whole: bool

    @property
    def stands_for(self) -> float:
        """Requests of users that this query stands for."""
        return self.requests / self.probability


@dataclass(frozen=True, slots=True)
class Candidates:
    """What can be drawn, and what was left out, by reason."""

    asked: Sequence[Asked]
    source: str
    excluded: Mapping[str, int] = field(default_factory=dict)


def from_traffic(project: Project) -> Candidates:
    """The distinct queries of the traffic log.  Raises DataError where there is none."""
    folder = project.root / "traffic"
    requests = [each for each in read_traffic(folder) if not is_blank(each.query)]
    if not requests:
        raise DataError(
            "there is no traffic to draw queries from",
            where=str(folder),
            next_step="nearer pool make queries.jsonl, nearer log import FILE, or nearer serve first",
        )
    by_key: dict[str, list[Request]] = {}
    for request in requests:
        by_key.setdefault(_key(request.query, request.filter), []).append(request)
    asked = []
    for key, same in sorted(by_key.items()):
        text, _ = Counter(request.query for request in same).most_common(1)[0]
        failed = sum(map(_failed, same))
        query = Query(f"asked-{key}", text, same[0].filter)
        asked.append(Asked(query, float(len(same)), 2 * failed > len(same)))
    return Candidates(asked, f"{len(requests):,} requests of the traffic log")


def _key(text: str, declared: Mapping[str, Any] | None) -> str:
    """Requests that differ in case or punctuation alone are one query."""
    values = [normalise(text), declared or None]
    content = json.dumps(values, sort_keys=True, default=str).encode("utf-8", "replace")
    return hashlib.sha256(content).hexdigest()[:16]


def _failed(request: Request) -> bool:
    """Whether a request was answered by nothing, by an error, or to somebody's dislike."""
    disliked = any(
        each.kind == "thumbs" and each.value == _THUMBS_DOWN for each in request.feedback
    )
    return bool(request.error) or not request.results or disliked


def from_file(path: Path, project: Project) -> Candidates:
    """The queries of a file, as often as their field `frequency` says.  Raises DataError.

    Generated queries are left out: a test set is made of what people ask.
    """
    if not path.is_file():
        raise DataError(
            "there is no such file", where=str(path), next_step="name a file of queries"
        )
    queries = list(read_queries(path, project.settings.data.columns).values())
    here = {query.id: query for name in ("train", "dev") for query in project.split(name).queries}
    refuse_other_texts({query.id: query for query in queries}, here, path)
    frequencies = frequencies_of(queries) or {}
    asked = []
    for query in queries:
        if not is_generated(query):
            asked.append(Asked(query, frequencies.get(query.id, 1.0)))
    excluded = {"generated": len(queries) - len(asked)}
    return Candidates(asked, f"{len(queries):,} queries of {path.name}", excluded)


def without_known(candidates: Candidates, project: Project, used: Iterable[str]) -> Candidates:
    """Without queries that repeat one of train, dev or test, or one whose text is in `used`.

    A test query that was trained on measures nothing; one that is held out already has its
    judgments.  Raises MissingStepError before `nearer check`.
    """
    threshold = project.settings.check.near_duplicate
    train = HeldOut.of((query.text for query in project.split("train").queries), threshold)
    guards: dict[str, Callable[[str], str | None]] = {
        "repeats a dev or test query": project.held_out.collides,
        "repeats a training query": train.collides,
        "is in another pool": HeldOut.of(used, threshold).collides,
    }
    excluded = Counter(dict.fromkeys(guards, 0))
    kept = []
    for each in candidates.asked:
        collided = [name for name, guard in guards.items() if guard(each.query.text)]
        if collided:
            excluded[collided[0]] += 1
        else:
            kept.append(each)
    return replace(candidates, asked=kept, excluded={**candidates.excluded, **excluded})


def draw(
    candidates: Candidates, n: int, whole_share: float, rng: np.random.Generator
) -> list[PooledQuery]:
    """n queries, equally many frequent, middle and rare ones; slices and failures in proportion.

    `whole_share` of them, at random, are judged whole: two at least, where not all are.
    """
    asked = candidates.asked
    bands = frequency_bands(np.array([each.requests for each in asked]))
    groups = [(each.fails, each.query.tags) for each in asked]
    drawn = draw_queries(bands.tolist(), groups, n, rng)
    orders = rng.permutation(len(drawn)).tolist()
    whole = set(rng.permutation(len(drawn))[: max(2, round(whole_share * len(drawn)))].tolist())
    pooled = []
    for number, each in enumerate(drawn):
        source = asked[each.position]
        band = BANDS[int(bands[each.position])]
        pooled.append(
            PooledQuery(
                source.query,
                source.requests,
                each.probability,
                band,
                orders[number],
                number in whole,
            )
        )
    return pooled
