"""Summarises data for `nearer init`: what it holds, and which settings read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nearer.config import Columns, Data
from nearer.data import fields, load, records, sources, trec
from nearer.data.corpus import Corpus
from nearer.data.pairs import layout
from nearer.text import count_words
from nearer.types import Document

_LOOK = 2000  # documents and queries whose lengths and fields are looked at


class Inspection(NamedTuple):
    """What `inspect` read: `facts` for machines, `lines` for people."""

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
    documents_alone: bool = False,
) -> Data:
    """Settings that read a folder or single files, with the columns that go by other names.

    `documents_alone`: nobody asked anything yet, so that queries are to be generated.

    `columns` (keys of data.columns → your names) goes before what is guessed; None says that there
    is no such column.

    Raises DataError when a file is missing, or when a column cannot be told or is ambiguous.
    """
    paths = {
        "folder": folder,
        "corpus": corpus,
        "queries": queries,
        "judgments": judgments,
        "training": training,
    }
    given = {key: str(path) for key, path in paths.items() if path is not None}
    data = Data(**given)
    if documents_alone:
        data = data.model_copy(update={"generated": "train,dev,test"})
    here = Path.cwd()
    named = columns or {}
    corpus_row = records.first(sources.corpus_file(data, here), "corpus")
    guessed = _guess_columns(data, here, corpus_row, named)
    if training is not None:
        layout(records.first(training))
    all_columns = Columns.model_validate({**guessed, **named})
    fields.document(corpus_row, all_columns)
    return data.model_copy(update={"columns": all_columns})


def _guess_columns(
    data: Data, here: Path, corpus_row: records.Row, named: Mapping[str, str | None]
) -> dict[str, str]:
    """Keys of data.columns → columns of the files that go by another name."""
    guessed = _other_names(corpus_row, fields.DOCUMENT_ALIASES)
    queries_path = sources.queries_file(data, here)
    if queries_path:
        guessed |= _split_column(records.read(queries_path, "queries"))
        row = records.first(queries_path, "queries")
        guessed |= _other_names(row, fields.QUERY_ALIASES)
    chosen = {name: column for name, column in named.items() if column is not None}
    paths = list(sources.judgment_files(data, here).values())
    for path in paths[:1]:
        judgments = trec.judgment_rows(path, Columns(**chosen))
        rows = list(islice(judgments, _LOOK))
        guessed |= _split_column(rows)
        for row in rows[:1]:
            guessed |= _other_names(row, fields.JUDGMENT_ALIASES)
    return guessed


def _other_names(row: records.Row, aliases: fields.Aliases) -> dict[str, str]:
    """Keys of data.columns that a row has under another name.  Raises DataError for ambiguous ones."""
    columns: dict[str, str] = {}
    for name in aliases:
        # `id` and `text` may differ from file to file: the readers find them by themselves.
        if name in ("id", "text"):
            continue
        column = fields.column_of(name, fields.DEFAULT, aliases, row)
        if column is not None:
            columns[name] = column
    return columns


def _split_column(rows: Iterable[records.Row]) -> dict[str, str]:
    """`split`, where judgments or queries have that column and some row of it names a split.

    Otherwise it is metadata, as in documents.
    """
    for row in islice(rows, _LOOK):
        if "split" not in row.values:
            return {}
        value = str(row.values["split"])
        if value.strip().lower() in sources.SPLIT_NAMES:
            return {"split": "split"}
    return {}


def inspect(data: Data, root: Path, model_name: str | None = None) -> Inspection:
    """Layout, files, counts, splits, columns, lengths in words and metadata of the data that settings name.

    The whole data is read once.  Raises DataError as the loaders do.
    """
    loaded = load.load(data, root)
    documents = _sample(loaded.corpus)
    queries = list(islice(loaded.queries.values(), _LOOK))
    n_judgments = 0
    for graded in loaded.judgments.values():
        n_judgments += sum(map(len, graded.values()))
    facts: dict[str, Any] = {
        "layout": _layout(data),
        "files": _files(data, root),
        "columns": _columns(data, root),
        "documents": len(loaded.corpus),
        "queries": len(loaded.queries),
        "splits": {name: len(graded) for name, graded in loaded.judgments.items()},
        "judgments": n_judgments,
        "document_words": _lengths([document.content for document in documents]),
        "query_words": _lengths([query.text for query in queries]),
        "metadata": _common_fields(documents),
        "tags": sorted({tag for query in queries for tag in query.tags}),
        "model": None,
    }
    if model_name:
        facts["model"] = str(sources.model_source(model_name, root))
    return Inspection(facts, tuple(_lines(facts)))


def _sample(corpus: Corpus) -> list[Document]:
    """About `_LOOK` documents, evenly out of the whole corpus."""
    step = max(1, len(corpus) // _LOOK)
    return [corpus[position] for position in range(0, len(corpus), step)]


def _layout(data: Data) -> str:
    if data.folder:
        return "BEIR folder"
    if data.clicks and not data.judgments:
        return "click log"
    return "single files"


def _files(data: Data, root: Path) -> dict[str, str]:
    paths = {
        "corpus": sources.corpus_file(data, root),
        "queries": sources.queries_file(data, root),
        **sources.judgment_files(data, root),
    }
    return {name: str(path) for name, path in paths.items() if path}


def _columns(data: Data, root: Path) -> dict[str, list[str]]:
    corpus = records.first(sources.corpus_file(data, root), "corpus")
    columns = {"corpus": list(corpus.values)}
    queries_path = sources.queries_file(data, root)
    if queries_path:
        queries = records.first(queries_path, "queries")
        columns["queries"] = list(queries.values)
    return columns


def _common_fields(documents: Sequence[Document]) -> list[str]:
    """Metadata fields that one document of a hundred has, the most frequent first."""
    counts = Counter[str]()
    for document in documents:
        for name, value in document.metadata.items():
            if value not in (None, "", []):
                counts[name] += 1
    least = len(documents) / 100
    return [name for name, count in counts.most_common() if count >= least]


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The facts as sentences for people."""
    counts = [f"{facts[key]:,} {key}" for key in ("documents", "queries", "judgments")]
    yield f"{facts['layout']}: {', '.join(counts)}"
    splits: Mapping[str, int] = facts["splits"]
    if not splits:
        yield "no queries yet: nearer generate makes some from the documents"
    elif set(splits) == {"all"}:
        yield "no split in the data: check makes train, dev and test"
    else:
        sizes = [f"{name} {n:,}" for name, n in splits.items()]
        yield f"judged queries: {', '.join(sizes)}"
    measured = ("document", "query") if facts["queries"] else ("document",)
    for what in measured:
        words = facts[f"{what}_words"]
        yield f"words a {what}: median {words['median']:g}, 95% up to {words['p95']:g}"
    for name in ("metadata", "tags"):
        if facts[name]:
            yield f"{name}: {', '.join(facts[name][:10])}"


def _lengths(texts: Sequence[str]) -> dict[str, float]:
    counts = [count_words(text) for text in texts]
    median, p95 = np.percentile(counts or [0], (50, 95))
    return {"median": float(median), "p95": float(p95)}
