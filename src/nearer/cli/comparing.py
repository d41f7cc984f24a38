"""What comparisons on the command line rest on: judged queries, settings, slices and texts.

Imported only when a command runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearer import config
from nearer.cli.shared import Options, open_workspace
from nearer.data.clusters import ClusterRules, QueryClusters, query_clusters
from nearer.data.fields import read_queries
from nearer.data.trec import read_qrels
from nearer.decision.contrast import Contrast, Side, Terms, contrast
from nearer.decision.sides import Source
from nearer.measure.context import is_context
from nearer.measure.slices import SliceEvidence, automatic_slices
from nearer.search.slices import slices_of
from nearer.types import Judgments, Query, Split


@dataclass(frozen=True, slots=True)
class Bench:
    """By what both sides are judged; without a split only files of scores can be compared."""

    split: Split | None
    measures: tuple[str, ...]
    item_to_item: bool
    terms: Terms
    seed: int

    @classmethod
    def of_project(cls, options: Options, run: str | None) -> Bench:
        """The dev queries of a run (None: the one that the options name), with all their slices."""
        workspace = open_workspace(options.config, options.overrides, run or options.run)
        settings = workspace.config
        if not (workspace.run_dir / "check" / "split" / "dev").is_dir():
            return cls._of(settings, None)
        project = workspace.project_for("evaluate")
        dev = project.split("dev")
        trained = project.split("train").judgments
        slices = slices_of(dev, project.corpus, settings.data.min_grade, trained)
        return cls._of(settings, dev, slices, project.item_to_item)

    @classmethod
    def of_files(cls, options: Options, qrels: Path, queries: Path | None) -> Bench:
        """Judgments from a file, and the queries from another where there is one."""
        judgments = read_qrels(qrels)
        known = {} if queries is None else read_queries(queries)
        split = _judged(judgments, known)
        slices = {}
        if known:
            slices = automatic_slices(split.queries, SliceEvidence(judgments))
        return cls._of(_settings(options), split, slices)

    @classmethod
    def of_scores(cls, options: Options) -> Bench:
        """Nothing but the settings, for files that hold scores."""
        return cls._of(_settings(options), None)

    @classmethod
    def _of(
        cls,
        settings: config.Config,
        split: Split | None,
        slices: Mapping[str, set[str]] | None = None,
        item_to_item: bool = False,
    ) -> Bench:
        primary = settings.evaluate.primary
        texts = {} if split is None else {query.id: query.text for query in split.queries}
        terms = Terms(
            primary=primary,
            alpha=settings.decide.alpha,
            resamples=settings.evaluate.resamples,
            slices=slices or {},
            min_slice=settings.evaluate.min_slice,
            texts=texts,
            clusters=_clusters(settings, split, item_to_item),
        )
        # Stored results are ids: what is measured on texts cannot be measured of them again.
        others = [name for name in settings.evaluate.measures if not is_context(name)]
        measures = tuple(dict.fromkeys([primary, *others]))
        return cls(split, measures, item_to_item, terms, settings.seed)

    def side(self, source: Source) -> Side:
        """The scores of a source.  Raises DataError where nothing judges its results."""
        return source.side(self.split, self.measures, self.item_to_item)

    def contrast(self, sources: Sequence[Source]) -> Contrast:
        """The second source against the first."""
        baseline, candidate = map(self.side, sources)
        rng = np.random.default_rng([self.seed, *b"compare"])
        return contrast(baseline, candidate, self.terms, rng)


def _clusters(settings: config.Config, split: Split | None, item_to_item: bool) -> QueryClusters:
    """The queries that hang together.  Raises ConfigError for a field that no query has."""
    if split is None:
        return QueryClusters()
    return query_clusters(split, ClusterRules.of(settings, item_to_item))


def _judged(judgments: Judgments, known: Mapping[str, Query]) -> Split:
    """The judged queries, with their texts where they are known."""
    queries = tuple(known.get(query_id, Query(query_id, "")) for query_id in judgments)
    return Split("judged", queries, judgments)


def _settings(options: Options) -> config.Config:
    """Those of nearer.yaml where there is one, else the defaults."""
    if options.config.is_file():
        return config.load(options.config, options.overrides or (), options.run)
    return config.defaults(options.overrides or ())


def bench_of(options: Options, candidate: str, files: tuple[Path | None, Path | None]) -> Bench:
    """What a comparison rests on: `files` are judgments and queries; else a run of the project."""
    qrels, queries = files
    if qrels is not None:
        return Bench.of_files(options, qrels, queries)
    if not options.config.is_file():
        return Bench.of_scores(options)
    runs = options.config.resolve().parent / "runs"
    is_run = (runs / candidate).is_dir()
    return Bench.of_project(options, candidate if is_run else None)
