"""Which pairs of a query and a document are worth a judgment, and how much each of them.

A pair matters as far as its document moves one system and not the other: by the difference of its
two discounts in DCG, as a share of what the query can reach at all.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer.data.trec import read_run
from nearer.errors import DataError
from nearer.files import read_json, read_jsonl, write_jsonl
from nearer.project import Project
from nearer.review.judgments import Subject
from nearer.review.lists import LISTS, Lists
from nearer.review.pools import pooled_documents
from nearer.types import Split

DISAGREEMENT = "systems disagree"
UNJUDGED = "unjudged result"
SUSPECT = "judgment in doubt"
SHADOW = "shadow disagrees"
LABEL = "failure with unjudged results above"
POOLED = "of a pool"
_OPEN = 0.5  # weight of an unjudged result that is no question between two systems
_POOL = 0.25  # weight of a document of a pool
_TRAFFIC, _DECISION, IN_POOL = "traffic", "decision", "pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What somebody is asked.  `weight` is how much the judgment matters; the page never tells it."""

    query_id: str  # or the id of a request of the traffic log
    doc_id: str
    query: str
    split: str  # train, dev, decision (what `decide` left), pool or traffic
    weight: float
    reasons: tuple[str, ...] = ()
    filter: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()

    @property
    def subject(self) -> Subject:
        return self.query_id, self.doc_id

    def as_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Pair:
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known["reasons"] = tuple(known.get("reasons", ()))
        known["tags"] = tuple(known.get("tags", ()))
        return cls(**known)


def pair_id(secret: bytes, subject: Subject) -> str:
    """What the page calls a pair: it tells neither its query, its document, nor its place."""
    content = json.dumps(subject, ensure_ascii=False).encode()
    return hmac.digest(secret, b"pair" + content, "sha256").hex()[:20]


def discount(rank: int | None, depth: int) -> float:
    """What a relevant document at a rank (from 1) adds to DCG; 0 below the depth."""
    if rank is None or rank > depth:
        return 0.0
    return float(1.0 / np.log2(rank + 1.0))


def read_pairs(root: Path) -> list[Pair]:
    """The pairs as they were chosen last, the weightiest first."""
    path = root / "review" / "pairs.jsonl"
    if not path.is_file():
        return []
    return [Pair.of(line) for line in read_jsonl(path)]


def choose_pairs(project: Project) -> list[Pair]:
    """All pairs that the results of the run make worth a judgment; writes `review/pairs.jsonl`.

    What has not been run yet gives none: the caller says what to run.
    """
    collected: dict[Subject, Pair] = {}
    for pair in _all_pairs(project):
        known = collected.get(pair.subject)
        if known is not None:
            reasons = tuple(dict.fromkeys((*known.reasons, *pair.reasons)))
            pair = replace(known, weight=max(known.weight, pair.weight), reasons=reasons)  # noqa: PLW2901
        if pair.doc_id in project.corpus:
            collected[pair.subject] = pair
    pairs = sorted(collected.values(), key=lambda pair: (-pair.weight, pair.subject))
    write_jsonl(project.root / "review" / "pairs.jsonl", (pair.as_dict() for pair in pairs))
    return pairs


def _all_pairs(project: Project) -> Iterator[Pair]:
    run_dir = project.run_dir
    if run_dir is None:
        return
    depth = project.settings.review.depth
    lists = run_dir / LISTS
    if lists.is_file():
        yield from pairs_of_lists(Lists.of(read_json(lists)), depth)
    if (run_dir / "check" / "split" / "dev").is_dir():
        yield from _of_dev(run_dir, project.split("dev"), depth)
        yield from _of_queue(project, depth)
    yield from _of_pools(project.root)


def _of_pools(root: Path) -> Iterator[Pair]:
    """What the pools ask, query after query in random order: a part of it is a random part."""
    for pooled, document, n_queries in pooled_documents(root):
        query = pooled.query
        yield Pair(
            query_id=query.id,
            doc_id=document.doc_id,
            query=query.text,
            split=IN_POOL,
            weight=round(_POOL * (1.0 - 0.01 * pooled.order / n_queries), 6),
            reasons=(POOLED,),
            filter=query.filter,
            tags=query.tags,
        )


def pairs_of_lists(lists: Lists, depth: int) -> Iterator[Pair]:
    """Unjudged results of the two systems between which a decision stands, on test."""
    for row in lists.queries:
        ideal = sum(discount(rank, depth) for rank in range(1, max(1, row.n_relevant(1)) + 1))
        ranks = (_ranks(row.baseline, depth), _ranks(row.candidate, depth))
        for doc_id in dict.fromkeys((*row.baseline[:depth], *row.candidate[:depth])):
            if doc_id in row.grades:
                continue
            before, after = (discount(rank.get(doc_id), depth) for rank in ranks)
            apart = abs(after - before)
            yield Pair(
                query_id=row.query_id,
                doc_id=doc_id,
                query=row.text,
                split=_DECISION,
                weight=round((apart + 0.05 * max(before, after)) / ideal, 6),
                reasons=(DISAGREEMENT if apart else UNJUDGED,),
                filter=row.filter,
            )


def _ranks(doc_ids: Sequence[str], depth: int) -> dict[str, int]:
    return {doc_id: rank for rank, doc_id in enumerate(doc_ids[:depth], start=1)}


def _of_dev(run_dir: Path, dev: Split, depth: int) -> Iterator[Pair]:
    """Unjudged results of the systems that `evaluate` measured."""
    failing = _label_suspects(run_dir)
    texts = {query.id: query for query in dev.queries}
    for path in sorted((run_dir / "evaluate" / "systems").glob("*.trec")):
        for query_id, hits in read_run(path).results.items():
            query = texts.get(query_id)
            if query is None:
                continue
            judged = dev.judgments.get(query_id, {})
            for rank, (doc_id, _) in enumerate(hits[:depth], start=1):
                if doc_id in judged:
                    continue
                reasons = (UNJUDGED, LABEL) if query_id in failing else (UNJUDGED,)
                yield Pair(
                    query_id=query_id,
                    doc_id=doc_id,
                    query=query.text,
                    split="dev",
                    weight=round(_OPEN * discount(rank, depth) * len(reasons) / 2, 6),
                    reasons=reasons,
                    filter=query.filter,
                    tags=query.tags,
                )


def _label_suspects(run_dir: Path) -> set[str]:
    """Queries that fail because results above the relevant one may be as relevant."""
    path = run_dir / "diagnose" / "failures.jsonl"
    if not path.is_file():
        return set()
    return {str(line["query_id"]) for line in read_jsonl(path) if line["cause"] == "label_suspect"}


def _of_queue(project: Project, depth: int) -> Iterator[Pair]:
    """What `mine` and `shadow` put into `review/queue.jsonl`."""
    path = project.root / "review" / "queue.jsonl"
    if not path.is_file():
        return
    train = _by_text(project.split("train"))
    for line in read_jsonl(path):
        if line.get("split") == "train":
            yield from _suspect(line, train, project)
        else:
            yield from _shadow(line, depth)


def _by_text(split: Split) -> dict[str, str]:
    return {query.text: query.id for query in split.queries}


def _suspect(line: Mapping[str, Any], train: Mapping[str, str], project: Project) -> Iterator[Pair]:
    """A training pair that is probably wrong; it is asked under its query, where it has one."""
    query = str(line["query"])
    collides = project.held_out.collides(query)
    for hit in line["results"]:
        if collides is None:
            yield Pair(
                query_id=train.get(query, str(line["request_id"])),
                doc_id=str(hit["id"]),
                query=query,
                split="train",
                weight=round(_OPEN * float(line.get("disagreement", 0.0)), 6),
                reasons=(SUSPECT,),
            )


def _shadow(line: Mapping[str, Any], depth: int) -> Iterator[Pair]:
    """Results that the live generation and its candidate rank differently."""
    sides = [[str(hit["id"]) for hit in line.get(key, ())] for key in ("results", "shadow_results")]
    ranks = [_ranks(side, depth) for side in sides]
    for doc_id in dict.fromkeys((*sides[0][:depth], *sides[1][:depth])):
        before, after = (discount(rank.get(doc_id), depth) for rank in ranks)
        if before != after:
            yield Pair(
                query_id=str(line["request_id"]),
                doc_id=doc_id,
                query=str(line["query"]),
                split=_TRAFFIC,
                weight=round(abs(after - before), 6),
                reasons=(SHADOW,),
                filter=line.get("filter"),
            )


def require_pairs(pairs: Iterable[Pair], root: Path) -> None:
    """Raises DataError where there is nothing to judge, with the command that gives something."""
    if not any(True for _ in pairs):
        raise DataError(
            "there is nothing to judge yet",
            where=str(root / "review"),
            next_step="nearer run (its results are what people judge), then nearer review serve",
        )
