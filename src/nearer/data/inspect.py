"""A first look at data, for `nearer init`: what is there, and which settings read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from nearer.config import Columns, Data
from nearer.data import fields, load, records, sources
from nearer.data.pairs import layout
from nearer.errors import DataError
from nearer.types import Query

_LOOK = 2000  # documents and queries whose lengths and fields are looked at


@dataclass(frozen=True, slots=True)
class Inspection:
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
    named = {"folder": folder, "corpus": corpus, "queries": queries, "judgments": judgments, "training": training}
    data = Data(**{key: str(path) for key, path in named.items() if path is not None})
    here = Path.cwd()
    found: dict[str, Any] = {}
    corpus_row = _first(sources.corpus_file(data, here))
    queries_path = sources.queries_file(data, here)
    parts: list[tuple[Path | None, Mapping[str, tuple[str, ...]]]] = [(queries_path, fields.QUERY_ALIASES)]
    parts += [(path, fields.JUDGMENT_ALIASES) for path in islice(sources.judgment_files(data, here).values(), 1)]
    _learn(corpus_row, fields.DOCUMENT_ALIASES, found)
    for path, aliases in parts:
        if path is not None and records.ending(path) not in (".txt", ".qrels", ".trec", ""):
            _learn(_first(path), aliases, found)
    if training is not None:
        layout(_first(training))
    data = data.model_copy(update={"columns": Columns(**(found | dict(columns or {})))})
    fields.document(corpus_row, data.columns)
    return data


def _first(path: Path) -> records.Row:
    row = next(iter(records.read(path)), None)
    if row is None:
        raise DataError("the file is empty", where=str(path), next_step="name a file with data")
    return row


def _learn(row: records.Row, aliases: Mapping[str, tuple[str, ...]], found: dict[str, Any]) -> None:
    """Add the columns that differ from the defaults and that the readers' own aliases would not settle alike in all files."""
    defaults = Columns()
    for name in aliases:
        column = fields.column_of(name, defaults, aliases, row)
        if column is not None and column != getattr(defaults, name) and name in ("query_id", "doc_id", "score", "title"):
            found[name] = column
    if "split" in row.values and "split" not in found:
        found["split"] = "split"


def inspect(data: Data, root: Path, model_name: str | None = None) -> Inspection:
    """Layout, files, counts, splits, columns, lengths in words and metadata of the data that settings name.

    The whole data is read once.  Raises DataError as the loaders do.
    """
    loaded = load.load(data, root)
    files = {"corpus": sources.corpus_file(data, root), **sources.judgment_files(data, root)}
    if queries := sources.queries_file(data, root):
        files["queries"] = queries
    sample = [loaded.corpus[i] for i in range(0, len(loaded.corpus), max(1, len(loaded.corpus) // _LOOK))]
    asked = list(islice(loaded.queries.values(), _LOOK))
    judged = {query_id for graded in loaded.judgments.values() for query_id in graded}
    overlap = sum(query_id in loaded.corpus for query_id in judged)
    facts: dict[str, Any] = {
        "layout": "BEIR folder" if data.folder else "click log" if data.clicks and not data.judgments else "single files",
        "files": {name: str(path) for name, path in files.items()},
        "columns": {name: list(_first(path).values) for name, path in files.items() if name in ("corpus", "queries")},
        "documents": len(loaded.corpus),
        "queries": len(loaded.queries),
        "splits": {name: len(graded) for name, graded in loaded.judgments.items()},
        "judgments": sum(len(docs) for graded in loaded.judgments.values() for docs in graded.values()),
        "document_words": _lengths([one.content for one in sample]),
        "query_words": _lengths([one.text for one in asked]),
        "metadata": _common([one.metadata for one in sample]),
        "tags": sorted({tag for one in asked for tag in one.tags}),
        "filters": sum(one.filter is not None for one in asked),
        "item_to_item": bool(judged) and overlap >= 0.9 * len(judged),
        "model": str(sources.model_source(model_name, root)) if model_name else None,
    }
    return Inspection(facts, tuple(_sentences(facts, asked)))


def _sentences(facts: Mapping[str, Any], asked: Sequence[Query]) -> list[str]:
    splits = ", ".join(f"{name} {n:,}" for name, n in facts["splits"].items())
    documents, queries = facts["document_words"], facts["query_words"]
    lines = [
        f"{facts['layout']}: {facts['documents']:,} documents, {facts['queries']:,} queries, {facts['judgments']:,} judgments",
        "no split in the data: check makes train, dev and test" if set(facts["splits"]) == {"all"} else f"judged queries: {splits}",
        f"words a document: median {documents['median']:g}, 95% up to {documents['p95']:g}",
        f"words a query: median {queries['median']:g}, 95% up to {queries['p95']:g}",
    ]
    if facts["metadata"]:
        lines.append(f"metadata: {', '.join(facts['metadata'])}")
    if facts["tags"]:
        lines.append(f"tags (slices): {', '.join(facts['tags'][:10])}")
    if facts["filters"]:
        lines.append(f"{facts['filters']} of the first {len(asked)} queries declare a filter")
    if facts["item_to_item"]:
        lines.append("query ids are document ids: item to item")
    return lines


def _lengths(texts: Sequence[str]) -> dict[str, float]:
    words = [len(text.split()) for text in texts] or [0]
    return {"median": float(median(words)), "p95": float(quantiles(words, n=20)[-1]) if len(words) > 1 else float(words[0])}


def _common(metadata: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that at least one document in a hundred has, most frequent first."""
    seen = Counter(name for one in metadata for name, value in one.items() if value not in (None, "", []))
    return [name for name, n in seen.most_common() if n * 100 >= len(metadata)]
