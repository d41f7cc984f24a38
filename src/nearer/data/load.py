"""The data that the configuration names, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nearer.config import Data
from nearer.data import clicks, fields, pairs, sources, trec
from nearer.data.corpus import Corpus
from nearer.data.trec import read_qrels, read_run, write_run
from nearer.errors import DataError
from nearer.types import Example, Judgments, Query

__all__ = [
    "Loaded",
    "load",
    "load_corpus",
    "load_judgments",
    "load_queries",
    "load_training",
    "read_qrels",
    "read_run",
    "write_run",
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that `check` reads.  `dropped` counts what a click log did not prove, by reason."""

    corpus: Corpus
    queries: dict[str, Query]
    judgments: dict[str, Judgments]
    dropped: Mapping[str, int]


def load(data: Data, root: Path) -> Loaded:
    """Documents, queries and judgments in one go.  Raises DataError."""
    log = _click_log(data, root)
    corpus = load_corpus(data, root)
    queries = _queries(data, root, log)
    return Loaded(corpus, queries, _judgments(data, root, log, queries), log.dropped if log else {})


def load_corpus(data: Data, root: Path) -> Corpus:
    """The documents.  Raises DataError; close to no memory is used for texts (see `Corpus`)."""
    return Corpus.open(sources.corpus_file(data, root), data.columns)


def load_queries(data: Data, root: Path) -> dict[str, Query]:
    """Queries by id; from the click log where there is no file of queries.  Raises DataError."""
    return _queries(data, root, _click_log(data, root))


def load_judgments(data: Data, root: Path) -> dict[str, Judgments]:
    """Judgments by split; under `all` where neither files nor `data.columns.split` tell the split.  Raises DataError."""
    log = _click_log(data, root)
    return _judgments(data, root, log, None)


def load_training(data: Data, root: Path) -> list[Example]:
    """Examples of the plain training file; empty when none is named.  Raises DataError."""
    return pairs.read_training(sources.named(root, data.training, "data.training")) if data.training else []


def _click_log(data: Data, root: Path) -> clicks.ClickLog | None:
    if not data.clicks or sources.judgment_files(data, root):
        return None
    return clicks.read_clicks(sources.named(root, data.clicks, "data.clicks"), data.columns)


def _queries(data: Data, root: Path, log: clicks.ClickLog | None) -> dict[str, Query]:
    path = sources.queries_file(data, root)
    found = fields.read_queries(path, data.columns) if path else {}
    if log is None:
        return found
    for query_id, query in log.queries.items():
        if query_id not in found and not query.text:
            raise DataError(f"the click log names query {query_id!r} without its text", where=data.clicks,
                            next_step="log the query's text, or set data.queries")  # fmt: skip
    return found | {query_id: query for query_id, query in log.queries.items() if query_id not in found}


def _judgments(data: Data, root: Path, log: clicks.ClickLog | None, queries: Mapping[str, Query] | None) -> dict[str, Judgments]:
    if log is not None:
        return {"all": log.judgments}
    paths = sources.judgment_files(data, root)
    if set(paths) != {"all"}:
        return {split: read_qrels(path, data.columns) for split, path in paths.items()}
    found = trec.collect(trec.judgments(paths["all"], data.columns), paths["all"], by_split=True)
    if set(found) == {"all"} and data.columns.split:
        return _split_by_queries(found["all"], data, load_queries(data, root) if queries is None else queries)
    if "all" in found and len(found) > 1:
        raise DataError(f"some rows have a {data.columns.split}, some have none", where=str(paths["all"]), next_step="fill the column")
    return dict(found)


def _split_by_queries(found: Judgments, data: Data, queries: Mapping[str, Query]) -> dict[str, Judgments]:
    column = str(data.columns.split)
    divided: dict[str, dict[str, Mapping[str, int]]] = {}
    for query_id, graded in found.items():
        value = queries[query_id].metadata.get(column) if query_id in queries else "train"  # unknown ones are check's to report
        if value is None:
            raise DataError(f"neither the judgments nor query {query_id!r} have the column {column!r}", where="data.columns.split",
                            next_step="correct data.columns.split, or set it to null to have a split made")  # fmt: skip
        divided.setdefault(fields.split_name(value, f"query {query_id}"), {})[query_id] = graded
    return dict(divided)
