"""Filling a generation: what it lacks of a corpus is embedded in parts, and loaded into its store.

The parts say which documents are embedded, the store says which are loaded.  Whatever is missing in
either is done, so that the first build, going on after a kill and keeping up with a changed corpus
are the same work, and nothing finished is done twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nearer import progress
from nearer.config import Config
from nearer.data.corpus import Corpus
from nearer.embed.base import Encoder, TextEncoder
from nearer.embed.compress import Compression
from nearer.errors import StoreError
from nearer.files import value_hash
from nearer.live.index.generations import Generations, for_chunks
from nearer.live.index.manifest import Manifest
from nearer.live.index.parts import (
    COLUMNS,
    checksums,
    make_part,
    parts_in,
    read_part,
    read_rows,
    write_part,
)
from nearer.live.stores.base import VectorStore
from nearer.live.stores.storable import require_document
from nearer.search.costs import embedding_cost
from nearer.types import Document

_SAMPLE = 128  # documents measured by an estimate
_RETUNED = 0.1  # share of changed documents from which the approximate index is made anew


@dataclass(frozen=True, slots=True)
class Plan:
    """Documents that become one part."""

    name: str
    documents: tuple[Document, ...]
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What is needed to make parts.  A part depends on its plan alone, whoever makes it."""

    folder: Path
    encoder: Encoder
    cut: Callable[[Document], Sequence[str]]  # document → texts of its chunks

    @classmethod
    def of(cls, generations: Generations, manifest: Manifest, encoder: Encoder) -> Work:
        """The work of a generation, here or on another machine that sees its folder."""
        cut = cutter(manifest.chunker, encoder, generations.root)
        return cls(generations.path(manifest.id) / "parts", encoder, cut)

    def path(self, plan: Plan) -> Path:
        return self.folder / f"{plan.name}.arrow"

    def embed(self, plan: Plan) -> Any:
        """The Arrow table of a plan: one row per chunk, at least one per document."""
        rows = []
        for document, digest in zip(plan.documents, plan.hashes, strict=True):
            metadata = json.dumps(dict(document.metadata), ensure_ascii=False)
            for number, text in enumerate(self.cut(document)):
                chunk_id = f"{document.id}#{number}"
                rows.append((chunk_id, document.id, text, metadata, digest))
        columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
        with progress.listen(progress.SILENT):
            vectors = self.encoder.encode(columns["text"], "document")
        return make_part(self.encoder.fingerprint, columns, vectors)

    def save(self, plan: Plan, table: Any) -> None:
        write_part(self.path(plan), table)


#: Embeds plans, in any order; a table that comes back is saved here, None says that the part is on disk already.
Engine = Callable[[Iterator[Plan], Work], Iterator[tuple[Plan, Any]]]


def local(plans: Iterator[Plan], work: Work) -> Iterator[tuple[Plan, Any]]:
    """The engine of one process; that of a cluster is in ray_engine.py."""
    return ((plan, work.embed(plan)) for plan in plans)


@dataclass(frozen=True, slots=True)
class Filled:
    """What was done to bring a generation up to date.  `loaded`: embedded before, but missing in the store."""

    manifest: Manifest
    embedded: int
    loaded: int
    deleted: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        done = {name: getattr(self, name) for name in ("embedded", "loaded", "deleted")}
        return {
            "id": self.manifest.id,
            "state": self.manifest.state,
            **self.manifest.counts,
            **done,
            "seconds": round(self.seconds, 3),
        }


def build(
    generations: Generations,
    corpus: Corpus,
    encoder: Encoder,
    name: str,
    *,
    today: bool,
    force: bool = False,
    engine: Engine = local,
) -> Filled:
    """The generation that `encoder` makes of the corpus: begun, gone on with, or brought up to date.

    `name` says which model it is, `today` that it is the configured one.  Raises BusyError and StoreError.
    """
    with generations.writing():
        manifest = generations.create(encoder, name, today=today, force=force)
        return fill(
            generations, manifest, corpus, lambda: for_chunks(encoder, manifest.chunker), engine
        )


def fill(
    generations: Generations,
    manifest: Manifest,
    corpus: Corpus,
    load: Callable[[], Encoder],
    engine: Engine = local,
) -> Filled:
    """Make a generation hold exactly the documents of the corpus.  Call it inside `generations.writing()`.

    `load` gives its encoder, and is called only where something must be embedded.
    """
    started = time.monotonic()
    manifest = generations.in_own_place(manifest)
    generations.require_own_place(manifest)
    store, space = generations.store_of(manifest), manifest.space
    folder = generations.path(manifest.id) / "parts"
    store.create(space)
    held = store.hashes(space)
    if manifest.index and not held:  # a lost table lost its approximate index too
        manifest = replace(manifest, index={})
        generations.update(manifest.id, index={})
    survey = Survey(corpus, folder, manifest, held, generations.config.index.part)
    deleted = forget(generations, manifest, survey)
    embedded, embedded_parts = _embed(generations, manifest, survey, load, engine)
    loaded = _load_parts(store, manifest, survey)
    documents, chunks = store.count(space)
    if documents != len(corpus):
        what = f"the store holds {documents} documents of {manifest.id}, the corpus {len(corpus)}"
        raise StoreError(what, where=manifest.store, next_step="run the same command again")
    index = manifest.index
    if not index or embedded + loaded + deleted > _RETUNED * documents:
        index = store.build_index(space)
    kept = {name: value for name, value in manifest.parts.items() if name not in embedded_parts}
    changed = generations.update(
        manifest.id,
        counts={"documents": documents, "chunks": chunks},
        content={"documents": f"{survey.content % 2**64:016x}"},
        index=index,
        owner=manifest.owner,
        namespace=manifest.namespace,
        parts=checksums(folder, manifest.fingerprint, kept),
    )
    return Filled(changed, embedded, loaded, deleted, time.monotonic() - started)


def _embed(
    generations: Generations,
    manifest: Manifest,
    survey: Survey,
    load: Callable[[], Encoder],
    engine: Engine,
) -> tuple[int, set[str]]:
    """Embed and load what is missing; returns how many documents, and the names of their parts.

    One thread saves and loads a part while the next one is embedded.
    """
    store, space = generations.store_of(manifest), manifest.space
    embedded = 0
    names: set[str] = set()
    with (
        progress.task(f"embed for {manifest.id}", survey.size, "documents") as bar,
        ThreadPoolExecutor(1) as behind,
    ):
        plans = survey.plans()
        first = next(plans, None)
        if first is None:
            return 0, names
        price, started = generations.config.decide.cost_per_hour, time.monotonic()
        work = Work.of(generations, manifest, load())

        def finish(plan: Plan, table: Any) -> None:
            if table is not None:
                work.save(plan, table)
            store.write(space, read_rows(work.path(plan), space))
            names.add(work.path(plan).name)

        last: Future[None] | None = None
        for plan, table in engine(chain([first], plans), work):
            if last:
                last.result()
            last = behind.submit(finish, plan, table)
            embedded += len(plan.documents)
            bar.reach(survey.read)
            if price is not None:
                bar.note(f"cost so far {price * (time.monotonic() - started) / 3600:.2f}")
        if last:
            last.result()
    return embedded, names


def _load_parts(store: VectorStore, manifest: Manifest, survey: Survey) -> int:
    """Load documents that are embedded, but missing in the store; returns how many."""
    loaded = 0
    for part, ids in survey.unloaded.items():
        name = survey.names[part]
        rows = read_rows(survey.folder / name, manifest.space, ids, manifest.parts.get(name))
        store.write(manifest.space, rows)
        loaded += len(ids)
    return loaded


def forget(generations: Generations, manifest: Manifest, survey: Survey) -> int:
    """Take out of a generation what the corpus no longer has: first noted in a part, then out of the store."""
    if survey.orphans:
        nothing = np.zeros((0, manifest.fingerprint.dimension), np.float32)
        table = make_part(manifest.fingerprint, dict.fromkeys(COLUMNS, ()), nothing, survey.orphans)
        write_part(
            survey.folder / f"{survey.name(survey.next_round, 0, survey.orphans)}.arrow", table
        )
    if not survey.leftover:
        return 0
    return generations.store_of(manifest).delete(manifest.space, survey.leftover)


class Survey:
    """What a generation lacks of a corpus, by its parts in `folder` and the hashes of what its store holds.

    Kept in memory: a hash and a part number per document; never texts or vectors.  Parts are named
    ROUND-POSITION-KEY: the round orders them, the key is a hash of their documents and the fingerprint.
    """

    def __init__(
        self, corpus: Corpus, folder: Path, manifest: Manifest, held: Mapping[str, str], size: int
    ) -> None:
        self._corpus, self._part, self._held = corpus, size, held
        self._space = manifest.fingerprint.id
        self._hashes = np.zeros(len(corpus), "S16")
        self._parts = np.zeros(len(corpus), np.int32)
        self.size = len(corpus)  # documents
        self.folder, self.names = folder, [path.name for path in parts_in(folder)]
        orphans: set[str] = set()
        for number, name in enumerate(self.names):
            table, gone = read_part(folder / name, manifest.fingerprint)
            doc_ids = [*table["doc_id"].to_pylist(), *gone]
            hashes = [*table["hash"].to_pylist(), *("" for _ in gone)]
            for doc_id, digest in zip(doc_ids, hashes, strict=True):
                if doc_id in corpus:
                    position = corpus.position(doc_id)
                    self._hashes[position], self._parts[position] = digest, number
                elif digest:
                    orphans.add(doc_id)
                else:
                    orphans.discard(doc_id)
        last = int(self.names[-1].split("-")[0]) if self.names else 0
        self.next_round = last + 1
        #: New documents of a generation that was never finished belong to its first round, changed ones to the next.
        self._new_round = 0 if not manifest.content and not last else self.next_round
        self.orphans = sorted(orphans)  # embedded, but no longer in the corpus
        self.leftover = [doc_id for doc_id in held if doc_id not in corpus]  # the same in the store
        self.unloaded: dict[int, list[str]] = {}  # part → documents that the store lacks
        self.read = self.content = 0

    def plans(self) -> Iterator[Plan]:
        """Read the corpus once; gives the parts to embed, and leaves `unloaded` and `content` complete."""
        waiting: dict[int, list[tuple[int, Document, str]]] = {}
        for position, document in enumerate(self._corpus):
            digest = document_hash(document)
            self.read, self.content = position + 1, self.content + int(digest, 16)
            if self._held.get(document.id) == digest:
                continue
            known = self._hashes[position].decode()
            if known == digest:
                self.unloaded.setdefault(int(self._parts[position]), []).append(document.id)
                continue
            require_document(document, "data.corpus")
            number = self.next_round if known else self._new_round
            waiting.setdefault(number, []).append((position, document, digest))
            if len(waiting[number]) == self._part:
                yield self._plan(number, waiting.pop(number))
        for number, rest in sorted(waiting.items()):
            yield self._plan(number, rest)

    def _plan(self, number: int, group: Sequence[tuple[int, Document, str]]) -> Plan:
        positions, documents, hashes = zip(*group, strict=True)
        return Plan(self.name(number, positions[0], hashes), documents, hashes)

    def name(self, number: int, position: int, contents: Sequence[str]) -> str:
        return f"{number:06d}-{position:010d}-{value_hash([self._space, *contents])[:16]}"


def document_hash(document: Document) -> str:
    """16 hexadecimal digits over everything that a generation keeps of a document."""
    values = [document.id, document.title, document.text, dict(document.metadata)]
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def cutter(spec: str, encoder: Encoder, root: Path) -> Callable[[Document], Sequence[str]]:
    """The chunker of a generation: the texts of a document's chunks, at least one."""
    if spec == "document":
        return lambda document: [document.content]
    from nearer.search.chunkers import make_chunker
    from nearer.text import token_spans

    chunker = make_chunker(spec, getattr(encoder, "token_spans", token_spans), root)
    return lambda document: [chunk.text for chunk in chunker.chunk(document)] or [document.content]


def estimate(corpus: Corpus, encoder: TextEncoder, config: Config, root: Path) -> dict[str, Any]:
    """What a build takes, from a measured sample: {documents, chunks, tokens, seconds, hours, bytes, …}, and the price."""
    index = config.index
    cut = cutter(index.chunker, encoder, root)
    step = max(1, len(corpus) // _SAMPLE)
    sample = [corpus[position] for position in range(0, len(corpus), step)][:_SAMPLE]
    texts: list[str] = []
    for document in sample:
        texts.extend(cut(document))
    measured = embedding_cost(encoder, texts, config.decide.cost_per_hour)
    scale = len(corpus) / len(sample)
    in_store = Compression(index.dtype, index.dimension).row_bytes(encoder.dimension)
    in_parts = 4 * encoder.dimension
    size = len(texts) * (in_store + in_parts)
    size += 2 * sum(len(text.encode()) for text in texts)  # in the store and in the parts
    whole: dict[str, Any] = {
        "documents": len(corpus),
        "tokens_per_second": measured["tokens_per_second"],
        "chunks": round(len(texts) * scale),
        "tokens": round(measured["tokens"] * scale),
        "bytes": round(size * scale),
    }
    for name in ("seconds", "hours", "price"):
        if name in measured:
            whole[name] = round(measured[name] * scale, 4)
    return whole
