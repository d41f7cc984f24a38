"""Train, dev and test: made by group or by time, frozen to files, read back (test excepted)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer import files
from nearer.config import SplitSettings
from nearer.data import fields, trec
from nearer.data.near import Union, near_duplicates
from nearer.errors import DataError, HeldOutError
from nearer.types import SPLITS, Judgments, Query, Split


@dataclass(frozen=True, slots=True)
class Division:
    """Query ids by split, and how they were divided, in sentences for people."""

    ids: dict[str, list[str]]
    notes: tuple[str, ...]


def make_splits(
    queries: Mapping[str, Query],
    judgments: Judgments,
    settings: SplitSettings,
    seed: int,
    near_duplicate: float,
    timestamp: str | None = None,
) -> Division:
    """Divide the judged queries; the same content gives the same splits, in whatever order it comes.

    By group: queries that are near-duplicates (Jaccard ≥ `near_duplicate`) or share a relevant
    document stay together.  Where shared documents would tie more than half of the queries into
    one group, only near-duplicates are kept together, and a note says so.  By time: the earliest
    queries train, the latest test, and earlier near-duplicates of later queries are left out;
    `timestamp` names the metadata field.

    Raises DataError when shares leave nothing, and for missing or unreadable timestamps.
    """
    if settings.dev + settings.test > 1:
        raise DataError("dev and test together take more than all queries", where="data.split", next_step="lower data.split.test")
    ids = sorted(query_id for query_id in judgments if query_id in queries)
    texts = [queries[query_id].text for query_id in ids]
    alike = near_duplicates(texts, near_duplicate, what="queries").groups
    if settings.by == "time":
        return _by_time([queries[query_id] for query_id in ids], alike, settings, timestamp or "time")
    groups, notes = _groups(ids, judgments, alike)
    divided = _deal([[ids[i] for i in group] for group in groups], settings, seed)
    sizes = ", ".join(f"{name} {len(divided[name])}" for name in SPLITS)
    return Division(divided, (f"Split by group with seed {seed}: {sizes} queries in {len(groups)} groups.", *notes))


def _groups(ids: Sequence[str], judgments: Judgments, alike: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[str]]:
    def union(shared: bool) -> list[list[int]]:
        found = Union(len(ids))
        for group in alike:
            for other in group[1:]:
                found.join(group[0], other)
        first: dict[str, int] = {}
        for i, query_id in enumerate(ids if shared else ()):
            for doc_id, grade in judgments[query_id].items():
                if grade > 0:
                    found.join(first.setdefault(doc_id, i), i)
        return found.groups()

    strict = union(shared=True)
    largest = max(map(len, strict), default=0)
    if largest <= len(ids) / 2:
        return strict, []
    note = (
        f"Shared relevant documents tie {largest} of {len(ids)} queries into one group, so only near-duplicate queries are kept "
        "together: test queries may ask for documents that training queries asked for, as real traffic does."
    )
    return union(shared=False), [note]


def _deal(groups: list[list[str]], settings: SplitSettings, seed: int) -> dict[str, list[str]]:
    """Give each group, in seeded order, to the split that lacks most of its share and has room for it."""
    total = sum(map(len, groups))
    shares = {"train": 1 - settings.dev - settings.test, "dev": settings.dev, "test": settings.test}
    wanted = {name: round(share * total) for name, share in shares.items() if share > 0}
    dealt: dict[str, list[str]] = {name: [] for name in SPLITS}
    random.Random(seed).shuffle(groups)  # noqa: S311 - a reproducible split, no secret
    for group in groups:
        lacking = {name: wanted[name] - len(dealt[name]) for name in wanted}
        fitting = [name for name in wanted if lacking[name] >= len(group)] or [max(wanted, key=lambda name: lacking[name])]
        chosen = max(fitting, key=lambda name: lacking[name] / max(wanted[name], 1))
        dealt[chosen].extend(group)
    return {name: sorted(ids) for name, ids in dealt.items()}


def _by_time(queries: list[Query], alike: Sequence[Sequence[int]], settings: SplitSettings, timestamp: str) -> Division:
    moments = [_moment(query, timestamp) for query in queries]
    order = sorted(range(len(queries)), key=lambda i: (moments[i], queries[i].id))
    n_test, n_dev = round(settings.test * len(order)), round(settings.dev * len(order))
    n_train = len(order) - n_test - n_dev
    name_of = {i: "train" if rank < n_train else "dev" if rank < n_train + n_dev else "test" for rank, i in enumerate(order)}
    dropped = set()
    for group in alike:
        latest = max(SPLITS.index(name_of[i]) for i in group)
        dropped |= {i for i in group if SPLITS.index(name_of[i]) < latest}
    divided = {name: sorted(queries[i].id for i in order if name_of[i] == name and i not in dropped) for name in SPLITS}
    notes = [f"Split by time ({timestamp}): " + ", ".join(f"{name} {len(divided[name])}" for name in SPLITS) + " queries, earliest first."]
    if dropped:
        notes.append(f"{len(dropped)} earlier near-duplicates of later queries were left out.")
    return Division(divided, tuple(notes))


def _moment(query: Query, timestamp: str) -> float:
    value: Any = query.metadata.get(timestamp)
    try:
        number = float(value) if not isinstance(value, str) or value.replace(".", "", 1).isdigit() else _iso(value)
        if math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise DataError(f"query {query.id!r} has no readable time in {timestamp!r}: {value!r}", where="data.columns.timestamp",
                    next_step="name the field that holds ISO 8601 or seconds, or set data.split.by: group") from None  # fmt: skip


def _iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# -- files -------------------------------------------------------------------------------------


def write_split(folder: Path, split: Split) -> None:
    """Freeze a split into `folder/NAME/queries.jsonl` and `folder/NAME/qrels.tsv`, whole or not at all.

    Raises DataError for ids that hold a tab or a line end: the format cannot carry them.
    """
    rows = ["query-id\tcorpus-id\tscore\n"]
    for query in split.queries:
        for doc_id, grade in split.judgments.get(query.id, {}).items():
            if any(mark in one for one in (query.id, doc_id) for mark in "\t\r\n"):
                raise DataError(f"ids cannot hold tabs or line ends: {query.id!r}, {doc_id!r}", next_step="mend the ids of your data")
            rows.append(f"{query.id}\t{doc_id}\t{grade}\n")
    files.write_jsonl(folder / split.name / "queries.jsonl", (fields.query_line(query) for query in split.queries))
    files.write_text(folder / split.name / "qrels.tsv", "".join(rows))


def read_split(folder: Path, name: str) -> Split:
    """A frozen split below `folder` (usually `check/split`).

    Raises HeldOutError for `test`, which only `nearer.data.heldout.open_test` opens, and DataError
    when the split is missing or damaged.
    """
    if name not in ("train", "dev"):
        raise HeldOutError(f"the {name} split is not open to this stage", where=str(folder),
                           next_step="only `nearer decide` looks at test; use train or dev")  # fmt: skip
    return read_files(folder, name)


def read_files(folder: Path, name: str) -> Split:
    """What `write_split` wrote, unguarded: call `read_split` or `open_test` instead."""
    if not (folder / name / "queries.jsonl").is_file():
        raise DataError(f"there is no {name} split", where=str(folder / name), next_step="nearer check; it says which splits the data has")
    if not (folder / name / "queries.jsonl").stat().st_size:
        return Split(name, (), {})
    queries = fields.read_queries(folder / name / "queries.jsonl")
    judgments = trec.read_qrels(folder / name / "qrels.tsv")
    return Split(name, tuple(queries.values()), judgments)
