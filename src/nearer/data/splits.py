"""Train, dev and test: made by group or by time, frozen to files, read back (test excepted)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nearer import files
from nearer.config import SplitSettings
from nearer.data import fields, trec
from nearer.data.near import joined, near_duplicates
from nearer.data.sources import bad
from nearer.data.times import read_time
from nearer.errors import HeldOutError
from nearer.types import SPLITS, Judgments, Query, Split


class Division(NamedTuple):
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
        raise bad(
            "dev and test together take more than all queries",
            "data.split",
            "lower data.split.test",
        )
    ids = sorted(query_id for query_id in judgments if query_id in queries)
    alike = near_duplicates(
        [queries[query_id].text for query_id in ids], near_duplicate, what="queries"
    ).groups
    if settings.by == "time":
        return _by_time(
            [queries[query_id] for query_id in ids], alike, settings, timestamp or "time"
        )
    twins = [(group[0], other) for group in alike for other in group[1:]]
    first: dict[str, int] = {}
    shared = [
        (first.setdefault(d, i), i)
        for i, query_id in enumerate(ids)
        for d, grade in judgments[query_id].items()
        if grade > 0
    ]
    groups, notes = joined(len(ids), twins + shared), []
    largest = max(map(len, groups), default=0)
    if largest > len(ids) / 2:
        groups = joined(len(ids), twins)
        notes.append(
            f"Shared relevant documents tie {largest} of {len(ids)} queries into one group, so only near-duplicate queries are kept "
            "together: test queries may ask for documents that training queries asked for, as real traffic does."
        )
    divided = _deal([[ids[i] for i in group] for group in groups], settings, seed)
    return Division(
        divided,
        (
            f"Split by group with seed {seed}: {_sizes(divided)} queries in {len(groups)} groups.",
            *notes,
        ),
    )


def _sizes(divided: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name} {len(divided[name])}" for name in SPLITS)


def _deal(groups: list[list[str]], settings: SplitSettings, seed: int) -> dict[str, list[str]]:
    """Give each group, in seeded order, to the split that lacks most of its share and has room for it."""
    shares = {"train": 1 - settings.dev - settings.test, "dev": settings.dev, "test": settings.test}
    wanted = {
        name: round(share * sum(map(len, groups))) for name, share in shares.items() if share > 0
    }
    dealt: dict[str, list[str]] = {name: [] for name in SPLITS}
    random.Random(seed).shuffle(groups)  # noqa: S311 - a reproducible split, no secret
    for group in groups:
        lacking = {name: wanted[name] - len(dealt[name]) for name in wanted}
        fitting = [name for name in wanted if lacking[name] >= len(group)] or [
            max(wanted, key=lambda name: lacking[name])
        ]
        dealt[max(fitting, key=lambda name: lacking[name] / max(wanted[name], 1))].extend(group)
    return {name: sorted(ids) for name, ids in dealt.items()}


def _by_time(
    queries: list[Query], alike: Sequence[Sequence[int]], settings: SplitSettings, timestamp: str
) -> Division:
    moments = [_moment(query, timestamp) for query in queries]
    order = sorted(range(len(queries)), key=lambda i: (moments[i], queries[i].id))
    n_test, n_dev = round(settings.test * len(order)), round(settings.dev * len(order))
    part = dict(
        zip(order, [0] * (len(order) - n_test - n_dev) + [1] * n_dev + [2] * n_test, strict=False)
    )
    dropped = {i for group in alike for i in group if part[i] < max(part[j] for j in group)}
    divided = {
        name: sorted(queries[i].id for i in order if part[i] == k and i not in dropped)
        for k, name in enumerate(SPLITS)
    }
    notes = [f"Split by time ({timestamp}): {_sizes(divided)} queries, earliest first."]
    if dropped:
        notes.append(f"{len(dropped)} earlier near-duplicates of later queries were left out.")
    return Division(divided, tuple(notes))


def _moment(query: Query, timestamp: str) -> float:
    value: Any = query.metadata.get(timestamp)
    try:
        return read_time(value).timestamp()
    except ValueError:
        pass
    mend = "name the field that holds ISO 8601 or seconds, or set data.split.by: group"
    raise bad(
        f"query {query.id!r} has no readable time in {timestamp!r}: {value!r}",
        "data.columns.timestamp",
        mend,
    )


def write_split(folder: Path, split: Split) -> None:
    """Freeze a split into `folder/NAME/queries.jsonl` and `folder/NAME/qrels.tsv`, whole or not at all.

    Raises DataError for ids that hold a tab or a line end: the format cannot carry them.
    """
    rows = ["query-id\tcorpus-id\tscore\n"]
    for query in split.queries:
        for doc_id, grade in split.judgments.get(query.id, {}).items():
            if set(query.id + doc_id) & set("\t\r\n"):
                what = f"ids cannot hold tabs or line ends: {query.id!r}, {doc_id!r}"
                raise bad(what, folder / split.name / "qrels.tsv", "mend the ids of your data")
            rows.append(f"{query.id}\t{doc_id}\t{grade}\n")
    files.write_jsonl(folder / split.name / "queries.jsonl", map(fields.query_line, split.queries))
    files.write_text(folder / split.name / "qrels.tsv", "".join(rows))


def read_split(folder: Path, name: str) -> Split:
    """A frozen split below `folder` (usually `check/split`).

    Raises HeldOutError for `test`, which only `nearer.data.heldout.open_test` opens, and DataError
    when the split is missing or damaged.
    """
    require_open(name, str(folder))
    return read_files(folder, name)


def require_open(name: str, where: str) -> None:
    """Raise HeldOutError for a split that only `decide` may look at."""
    if name not in ("train", "dev"):
        mend = "only `nearer decide` looks at test; use train or dev"
        raise HeldOutError(
            f"the {name} split is not open to this stage", where=where, next_step=mend
        )


def frozen_split(root: Path, run: str, name: str) -> Split:
    """The train or dev split that `check` froze in a run below `root`; an empty one where there is none yet."""
    folder = root / "runs" / run / "check" / "split"
    return read_split(folder, name) if (folder / name).is_dir() else Split(name, (), {})


def read_files(folder: Path, name: str) -> Split:
    """What `write_split` wrote, unguarded: call `read_split` or `open_test` instead."""
    path = folder / name / "queries.jsonl"
    if not path.is_file():
        raise bad(
            f"there is no {name} split",
            path.parent,
            "nearer check; it says which splits the data has",
        )
    if not path.stat().st_size:
        return Split(name, (), {})
    return Split(
        name,
        tuple(fields.read_queries(path).values()),
        trec.read_qrels(folder / name / "qrels.tsv"),
    )
