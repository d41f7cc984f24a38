"""The data that the configuration names, as values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nearer.config import Data
from nearer.data import clicks, fields, pairs, sources, trec
from nearer.data.corpus import Corpus
from nearer.types import Example, Judgments, Query, Split


class Loaded(NamedTuple):
    """Everything that `check` reads.

    Judgments are by split, under `all` where neither files nor `data.columns.split` tell the
    split.  `dropped` counts what a click log did not prove, by reason.
    """

    corpus: Corpus
    queries: dict[str, Query]
    judgments: dict[str, Judgments]
    dropped: Mapping[str, int]


def load(data: Data, root: Path) -> Loaded:
    """Documents, queries and judgments in one go.  Raises DataError."""
    corpus = load_corpus(data, root)
    paths = sources.judgment_files(data, root)
    path = sources.queries_file(data, root)
    queries = fields.read_queries(path, data.columns) if path else {}
    if data.clicks and not paths:
        log_path = sources.named(root, data.clicks, "data.clicks")
        log = clicks.read_clicks(log_path, data.columns)
        queries = log.queries | queries
        for query_id, query in log.queries.items():
            if not query.text and queries[query_id] is query:
                what = f"the click log names query {query_id!r} without its text"
                raise sources.bad(what, data.clicks, "log the query's text, or set data.queries")
        for query_id, query in log.queries.items():
            weights = query.metadata.get(clicks.CLICK_WEIGHTS)
            queries[query_id] = clicks.weighted(queries[query_id], weights)
        return Loaded(corpus, queries, {"all": log.judgments}, log.dropped)
    return Loaded(corpus, queries, _judgments(data, paths, queries), {})


def load_general_folder(folder: str, root: Path) -> tuple[Corpus, Split]:
    """A general-ability set of the user's own: a folder with documents, queries and judgments.

    Its test judgments are taken, else those of dev, else the first there are.  Raises DataError.
    """
    loaded = load(Data(folder=folder), root)
    first = next(iter(loaded.judgments.values()))
    judgments = loaded.judgments.get("test") or loaded.judgments.get("dev") or first
    queries = [loaded.queries[query_id] for query_id in judgments if query_id in loaded.queries]
    return loaded.corpus, Split("general", tuple(queries), judgments)


def load_corpus(data: Data, root: Path) -> Corpus:
    """The documents.  Raises DataError; close to no memory is used for texts (see `Corpus`)."""
    return Corpus.open(sources.corpus_file(data, root), data.columns)


def load_training(data: Data, root: Path, min_score: float | None = None) -> list[Example]:
    """Examples of the plain training file, of every score; empty when none is named.

    Raises DataError, also where pairs have scores and no `min_score` says which are positives.
    """
    if not data.training:
        return []
    path = sources.named(root, data.training, "data.training")
    examples = pairs.read_training(path)
    scores = [example.score for example in examples if example.score is not None]
    if scores and min_score is None:
        lowest, highest = min(scores), max(scores)
        middle = (lowest + highest) / 2
        raise sources.bad(
            f"the pairs have scores from {lowest:g} to {highest:g}, and nothing says from "
            "which score on a pair is a positive (mine.min_score)",
            path,
            f"nearer run --set mine.min_score={middle:g}, or set "
            "mine.min_score in nearer.yaml; rename the column if it holds no score",
        )
    return examples


def _judgments(
    data: Data, paths: Mapping[str, Path], queries: Mapping[str, Query]
) -> dict[str, Judgments]:
    if set(paths) != {"all"}:
        by_split: dict[str, Judgments] = {}
        for split, path in paths.items():
            by_split[split] = trec.read_qrels(path, data.columns)
        return by_split
    judgments = trec.read_judgments(paths["all"], data.columns)
    column = data.columns.split
    if not column or "all" not in judgments:
        return dict(judgments)
    if len(judgments) > 1:
        what = f"some rows have a {column}, some have none"
        raise sources.bad(what, paths["all"], "fill the column")
    divided: dict[str, dict[str, Mapping[str, int]]] = {}
    for query_id, grades in judgments["all"].items():
        split = "train"  # of unknown queries, which are for `check` to report
        if query_id in queries:
            split = _split_of(queries[query_id], column)
        divided.setdefault(split, {})[query_id] = grades
    return dict(divided)


def _split_of(query: Query, column: str) -> str:
    """The split that a query names in a column.  Raises DataError."""
    value = query.metadata.get(column)
    if value is None:
        raise sources.bad(
            f"neither the judgments nor query {query.id!r} have the column {column!r}",
            "data.columns.split",
            "correct data.columns.split, or set it to null to have a split made",
        )
    return fields.split_name(value, f"query {query.id}")
