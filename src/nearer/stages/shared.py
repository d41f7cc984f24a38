"""What several stages read in the same way.  Stages themselves never import each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearer import progress
from nearer.data import items
from nearer.data.corpus import Corpus
from nearer.data.heldout import HeldOut
from nearer.data.load import load_corpus
from nearer.data.splits import read_split
from nearer.errors import NO_DEV, DataError
from nearer.search.pipeline import Pipeline
from nearer.search.rerank import Reranker
from nearer.search.systems import Systems
from nearer.training.examples import Duplicates
from nearer.training.material import TrainingMaterial
from nearer.training.reranker import reranker_of
from nearer.types import Split
from nearer.workspace import StepContext


def corpus_of(context: StepContext) -> Corpus:
    context.uses("corpus", "data")
    return load_corpus(context.config.data, context.root)


def split_of(context: StepContext, name: str) -> Split:
    """A frozen split of `check`; test is refused (see `nearer.data.heldout`)."""
    return read_split(context.earlier(f"check/split/{name}").parent, name)


def dev_of(context: StepContext) -> Split:
    """The dev split, for a stage that measures or chooses on it.  Raises DataError when it is empty."""
    dev = split_of(context, "dev")
    if not dev.queries:
        raise DataError(
            f"the dev split is empty: {context.stage.name} has no queries to measure on",
            where=str(context.run_dir / "check" / "split" / "dev"),
            next_step=NO_DEV,
        )
    return dev


def missing_of(split: Split, corpus: Corpus) -> dict[str, int]:
    """How many relevant documents of a split the corpus lacks, and how many queries that concerns.

    `queries` ask for at least one of them, `queries_without_any` for nothing else: those count 0
    in every measure of every system.
    """
    lost: set[str] = set()
    queries = without_any = 0
    for query in split.queries:
        relevant = split.relevant(query.id)
        absent = [doc_id for doc_id in relevant if doc_id not in corpus]
        lost.update(absent)
        queries += bool(absent)
        without_any += bool(absent) and len(absent) == len(relevant)
    return {"documents": len(lost), "queries": queries, "queries_without_any": without_any}


def without_missing(split: Split, corpus: Corpus) -> Split:
    """The split as if nobody had asked for documents that the corpus lacks."""
    judgments = {
        query.id: {
            doc_id: grade
            for doc_id, grade in split.judgments.get(query.id, {}).items()
            if doc_id in corpus
        }
        for query in split.queries
    }
    kept = Split(split.name, split.queries, judgments)
    answerable = tuple(query for query in split.queries if kept.relevant(query.id))
    return Split(split.name, answerable, judgments)


def systems_of(context: StepContext, corpus: Corpus, **more: Any) -> Systems:
    context.uses("model")
    context.perhaps(items.FINDINGS)
    return Systems(
        context.config,
        context.root,
        corpus,
        cache=context.cache,
        item_to_item=items.decided(context.config.data.item_to_item, context.run_dir),
        **more,
    )


def reranker_over(
    systems: Systems, train: Split, duplicates: Duplicates, held_out: HeldOut
) -> Reranker | None:
    """The reranker that the configuration names, or one made of the training queries that collide with no held-out one."""
    settings = systems.config
    if settings.rerank.model == "train" and not train.queries:
        progress.warn("no reranker: there are no training queries to make one from (rerank.model)")
        return None
    material = TrainingMaterial(
        train, systems.corpus, duplicates, held_out.collides, settings.data.min_grade
    )
    return reranker_of(
        settings,
        systems.root,
        systems.cache,
        material,
        runs=lambda: [systems.run(Pipeline(name), train) for name in ("bm25", "dense")],
    )


def reranker_of_run(context: StepContext, systems: Systems) -> Reranker | None:
    """The same for a run, out of the files of `check`; None when the configuration names none."""
    if context.config.rerank.model is None:
        return None
    context.uses("other models")
    duplicates = Duplicates.read(context.earlier("check/near_duplicates.json"))
    return reranker_over(
        systems,
        split_of(context, "train"),
        duplicates,
        HeldOut.load(context.earlier("check/heldout.npz")),
    )


def random_of(context: StepContext) -> np.random.Generator:
    """A generator of the stage's own, so that stages can be rerun alone with the same result."""
    return np.random.default_rng([context.config.seed, *context.stage.name.encode()])
