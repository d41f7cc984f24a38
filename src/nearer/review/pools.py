"""Pools on disk (`review/pools/NAME/`): queries, what every system finds for them, what is judged of it.

Reviewers get the documents of a pool in random order, without the system, the rank or the stratum.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.data.fields import query_line, read_queries
from nearer.data.importance import FREQUENCY
from nearer.data.trec import read_run, write_run
from nearer.errors import ConfigError, DataError
from nearer.files import read_json, read_jsonl, recover_folder, swap_folder, write_json, write_jsonl
from nearer.measure.sampling import rank_stratum, sample_pool
from nearer.project import Project
from nearer.review.pool_queries import Candidates, PooledQuery, draw
from nearer.review.pool_runs import Found, found_by, within
from nearer.types import Query, Run, Split

SAMPLE, REST, LEFT = "sample", "rest", "left"  # of a pool: judged; judged where whole; not judged
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_OWN = ("band", "probability", "requests", "order", "whole")  # fields beside those of a query


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool is made.  `share` of its documents are judged, half of that in queries judged whole."""

    name: str
    queries: int
    depth: int
    share: float

    @property
    def whole_share(self) -> float:
        """The share of the queries whose pool is judged whole."""
        return 1.0 if self.share >= 1.0 else self.share / 2.0

    @property
    def sample_share(self) -> float:
        """The share of each pool that is judged anyhow."""
        if self.share >= 1.0:
            return 1.0
        return (self.share - self.whole_share) / (1.0 - self.whole_share)


@dataclass(frozen=True, slots=True)
class PooledDocument:
    """A document of the pool of a query."""

    query_id: str
    doc_id: str
    stratum: int
    part: str

    @property
    def is_asked(self) -> bool:
        return self.part != LEFT


@dataclass(frozen=True)
class Pool:
    """Everything about one pool; `facts` is `pool.json`."""

    name: str
    queries: Mapping[str, PooledQuery]
    documents: Mapping[str, Sequence[PooledDocument]]  # by query
    runs: Mapping[str, Run]
    facts: Mapping[str, Any]


def folder_of(root: Path, name: str | None = None) -> Path:
    """Where the pools of a project are, or the one of a name.  Raises ConfigError for a bad name."""
    folder = root / "review" / "pools"
    if name is None:
        return folder
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a pool",
            next_step="use up to 64 letters, digits and . _ -",
        )
    return folder / name


def names_of(root: Path) -> list[str]:
    """The pools of a project, in order."""
    return sorted(path.parent.name for path in folder_of(root).glob("[!.]*/pool.json"))


def used_texts(root: Path, but: str) -> list[str]:
    """The queries of all pools but one, which is made anew."""
    texts: list[str] = []
    for name in names_of(root):
        if name == but:
            continue
        texts += [each.query.text for each in _read_queries(folder_of(root, name)).values()]
    return texts


# -- making -----------------------------------------------------------------------------------------


def make(
    project: Project,
    settings: PoolSettings,
    candidates: Candidates,
    systems: Sequence[str],
    rng: np.random.Generator,
) -> Pool:
    """Draw queries, search them with every system, and write the pool; whole or not at all.

    Raises DataError where no query is left to draw, or nothing is found.
    """
    if not candidates.asked:
        reasons = ", ".join(f"{count} {why}" for why, count in candidates.excluded.items() if count)
        raise DataError(
            "no query is left to draw",
            where=candidates.source,
            next_step=f"bring other queries ({reasons or 'the source is empty'})",
        )
    pooled = draw(candidates, settings.queries, settings.whole_share, rng)
    split = Split("pool", tuple(each.query for each in pooled), {})
    found = found_by(project, systems, split, settings.depth)
    runs = [each.run for each in found]
    documents = {each.query.id: _documents(each, runs, settings, rng) for each in pooled}
    if not any(documents.values()):
        raise DataError("no system finds anything for these queries", where=candidates.source)
    for each in found:
        each.warn()
    facts = _facts(settings, candidates, pooled, documents, found)
    pool = Pool(
        settings.name,
        {each.query.id: each for each in pooled},
        documents,
        {run.name: run for run in runs},
        facts,
    )
    _write(project.root, pool)
    return pool


def _documents(
    pooled: PooledQuery, runs: Sequence[Run], settings: PoolSettings, rng: np.random.Generator
) -> list[PooledDocument]:
    """The pool of one query, by document id, with what is judged of it."""
    best: dict[str, int] = {}
    for run in runs:
        for rank, doc_id in enumerate(run.top(pooled.query.id, settings.depth), start=1):
            best[doc_id] = min(rank, best.get(doc_id, rank))
    ids = sorted(best)
    strata = np.array([rank_stratum(best[doc_id]) for doc_id in ids], dtype=np.int64)
    chosen = sample_pool(strata, settings.sample_share, rng)
    others = REST if pooled.whole else LEFT
    documents = []
    for doc_id, stratum, taken in zip(ids, strata.tolist(), chosen.tolist(), strict=True):
        part = SAMPLE if taken else others
        documents.append(PooledDocument(pooled.query.id, doc_id, stratum, part))
    return documents


def _facts(
    settings: PoolSettings,
    candidates: Candidates,
    pooled: Sequence[PooledQuery],
    documents: Mapping[str, Sequence[PooledDocument]],
    found: Sequence[Found],
) -> dict[str, Any]:
    bands = [each.band for each in pooled]
    every = [each for pool in documents.values() for each in pool]
    return {
        "name": settings.name,
        "source": candidates.source,
        "candidates": len(candidates.asked),
        "excluded": dict(candidates.excluded),
        "failing": sum(each.fails for each in candidates.asked),
        "queries": len(pooled),
        "whole": sum(each.whole for each in pooled),
        "bands": {band: bands.count(band) for band in dict.fromkeys(bands)},
        "systems": [each.run.name for each in found],
        "without_results": {each.run.name: len(each.without) for each in found},
        "outside_corpus": {each.run.name: each.outside for each in found},
        "depth": settings.depth,
        "share": settings.share,
        "documents": len(every),
        "asked": sum(each.is_asked for each in every),
    }


def _write(root: Path, pool: Pool) -> None:
    target = folder_of(root, pool.name)
    new, aside = (target.with_name(f".{pool.name}.{kind}") for kind in ("new", "old"))
    recover_folder(target, aside)
    shutil.rmtree(new, ignore_errors=True)
    lines = []
    for each in pool.queries.values():
        own = {name: getattr(each, name) for name in _OWN}
        lines.append({**query_line(each.query), **own})
    write_jsonl(new / "queries.jsonl", lines)
    every = [each for found in pool.documents.values() for each in found]
    rows = [{name: getattr(each, name) for name in PooledDocument.__slots__} for each in every]
    write_jsonl(new / "pairs.jsonl", rows)
    for run in pool.runs.values():
        write_run(new / "runs" / f"{run.name}.trec", run)
    write_json(new / "pool.json", pool.facts)
    swap_folder(new, target, aside)


# -- reading ----------------------------------------------------------------------------------------


def read_pool(root: Path, name: str) -> Pool:
    """A pool as it was made.  Raises DataError where there is none."""
    folder = folder_of(root, name)
    if not (folder / "pool.json").is_file():
        known = ", ".join(names_of(root))
        raise DataError(
            f"there is no pool called {name!r}",
            where=str(folder),
            next_step=f"use one of {known}" if known else "nearer pool make",
        )
    documents: dict[str, list[PooledDocument]] = {}
    for row in read_jsonl(folder / "pairs.jsonl"):
        documents.setdefault(row["query_id"], []).append(PooledDocument(**row))
    facts = read_json(folder / "pool.json")
    runs = {}
    for system in facts["systems"]:
        path = folder / "runs" / f"{system}.trec"
        # A system that finds nothing for any query is one all the same; read_run refuses its file.
        runs[system] = read_run(path) if path.stat().st_size else Run(system, {})
    return Pool(name, _read_queries(folder), documents, runs, facts)


def without_missing(pool: Pool, corpus: Corpus) -> Pool:
    """The pool without documents that have left the corpus since: nobody could judge them."""
    documents = {}
    missing = 0
    for query_id, pooled in pool.documents.items():
        documents[query_id] = [each for each in pooled if each.doc_id in corpus]
        missing += len(pooled) - len(documents[query_id])
    if not missing:
        return pool
    progress.warn(
        f"{missing:,} documents of the pool {pool.name} are no longer in the corpus: left out"
    )
    split = Split("pool", tuple(each.query for each in pool.queries.values()), {})
    depth = int(pool.facts["depth"])
    runs = {name: within(run, split, corpus, depth).run for name, run in pool.runs.items()}
    return replace(pool, documents=documents, runs=runs)


def _read_queries(folder: Path) -> dict[str, PooledQuery]:
    pooled = {}
    for query_id, query in read_queries(folder / "queries.jsonl").items():
        own = {name: query.metadata[name] for name in _OWN}
        more = {name: value for name, value in query.metadata.items() if name not in _OWN}
        pooled[query_id] = PooledQuery(replace(query, metadata=more), **own)
    return pooled


def pooled_documents(root: Path) -> Iterator[tuple[PooledQuery, PooledDocument, int]]:
    """Every document that a pool asks about, with its query and the number of the pool's queries."""
    for name in names_of(root):
        folder = folder_of(root, name)
        queries = _read_queries(folder)
        for row in read_jsonl(folder / "pairs.jsonl"):
            document = PooledDocument(**row)
            if document.is_asked:
                yield queries[document.query_id], document, len(queries)


def test_query(pooled: PooledQuery) -> Query:
    """The query as `check` reads it: its frequency is the number of requests that it stands for."""
    more = {**pooled.query.metadata, FREQUENCY: round(pooled.stands_for, 6)}
    return replace(pooled.query, metadata=more)
