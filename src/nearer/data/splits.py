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

_SEPARATORS = frozenset("\t\r\n")  # of a file of judgments

Ids = dict[str, list[str]]  # split → query ids
Rows = Sequence[int]  # positions of queries
Links = list[tuple[int, int]]  # pairs of rows that stay together


class Division(NamedTuple):
    """Query ids by split, and how they were divided, in sentences for people."""

    ids: Ids
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
    judged = [queries[query_id] for query_id in ids]
    texts = [query.text for query in judged]
    alike = near_duplicates(texts, near_duplicate, what="queries").groups
    if settings.by == "time":
        return _by_time(judged, alike, settings, timestamp or "time")
    duplicates = _links(alike)
    shared = _shared_documents([judgments[query_id] for query_id in ids])
    groups = joined(len(ids), duplicates + shared)
    largest = max(map(len, groups), default=0)
    notes: list[str] = []
    if largest > len(ids) / 2:
        groups = joined(len(ids), duplicates)
        notes.append(
            f"Shared relevant documents tie {largest} of {len(ids)} queries into one group, so only near-duplicate queries are kept "
            "together: test queries may ask for documents that training queries asked for, as real traffic does."
        )
    named_groups = [[ids[row] for row in group] for group in groups]
    divided = _deal(named_groups, settings, seed)
    sizes = f"{_sizes(divided)} queries in {len(groups)} groups"
    return Division(divided, (f"Split by group with seed {seed}: {sizes}.", *notes))


class Apart(NamedTuple):
    """Query ids by split, and those that fit none, as their documents fell into two."""

    ids: Ids
    left_out: tuple[str, ...]


def documents_apart(
    queries: Mapping[str, Query],
    judgments: Judgments,
    settings: SplitSettings,
    seed: int,
    near_duplicate: float,
) -> Apart:
    """Divide queries by dealing their relevant documents, so that no document stands in two splits.

    Documents whose own queries are near-duplicates stay together.  A query goes where all of its
    documents are.  Queries of several documents tie nothing: where theirs fell apart, they are left
    out.
    """
    documents_of: dict[str, list[str]] = {}
    for query_id in sorted(judgments):
        relevant = [doc_id for doc_id, grade in judgments[query_id].items() if grade > 0]
        if query_id in queries and relevant:
            documents_of[query_id] = relevant
    doc_ids = sorted({doc_id for relevant in documents_of.values() for doc_id in relevant})
    row_of = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    alone = [query_id for query_id, relevant in documents_of.items() if len(relevant) == 1]
    texts = [queries[query_id].text for query_id in alone]
    links: Links = []
    for first, other in _links(near_duplicates(texts, near_duplicate, what="queries").groups):
        pair = [row_of[documents_of[alone[row]][0]] for row in (first, other)]
        links.append((pair[0], pair[1]))
    groups = [[doc_ids[row] for row in group] for group in joined(len(doc_ids), links)]
    split_of: dict[str, str] = {}
    for name, dealt in _deal(groups, settings, seed).items():
        split_of.update(dict.fromkeys(dealt, name))
    ids: Ids = {name: [] for name in SPLITS}
    left_out = []
    for query_id, relevant in documents_of.items():
        names = {split_of[doc_id] for doc_id in relevant}
        if len(names) == 1:
            ids[names.pop()].append(query_id)
        else:
            left_out.append(query_id)
    return Apart(ids, tuple(left_out))


def _links(groups: Sequence[Rows]) -> Links:
    """Pairs that hold each group together."""
    links: Links = []
    for first, *others in groups:
        links.extend((first, row) for row in others)
    return links


def _shared_documents(grades: Sequence[Mapping[str, int]]) -> Links:
    """Pairs of queries that share a relevant document; `grades` are those of each query."""
    first: dict[str, int] = {}  # document id → the first query that it is relevant to
    links: Links = []
    for row, graded in enumerate(grades):
        for doc_id, grade in graded.items():
            if grade > 0:
                links.append((first.setdefault(doc_id, row), row))
    return links


def _sizes(divided: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name} {len(divided[name])}" for name in SPLITS)


def _deal(groups: list[list[str]], settings: SplitSettings, seed: int) -> Ids:
    """Give each group, in seeded order, to the split that lacks most of its share and has room for it."""
    shares = {
        "train": 1 - settings.dev - settings.test,
        "dev": settings.dev,
        "test": settings.test,
    }
    n_queries = sum(map(len, groups))
    sizes = {name: round(share * n_queries) for name, share in shares.items() if share > 0}
    divided: Ids = {name: [] for name in SPLITS}
    random.Random(seed).shuffle(groups)  # noqa: S311 - a reproducible split, no secret
    for group in groups:
        lacking: dict[str, int] = {}
        share_lacking: dict[str, float] = {}
        for name, size in sizes.items():
            lacking[name] = size - len(divided[name])
            share_lacking[name] = lacking[name] / max(size, 1)
        fitting = [name for name in sizes if lacking[name] >= len(group)]
        if not fitting:
            fitting = [max(lacking, key=lacking.__getitem__)]
        split = max(fitting, key=share_lacking.__getitem__)
        divided[split].extend(group)
    for ids in divided.values():
        ids.sort()
    return divided


def _by_time(
    queries: list[Query], alike: Sequence[Rows], settings: SplitSettings, timestamp: str
) -> Division:
    moments = [_moment(query, timestamp) for query in queries]
    rows = range(len(queries))
    order = sorted(rows, key=lambda row: (moments[row], queries[row].id))
    n_test = round(settings.test * len(order))
    n_dev = round(settings.dev * len(order))
    n_train = max(0, len(order) - n_test - n_dev)
    part: dict[int, int] = {}  # row → position of its split in SPLITS
    for position, row in enumerate(order):
        part[row] = int(position >= n_train) + int(position >= n_train + n_dev)
    dropped: set[int] = set()
    for group in alike:
        latest = max(part[row] for row in group)
        dropped.update(row for row in group if part[row] < latest)
    divided: Ids = {name: [] for name in SPLITS}
    for row in order:
        if row not in dropped:
            split = SPLITS[part[row]]
            divided[split].append(queries[row].id)
    for ids in divided.values():
        ids.sort()
    notes = [f"Split by time ({timestamp}): {_sizes(divided)} queries, earliest first."]
    if dropped:
        notes.append(f"{len(dropped)} earlier near-duplicates of later queries were left out.")
    return Division(divided, tuple(notes))


def _moment(query: Query, timestamp: str) -> float:
    value: Any = query.metadata.get(timestamp)
    try:
        return read_time(value).timestamp()
    except ValueError:
        raise bad(
            f"query {query.id!r} has no readable time in {timestamp!r}: {value!r}",
            "data.columns.timestamp",
            "name the field that holds ISO 8601 or seconds, or set data.split.by: group",
        ) from None


def write_split(folder: Path, split: Split) -> None:
    """Freeze a split into `folder/NAME/queries.jsonl` and `folder/NAME/qrels.tsv`, whole or not at all.

    Raises DataError for ids that hold a tab or a line end: the format cannot carry them.
    """
    path = folder / split.name / "qrels.tsv"
    lines = ["query-id\tcorpus-id\tscore\n"]
    for query in split.queries:
        for doc_id, grade in split.judgments.get(query.id, {}).items():
            if not _SEPARATORS.isdisjoint(query.id + doc_id):
                what = f"ids cannot hold tabs or line ends: {query.id!r}, {doc_id!r}"
                raise bad(what, path, "mend the ids of your data")
            lines.append(f"{query.id}\t{doc_id}\t{grade}\n")
    queries = map(fields.query_line, split.queries)
    files.write_jsonl(path.with_name("queries.jsonl"), queries)
    files.write_text(path, "".join(lines))


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
    if not (folder / name).is_dir():
        return Split(name, (), {})
    return read_split(folder, name)


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
    queries = fields.read_queries(path)
    judgments = trec.read_qrels(path.with_name("qrels.tsv"))
    return Split(name, tuple(queries.values()), judgments)
