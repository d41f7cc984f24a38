"""The pipeline that `decide` judged, over a generation: what `nearer serve` and applications search with."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nearer import config
from nearer.data.corpus import Corpus
from nearer.decision.record import Permission
from nearer.embed.fingerprint import PROBES, Fingerprint, Vectors
from nearer.errors import FingerprintError, StoreError
from nearer.files import read_json, value_hash
from nearer.live.index.generations import Generation, Generations
from nearer.live.index.leases import SECONDS, Lease
from nearer.live.index.manifest import Manifest
from nearer.project import Project
from nearer.records import Json
from nearer.search.pipeline import OWN, Pipeline
from nearer.search.rerank import Reranker, load_reranker
from nearer.search.systems import Systems
from nearer.types import Hit, Metadata, Query, Run, typed_query


class QueryVectors:
    """Vectors of the queries asked last, by space and text.  Safe for threads."""

    def __init__(self, size: int) -> None:
        self.hits = 0
        self._size, self._lock = size, threading.Lock()
        self._kept: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self._spaces: list[Fingerprint] = []  # those met so far; a space is known by its place

    def of(self, generation: Generation, texts: Sequence[str]) -> Vectors:
        """float32 (n_texts, dimension) of a generation's model."""
        own, space = generation.manifest.fingerprint, generation.manifest.space.fingerprint
        with self._lock:
            place = self._place(own)
            known = {text: self._kept[place, text] for text in texts if (place, text) in self._kept}
            self.hits += len(known)
            for text in known:
                self._kept.move_to_end((place, text))
        if missing := [text for text in dict.fromkeys(texts) if text not in known]:
            fresh = dict(zip(missing, generation.queries(missing).array, strict=True))
            known |= fresh
            with self._lock:
                self._kept.update({(place, text): vector for text, vector in fresh.items()})
                while len(self._kept) > self._size:
                    self._kept.popitem(last=False)
        return Vectors(np.stack([known[text] for text in texts]), space)

    def _place(self, own: Fingerprint) -> int:
        """The place of a space among those met: that of the first that compares as the same."""
        for place, space in enumerate(self._spaces):
            if space is own or (space.version == own.version and space.same_space(own)):
                return place
        self._spaces.append(own)
        return len(self._spaces) - 1


class _Table:
    """The dense part of a pipeline: a generation's table."""

    name = "dense"

    def __init__(self, served: Served, pipeline: Pipeline, vectors: QueryVectors) -> None:
        self._served, self._pipeline, self._vectors = served, pipeline, vectors

    def search(self, queries: Sequence[Query], k: int) -> Run:
        started, own = time.perf_counter(), self._served.systems.item_to_item
        vectors = self._vectors.of(self._served.generation, [query.text for query in queries])
        groups: dict[str, list[int]] = {}
        for place, query in enumerate(queries):
            groups.setdefault(
                json.dumps(self._filter(query), sort_keys=True, default=str), []
            ).append(place)
        results: dict[str, list[tuple[str, float]]] = {query.id: [] for query in queries}
        for asked, places in groups.items():
            some = Vectors(vectors.array[places], vectors.fingerprint)
            found = self._served.generation.search(some, k + own, filter=json.loads(asked))
            for place, hits in zip(places, found, strict=True):
                query_id = queries[place].id
                results[query_id] = [hit for hit in hits if not (own and hit[0] == query_id)][:k]
        return Run(self.name, results, time.perf_counter() - started)

    def _filter(self, query: Query) -> dict[str, Any] | None:
        """The filter of a query, with those that its text names where the pipeline infers them and documents remain."""
        chosen = dict(query.filter or {})
        if self._pipeline.filters == "inferred":
            fields = self._served.systems.fields
            for named in fields.infer(query.text):
                narrower = {**named, **chosen}
                if fields.eligible(narrower).any():
                    chosen = narrower
        return chosen or None


class _Systems(Systems):
    """The systems of a project, dense search answered by a generation."""

    def __init__(self, *words: Any, served: Served, vectors: QueryVectors, **parts: Any) -> None:
        super().__init__(*words, **parts)
        self.served, self.vectors = served, vectors

    def scorer(self, pipeline: Pipeline, cached: bool = True) -> Any:
        if pipeline.system == "dense":
            return _Table(self.served, pipeline, self.vectors)
        return super().scorer(pipeline, cached)

    def item_vectors(self, doc_ids: Sequence[str]) -> np.ndarray:
        """float32 (n_ids, dimension), encoded anew: the vectors of the whole corpus lie in the store."""
        texts = [self.corpus[self.corpus.position(doc_id)].content for doc_id in doc_ids]
        return self.served.generation.encoder.encode(texts, "document")


class Served:
    """One generation and the pipeline judged with it.  A filter that a query brings is always applied.

    `identity` is a hash of everything that its answers depend on besides the documents.
    """

    def __init__(
        self, generations: Generations, generation: Generation, vectors: QueryVectors
    ) -> None:
        settings, manifest = generations.config, generation.manifest
        self.generation, self.manifest = generation, manifest
        self.pipeline, reranker = judged(generations, manifest)
        # a plain search of vectors needs the table alone
        plain = replace(self.pipeline, filters="ignore") == Pipeline(
            chunker=manifest.chunker
        ) and self.pipeline.filters in (
            "ignore",
            "declared",
        )
        # Made for each opening: the documents may have changed since the last.
        project = Project.at(generations.root, settings)
        self.systems = project.systems_like(
            _Systems,
            Corpus.from_documents(()) if plain else project.corpus,
            served=self,
            vectors=vectors,
            reranker=None if reranker is None else _reranker(reranker, project),
            splits=("dev",),
        )
        made_of = [
            manifest.fingerprint.digest,
            manifest.dtype,
            manifest.dimension,
            self.pipeline.as_dict(),
            reranker,
        ]
        if settings.search.extract and self.pipeline.filters in ("inferred", "boost"):
            made_of.append(settings.search.extract)
        self.identity = value_hash(made_of)[:16]
        # a filter that is sent excludes: the data's queries, which may declare what the application ignores, go through `as_judged`
        sent = (
            replace(self.pipeline, filters="declared")
            if self.pipeline.filters == "ignore"
            else self.pipeline
        )
        self._retriever = self.systems.retriever(sent, cached=False)

    @property
    def id(self) -> str:
        return self.manifest.id

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """At most `k` documents a query; queries of one call have different ids."""
        return self._retriever.search(queries, k)

    def as_judged(self, queries: Sequence[Query]) -> list[Query]:
        """Queries of the data set as `decide` asked them: without their filter where the pipeline ignores it."""
        return [
            replace(one, filter=None) if self.pipeline.filters == "ignore" else one
            for one in queries
        ]


class Searcher:
    """Searches the active generation, or `generation`, as `decide` judged it.  Safe for threads.

    The active one is looked up at every search; the one to roll back to stays open.  With
    `waiting` False a search never waits for a new generation to load: it goes on with the one that
    is open until `refresh` (called from another thread) has opened the new one.
    """

    def __init__(
        self, generations: Generations, generation: str | None = None, *, waiting: bool = True
    ) -> None:
        self.generations, self._fixed, self._waiting = generations, generation, waiting
        self.vectors = QueryVectors(generations.config.serve.cache)
        self._open: dict[str, Served] = {}
        self._current: Served | None = None
        self._opening = threading.RLock()
        # So that gc leaves what is open here alone, also where opening the next one takes long.
        self._lease = Lease(generations.folder, max(SECONDS, 3 * generations.config.serve.refresh))

    @classmethod
    def open(cls, root: str | Path, generation: str | None = None) -> Searcher:
        """Over the generations beside `root/nearer.yaml`: what an application holds that serves by itself."""
        root = Path(root).resolve()
        return cls(Generations(root, config.load(root / "nearer.yaml")), generation)

    @property
    def generation(self) -> str:
        return self.current().id

    def ask(self, text: str, k: int = 10, filter: Metadata | None = None) -> list[Hit]:
        """The `k` best documents of one query."""
        query = typed_query(text, filter)
        return list(self.search([query], k).results[query.id])

    def search(self, queries: Sequence[Query], k: int = 10) -> Run:
        """At most `k` documents a query.  Raises StoreError when nothing is active."""
        while True:
            served = self.current()
            try:
                return served.search(queries, k)
            except StoreError:
                if self._fixed or self.generations.pointer().id == served.id:
                    raise  # otherwise it was dropped meanwhile: ask the one that answers now

    def current(self) -> Served:
        """What answers now."""
        if self._current is not None and not self._waiting:
            return self._current
        return self.refresh()

    def refresh(self) -> Served:
        """Open the generation that is active now, and again when its documents or its decision changed."""
        pointer = self.generations.pointer()
        wanted = self._fixed or pointer.id
        if wanted is None:
            raise StoreError(
                "no generation is active",
                where=str(self.generations.folder),
                next_step="nearer index cutover ID",
            )
        self._current = self.opened(wanted)
        self._lease.hold(self._open)
        return self._current

    def opened(self, generation: str) -> Served:
        """A generation, opened once."""
        with self._opening:
            known = self._open.get(generation)
            if known is None:
                self._lease.hold({*self._open, generation})  # before its manifest is read
            manifest = self.generations.manifest(generation)
            if manifest.state == "dropping":
                raise StoreError(
                    f"{generation} is being removed",
                    where=str(self.generations.folder),
                    next_step="nearer index list",
                )
            if known is None or _contents(known.manifest) != _contents(manifest):
                encoder = known.generation.encoder if known else None
                opened = Served(
                    self.generations, self.generations.open(generation, encoder), self.vectors
                )
                opened.search(
                    [typed_query(PROBES[0])], 10
                )  # so that no user waits for what loads at the first search
                self._open = {**self._kept(), generation: opened}
            return self._open[generation]

    def _kept(self) -> dict[str, Served]:
        pointer, rollout = self.generations.pointer(), None
        with suppress(StoreError):  # what is tried never stops what answers
            rollout = self.generations.rollout()
        wanted = {
            pointer.id,
            pointer.previous,
            self._fixed,
            rollout.generation if rollout else None,
        }
        return {name: one for name, one in self._open.items() if name in wanted}


def _contents(manifest: Manifest) -> tuple[Any, ...]:
    """What an open generation depends on: when it changed, it is opened again."""
    return manifest.content, manifest.decision, manifest.namespace


def judged(generations: Generations, manifest: Manifest) -> tuple[Pipeline, Json | None]:
    """The pipeline that the decision for a generation judged, and its reranker; without one today's system over its model."""
    permission, search = Permission.of(manifest.decision), generations.config.search
    if permission.pipeline is not None:
        pipeline = Pipeline.from_dict(permission.pipeline)
        return replace(pipeline, model=None, compression="float32"), permission.reranker
    if search.system in OWN:
        return Pipeline(chunker=manifest.chunker), None
    weight = None
    if search.system == "convex":
        path = generations.root / "runs" / generations.config.run / "evaluate" / "summary.json"
        weight = read_json(path)["system"].get("dense_weight") if path.is_file() else None
        if weight is None:
            raise StoreError(
                "the convex hybrid has no weight yet",
                where=str(path),
                next_step="nearer evaluate, which tunes it on dev",
            )
    filters: Any = "declared" if search.filters == "apply" else "ignore"
    return Pipeline(search.system, chunker=manifest.chunker, filters=filters, weight=weight), None


def _reranker(chosen: Json, project: Project) -> Reranker:
    """The reranker that was judged.  Raises FingerprintError for another one."""
    settings = project.settings
    made = load_reranker(
        chosen["source"],
        project.root,
        max_length=settings.rerank.max_length,
        device=settings.model.device,
    )
    if chosen["fingerprint"] not in (made.fingerprint, made.former_fingerprint):
        what = f"the reranker at {chosen['source']} is not the one that was judged ({chosen['fingerprint'][:16]})"
        raise FingerprintError(
            what, where="rerank", next_step="restore it, or run nearer decide again and cut over"
        )
    return made
