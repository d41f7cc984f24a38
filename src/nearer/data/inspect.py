"""A first look at data, for `nearer init`: what is there, and which settings read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nearer.config import Columns, Data
from nearer.data import fields, load, records, sources
from nearer.data.pairs import layout
from nearer.text import count_words

_LOOK = 2000  # documents and queries whose lengths and fields are looked at


class Inspection(NamedTuple):
    """What `inspect` saw: `facts` for machines, `lines` for people."""

    facts: Mapping[str, Any]
    lines: tuple[str, ...]


def guess(
    folder: Path | None = None,
    *,
    corpus: Path | None = None,
    queries: Path | None = None,
    judgments: Path | None = None,
    training: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Data:
    """Settings that read a folder or single files, with the columns that go by other names.

    `columns` (keys of data.columns → your names) goes before what is guessed.

    Raises DataError when a file is missing, or when a column cannot be told or is ambiguous.
    """
    named = {
        "folder": folder,
        "corpus": corpus,
        "queries": queries,
        "judgments": judgments,
        "training": training,
    }
    data = Data(**{key: str(path) for key, path in named.items() if path is not None})
    here = Path.cwd()
    corpus_row = _first(sources.corpus_file(data, here))
    looks = [(corpus_row, fields.DOCUMENT_ALIASES)]
    paths = [(sources.queries_file(data, here), fields.QUERY_ALIASES)]
    paths += [
        (path, fields.JUDGMENT_ALIASES)
        for path in islice(sources.judgment_files(data, here).values(), 1)
    ]
    looks += [
        (_first(path), aliases)
        for path, aliases in paths
        if path and records.ending(path) not in (".txt", ".qrels", ".trec", "")
    ]
    found: dict[str, Any] = {}
    for (
        row,
        aliases,
    ) in (
        looks
    ):  # `id` and `text` may differ from file to file, so the readers find them by themselves
        found |= {
            name: fields.column_of(name, fields.DEFAULT, aliases, row)
            for name in aliases
            if name not in ("id", "text")
        }
        found |= {"split": "split"} if "split" in row.values else {}
    if training is not None:
        layout(_first(training))
    found = {name: column for name, column in found.items() if column is not None} | dict(
        columns or {}
    )
    data = data.model_copy(update={"columns": Columns(**found)})
    fields.document(corpus_row, data.columns)
    return data


def _first(path: Path) -> records.Row:
    row = next(iter(records.read(path)), None)
    if row is None:
        raise sources.bad("the file is empty", path, "name a file with data")
    return row


def inspect(data: Data, root: Path, model_name: str | None = None) -> Inspection:
    """Layout, files, counts, splits, columns, lengths in words and metadata of the data that settings name.

    The whole data is read once.  Raises DataError as the loaders do.
    """
    loaded = load.load(data, root)
    files = {"corpus": sources.corpus_file(data, root), "queries": sources.queries_file(data, root)}
    sample = [
        loaded.corpus[i] for i in range(0, len(loaded.corpus), max(1, len(loaded.corpus) // _LOOK))
    ]
    asked = list(islice(loaded.queries.values(), _LOOK))
    seen = Counter(
        name
        for one in sample
        for name, value in one.metadata.items()
        if value not in (None, "", [])
    )
    documents, queries = (
        _lengths([one.content for one in sample]),
        _lengths([one.text for one in asked]),
    )
    facts: dict[str, Any] = {
        "layout": "BEIR folder"
        if data.folder
        else "click log"
        if data.clicks and not data.judgments
        else "single files",
        "files": {
            name: str(path)
            for name, path in (files | sources.judgment_files(data, root)).items()
            if path
        },
        "columns": {name: list(_first(path).values) for name, path in files.items() if path},
        "documents": len(loaded.corpus),
        "queries": len(loaded.queries),
        "splits": {name: len(graded) for name, graded in loaded.judgments.items()},
        "judgments": sum(
            len(docs) for graded in loaded.judgments.values() for docs in graded.values()
        ),
        "document_words": documents,
        "query_words": queries,
        "metadata": [
            name for name, n in seen.most_common() if n * 100 >= len(sample)
        ],  # in one document of a hundred
        "tags": sorted({tag for one in asked for tag in one.tags}),
        "model": str(sources.model_source(model_name, root)) if model_name else None,
    }
    splits = ", ".join(f"{name} {n:,}" for name, n in facts["splits"].items())
    lines = (
        f"{facts['layout']}: {facts['documents']:,} documents, {facts['queries']:,} queries, {facts['judgments']:,} judgments",
        "no split in the data: check makes train, dev and test"
        if set(facts["splits"]) == {"all"}
        else f"judged queries: {splits}",
        f"words a document: median {documents['median']:g}, 95% up to {documents['p95']:g}",
        f"words a query: median {queries['median']:g}, 95% up to {queries['p95']:g}",
        *(f"{name}: {', '.join(facts[name][:10])}" for name in ("metadata", "tags") if facts[name]),
    )
    return Inspection(facts, lines)


def _lengths(texts: Sequence[str]) -> dict[str, float]:
    median, p95 = np.percentile([count_words(text) for text in texts] or [0], (50, 95))
    return {"median": float(median), "p95": float(p95)}
