"""A first look at data, for `nearer init`: what is there, and which settings read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nearer.config import Columns, Data
from nearer.data import fields, load, records, sources, trec
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
    columns: Mapping[str, str | None] | None = None,
) -> Data:
    """Settings that read a folder or single files, with the columns that go by other names.

    `columns` (keys of data.columns → your names) goes before what is guessed; None says that there
    is no such column.

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
    corpus_row = records.first(sources.corpus_file(data, here), "corpus")
    found = _guess_columns(data, here, corpus_row, columns or {})
    if training is not None:
        layout(records.first(training))
    found |= columns or {}
    data = data.model_copy(update={"columns": Columns.model_validate(found)})
    fields.document(corpus_row, data.columns)
    return data


def _guess_columns(
    data: Data, here: Path, corpus_row: records.Row, named: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Keys of data.columns → columns of the files that go by another name."""
    looks = [(corpus_row, fields.DOCUMENT_ALIASES)]
    found: dict[str, str | None] = {}
    queries_path = sources.queries_file(data, here)
    if queries_path:
        looks.append((records.first(queries_path, "queries"), fields.QUERY_ALIASES))
        found |= _split_column(records.read(queries_path, "queries"))
    chosen = {name: column for name, column in named.items() if column is not None}
    for path in islice(sources.judgment_files(data, here).values(), 1):
        rows = list(islice(trec.judgment_rows(path, Columns(**chosen)), _LOOK))
        if rows:
            looks.append((rows[0], fields.JUDGMENT_ALIASES))
            found |= _split_column(rows)
    for row, aliases in looks:
        for name in aliases:
            # `id` and `text` may differ from file to file: the readers find them by themselves.
            if name in ("id", "text"):
                continue
            column = fields.column_of(name, fields.DEFAULT, aliases, row)
            if column is not None:
                found[name] = column
    return found


def _split_column(rows: Iterable[records.Row]) -> dict[str, str]:
    """`split`, where judgments or queries have that column and some row of it names a split.

    Otherwise it is metadata, as in documents.
    """
    for row in islice(rows, _LOOK):
        if "split" not in row.values:
            return {}
        if str(row.values["split"]).strip().lower() in sources.SPLIT_NAMES:
            return {"split": "split"}
    return {}


def inspect(data: Data, root: Path, model_name: str | None = None) -> Inspection:
    """Layout, files, counts, splits, columns, lengths in words and metadata of the data that settings name.

    The whole data is read once.  Raises DataError as the loaders do.
    """
    loaded = load.load(data, root)
    queries_path = sources.queries_file(data, root)
    files = {"corpus": sources.corpus_file(data, root), "queries": queries_path}
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
        "columns": _columns(sources.corpus_file(data, root), queries_path),
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


def _columns(corpus: Path, queries: Path | None) -> dict[str, list[str]]:
    columns = {"corpus": list(records.first(corpus, "corpus").values)}
    if queries:
        columns["queries"] = list(records.first(queries, "queries").values)
    return columns
