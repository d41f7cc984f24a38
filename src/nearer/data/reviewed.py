"""Judgments that people made later (`review/qrels.tsv`), put to the split that has their query.

The split is made before they are added and never because of them: a judgment cannot move a query
from test to training.  A query that stands in no split takes part in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nearer.data import fields, trec
from nearer.errors import DataError
from nearer.types import SPLITS, Judgments, Query

#: Key of `Loaded.judgments` and of the inputs of `check` for what was reviewed.
REVIEWED = "reviewed"
#: Key for queries of pools, whose judgments are all among the reviewed ones.
POOLED = "pooled"

#: First line of `review/qrels.tsv`.
HEADER = "query-id\tcorpus-id\tscore"

Splits = dict[str, dict[str, Mapping[str, int]]]


def reviewed_file(root: Path) -> Path:
    """Where a project keeps the judgments of its reviewers: query or request id, document, grade."""
    return root / "review" / "qrels.tsv"


def read_reviewed(root: Path) -> Judgments:
    """What was reviewed, by query or request id; empty where there is none.  Raises DataError."""
    path = reviewed_file(root)
    if not path.is_file() or not _has_rows(path):
        return {}
    return trec.read_qrels(path)


def pooled_files(root: Path) -> list[Path]:
    """The queries of pools that are ready for test (`nearer pool finish`)."""
    return sorted((root / "review" / "pools").glob("[!.]*/test.jsonl"))


def read_pooled(root: Path) -> dict[str, Query]:
    """Those queries, by id.  Raises DataError, also where two pools give an id to different texts."""
    queries: dict[str, Query] = {}
    for path in pooled_files(root):
        found = fields.read_queries(path)
        refuse_other_texts(found, queries, path)
        queries |= found
    return queries


def refuse_other_texts(pooled: Mapping[str, Query], known: Mapping[str, Query], path: Path) -> None:
    """Raises DataError where an id of a pool stands for another text elsewhere.

    Judgments go by id: those of the one query would be taken for the other's.
    """
    taken = [name for name in pooled if name in known and known[name].text != pooled[name].text]
    if taken:
        shown = ", ".join(taken[:3])
        raise DataError(
            f"{len(taken)} ids of pooled queries are those of other queries here ({shown})",
            where=str(path),
            next_step="give the queries of the file ids of their own, then nearer pool make --force",
        )


def named_under_test(judgments: Mapping[str, Judgments]) -> dict[str, Judgments]:
    """Judgments by split, with the pooled queries under test: they belong nowhere else."""
    test = SPLITS[-1]
    named = {**judgments.get(POOLED, {}), **judgments.get(test, {})}
    return {**{name: judgments[name] for name in judgments if name != POOLED}, test: named}


def with_pooled_in_test(divided: Splits, pooled: Mapping[str, Mapping[str, int]]) -> Splits:
    """The splits with pooled queries in test alone, wherever the data's own judgments put them."""
    test = SPLITS[-1]
    splits: Splits = {}
    moved: dict[str, Mapping[str, int]] = {}
    for name, graded in divided.items():
        splits[name] = {q: grades for q, grades in graded.items() if q not in pooled}
        moved |= {q: grades for q, grades in graded.items() if q in pooled}
    splits[test] = {**splits.get(test, {}), **moved}
    return splits


def _has_rows(path: Path) -> bool:
    """Whether a file has more than its header; a first line that is a judgment is no header."""
    with open(path, encoding="utf-8-sig", errors="replace") as handle:
        return any(line.strip() not in ("", HEADER) for line in handle)


def largest_grade(judgments: Mapping[str, Judgments]) -> int:
    """The largest grade of the data, at least 1: grades of reviewers are cut to that scale."""
    largest = 1
    for graded in judgments.values():
        for grades in graded.values():
            largest = max([largest, *grades.values()])
    return largest


def added_to(
    grades: Mapping[str, int], reviewed: Mapping[str, int], largest: int
) -> dict[str, int]:
    """The judgments of one query with those that were reviewed, which count where both exist."""
    joined = dict(grades)
    for doc_id, grade in reviewed.items():
        joined[doc_id] = min(grade, largest)
    return joined


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Splits with what was reviewed, and how much of it went where.

    `counts` has `judgments`, `added`, `changed`, `same`, `outside` (of queries in no split),
    `splits` (judgments by split) and `held_out` (those that decide); it is empty where nothing was reviewed.
    """

    splits: Splits
    counts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What became of the reviewed judgments, as a sentence for people."""
        if not self.counts:
            return []
        by_split = ", ".join(f"{name} {count}" for name, count in self.counts["splits"].items())
        note = (
            f"Reviewed judgments: {self.counts['added']} added and {self.counts['changed']} changed "
            f"({by_split})"
        )
        if self.counts["outside"]:
            note += f"; {self.counts['outside']} of queries that stand in no split were left out"
        return [f"{note}."]


def with_reviewed(
    divided: Splits, given: Mapping[str, Judgments], reviewed: Judgments, item_to_item: bool
) -> Reviewed:
    """Splits with the reviewed judgments of their queries.

    `divided` are the splits as they were made, `given` the judgments as the data brings them: a
    query that the data names under a split belongs there even where it had no relevant document so
    far.  One that two splits name belongs to the later (train < dev < test).
    """
    if not reviewed:
        return Reviewed(divided)
    owner = _owners(given) | _owners(divided)
    largest = largest_grade(given)
    splits: Splits = {name: dict(divided[name]) for name in divided}
    counts = {"judgments": 0, "added": 0, "changed": 0, "same": 0, "outside": 0}
    by_split = dict.fromkeys(SPLITS, 0)
    for query_id, graded in reviewed.items():
        own = {d: grade for d, grade in graded.items() if not (item_to_item and d == query_id)}
        counts["judgments"] += len(own)
        split = owner.get(query_id)
        if split is None:
            counts["outside"] += len(own)
            continue
        before = splits[split].get(query_id, {})
        after = added_to(before, own, largest)
        if all(
            grade <= 0 for grade in after.values()
        ):  # without a relevant document nothing can be measured
            counts["outside"] += len(own)
            splits[split].pop(query_id, None)
            continue
        splits[split][query_id] = after
        by_split[split] += len(own)
        for doc_id in own:
            counts[_change(before.get(doc_id), after[doc_id])] += 1
    return Reviewed(splits, {**counts, "splits": by_split, "held_out": by_split[SPLITS[-1]]})


def _owners(judgments: Mapping[str, Judgments]) -> dict[str, str]:
    """Query id → the split that has it, the latest where several do."""
    owners: dict[str, str] = {}
    for split in SPLITS:
        for query_id in judgments.get(split, {}):
            owners[query_id] = split
    return owners


def _change(before: int | None, after: int) -> str:
    if before is None:
        return "added"
    return "same" if before == after else "changed"
