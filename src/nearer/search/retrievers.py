"""The retrievers that have a name: what makes the first stage of a pipeline.

Each is a function of the parts that exist, the pipeline, and whether queries may come from the
cache (False: every query is encoded anew, to time it).  A system is added here by one function, and
one line in `nearer.plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.data import sources
from nearer.errors import ConfigError
from nearer.search.base import Retriever
from nearer.search.dense import Dense
from nearer.search.engagement import HistoryDense
from nearer.search.external import Function, Http, RunFile
from nearer.search.fusion import Hybrid
from nearer.search.lexical import Fielded
from nearer.search.pipeline import Pipeline

if TYPE_CHECKING:
    from nearer.search.systems import Systems


def dense(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """Exact search of vectors, of an embedding model, a learned sparse or a late-interaction one."""
    eligible = systems.eligible(pipeline.filters)
    sparse = systems.sparse(pipeline.model)
    if sparse is not None:
        restricted = sparse.restricted(eligible)
        restricted.model = sparse.model if cached else sparse.model.without_cache()
        return restricted
    several = systems.multi_vector(pipeline.model)
    if several is not None:
        return several.restricted(eligible)
    encoder = systems.encoder_of(pipeline.model)
    kind = Dense
    if systems.config.task == "recommend":
        kind = HistoryDense
    retriever = kind(
        encoder if cached else encoder.without_cache(),
        systems.corpus,
        chunked=systems.chunked(pipeline.chunker, pipeline.model),
        vectors=systems.stored_vectors(pipeline),
        eligible=eligible,
    )
    if isinstance(retriever, HistoryDense):
        retriever.half_life = systems.config.recommend.half_life
    return retriever


def bm25(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """Exact words, of the whole content or by field."""
    eligible = systems.eligible(pipeline.filters)
    if pipeline.title_weight is None:
        return systems.bm25.restricted(eligible)
    title, text = systems.bm25_of("title"), systems.bm25_of("text")
    return Fielded(title, text, pipeline.title_weight).restricted(eligible)


def hybrid(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """Words and vectors fused: by ranks (`rrf`), or by scores with a weight (`convex`)."""
    words, vectors = pipeline.parts
    return Hybrid(
        systems.scorer(words),
        systems.scorer(vectors, cached),
        systems.weight_of(pipeline),
        systems.config.search.rrf_k,
        max(systems.depth, pipeline.rerank),
    )


def run_file(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """Results that the user's system wrote into TREC run files."""

    def read() -> RunFile:
        paths = _run_paths(systems.config.search.run, systems.root, systems.splits)
        return RunFile(paths, known=systems.known_ids)

    return _made_once(systems, pipeline, read)


def function(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """A function of the user's module."""

    def load() -> Function:
        name = _required(systems.config.search.function, "search.function")
        return Function(name, systems.root, known=systems.known_ids)

    return _made_once(systems, pipeline, load)


def http(systems: Systems, pipeline: Pipeline, cached: bool) -> Retriever:
    """The endpoint of the user's service."""

    def connect() -> Http:
        search = systems.config.search
        return Http(_required(search.url, "search.url"), search.timeout, known=systems.known_ids)

    return _made_once(systems, pipeline, connect)


def _made_once(systems: Systems, pipeline: Pipeline, make: Any) -> Retriever:
    retriever: Retriever = systems.once(("own", pipeline.system), make)
    return retriever


def _run_paths(
    value: str | Mapping[Any, str] | None, root: Path, splits: Sequence[str]
) -> list[Path]:
    """The run files of the splits that may be read."""
    if value is None:
        raise ConfigError(
            "search.system is run, but search.run names no file",
            next_step="set search.run to a TREC run file",
        )
    if isinstance(value, str):
        names = [value]
    else:
        names = [value[split] for split in splits if split in value]
    return [sources.named(root, name, "search.run") for name in names]


def _required(value: str | None, key: str) -> str:
    if not value:
        raise ConfigError(f"{key} is not set", next_step=f"set {key} in nearer.yaml")
    return value
