"""Is a generation what it says, and does it answer as an exact search would?  No cut-over without it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nearer import config, progress
from nearer.data import sources
from nearer.data.corpus import Corpus
from nearer.data.fields import read_queries
from nearer.data.splits import frozen_split
from nearer.embed.compress import decode_rows, encode_rows
from nearer.embed.encoder import Encoder
from nearer.embed.fingerprint import Vectors
from nearer.errors import FingerprintError, ModelError
from nearer.live.index.audit import check_parts, compare_with_parts
from nearer.live.index.build import cutter, document_hash
from nearer.live.index.generations import Generation, Generations, for_chunks
from nearer.live.index.manifest import READY, Manifest
from nearer.live.stores.base import Rows
from nearer.live.stores.storable import same_metadata
from nearer.live.stores.terms import clauses, terms
from nearer.live.stores.vectors import fit, spec
from nearer.types import Document, Hit, rank_hits

K = 10
MIN_RECALL = 0.99
#: Smallest cosine of a stored vector with the same text embedded again; signs flip where a component is close to 0.
MIN_COSINE = {"float32": 0.9995, "float16": 0.9995, "int8": 0.999, "binary": 0.95}
_SAMPLE = 64  # documents embedded again
_QUERIES = 100
_FILTERS = 8
_NEAR = 1e-4  # scores closer than this are the same score


@dataclass
class _Report:
    checks: list[dict[str, Any]] = field(default_factory=list)

    def add(self, check: str, passed: bool, found: str) -> None:
        self.checks.append({"check": check, "passed": bool(passed), "found": found})


def canary_queries(settings: config.Config, root: Any) -> list[str]:
    """Texts of the canary file or, without one, of the dev queries; empty when there are none yet."""
    if settings.index.canaries:
        path = sources.named(root, settings.index.canaries, "index.canaries")
        return [query.text for query in read_queries(path).values()]
    return [query.text for query in frozen_split(root, settings.run, "dev").queries]


def verify(
    generations: Generations,
    generation: str,
    corpus: Corpus,
    canaries: Sequence[str] = (),
    encoder: Encoder | None = None,
    full: bool = False,
) -> Manifest:
    """Check a generation against the corpus and write the report into its manifest; it is `verified` when all passes.

    Checked: documents and their hashes, counts, the checksums of the parts (with `full` also every
    stored vector against its part), the model's probe vectors, a random sample embedded again,
    canary queries against an exact search in memory, recall@10 of the approximate index (below .99
    it is made anew, once), and filters.  Raises BusyError and StoreError.
    """
    with generations.writing(), progress.task(f"verify {generation}", 6, "checks") as bar:
        manifest, report = generations.manifest(generation), _Report()
        rng = np.random.default_rng([generations.config.seed, *generation.encode()])
        sample = [corpus[row] for row in _some_rows(rng, len(corpus), _SAMPLE)]
        filters = _some_filters(sample)
        eligible = _content(generations, manifest, corpus, filters, report)
        _parts(generations, manifest, full, report)
        bar.advance()
        opened = _opened(generations, manifest, encoder, report)
        if opened is not None:
            bar.advance()
            _sample(opened, sample, generations, report)
            bar.advance()
            texts = list(canaries) or [document.title or document.text for document in sample]
            texts = [texts[row] for row in _some_rows(rng, len(texts), _QUERIES)]
            what = "canary queries" if canaries else "queries made of documents"
            _search(opened, opened.queries(texts), what, report)
            bar.advance()
            counted = list(zip(filters, eligible, strict=True))
            _filters(opened, opened.queries(texts[:1]), counted, corpus, report)
            manifest = opened.manifest
        passed = all(check["passed"] for check in report.checks)
        verified = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "passed": passed,
            "checks": report.checks,
        }
        return generations.update(generation, verified=verified, state=_state(manifest, passed))


def _some_rows(rng: np.random.Generator, total: int, most: int) -> list[int]:
    """Some row numbers below `total`, ascending."""
    rows = rng.choice(total, min(most, total), replace=False)
    return [int(row) for row in sorted(rows)]


def _opened(
    generations: Generations, manifest: Manifest, encoder: Encoder | None, report: _Report
) -> Generation | None:
    """The generation with a model that gives its probe vectors; None, and a failed check, without one."""
    try:
        if encoder is not None:
            encoder = for_chunks(encoder, manifest.chunker)
            manifest.fingerprint.require(
                encoder.fingerprint,
                manifest.id,
                f"nearer index drop {manifest.id}, then build again",
            )
        opened = generations.open(manifest.id, encoder)
    except (FingerprintError, ModelError) as error:
        report.add("probes", False, error.what)
        return None
    report.add("probes", True, "the model gives the probe vectors of the fingerprint")
    return opened


def _state(manifest: Manifest, passed: bool) -> str:
    """The state of a generation after its checks."""
    if passed:
        return manifest.state if manifest.state in READY else "verified"
    return "retired" if manifest.state == "retired" else "building"


def _content(
    generations: Generations,
    manifest: Manifest,
    corpus: Corpus,
    filters: list[tuple[str, Any]],
    report: _Report,
) -> list[int]:
    """Every document with its hash, and the counts; returns how many documents each filter leaves."""
    store = generations.store_of(manifest)
    held = store.hashes(manifest.space)
    missing = changed = 0
    accepted = [set(clauses({name: value})[0]) for name, value in filters]
    eligible = [0] * len(filters)
    for document in corpus:
        digest = held.pop(document.id, None)
        missing += digest is None
        changed += digest is not None and digest != document_hash(document)
        own = set(terms(document.metadata)) if accepted else set()
        for row, any_of in enumerate(accepted):
            eligible[row] += bool(own & any_of)
    found = f"{len(corpus)} documents: {missing} missing, {changed} with another content, {len(held)} too many"
    report.add("documents", not (missing or changed or held), found)
    documents, chunks = store.count(manifest.space)
    counts: Any = manifest.counts or {"documents": len(corpus), "chunks": "unknown"}
    found = f"{documents} documents, {chunks} chunks; the manifest says {counts['documents']} and {counts['chunks']}"
    report.add("counts", (documents, chunks) == (counts["documents"], counts["chunks"]), found)
    return eligible


def _parts(generations: Generations, manifest: Manifest, full: bool, report: _Report) -> None:
    """The parts by their checksums and, where asked for, all that is stored by its part."""
    below = generations.manifest(str(manifest.bridge["over"])) if manifest.bridge else manifest
    folder = generations.path(below.id) / "parts"
    finding = check_parts(below, folder)
    report.add("parts", finding.passed, finding.text)
    if full and finding.passed:
        finding = compare_with_parts(generations.store_of(below), below, folder)
        report.add("stored vectors", finding.passed, finding.text)


def _sample(
    opened: Generation, sample: Sequence[Document], generations: Generations, report: _Report
) -> None:
    """Texts and vectors of some documents, cut and embedded again."""
    manifest, space = opened.manifest, opened.manifest.space
    cut = cutter(manifest.chunker, opened.encoder, generations.root)
    texts = {}
    for document in sample:
        for number, text in enumerate(cut(document)):
            texts[f"{document.id}#{number}"] = text
    rows = opened.store.fetch(space, [document.id for document in sample])
    intact = _as_given(rows, texts, sample)
    again = Vectors(opened.encoder.encode(list(texts.values()), "document"), space.fingerprint)
    similarity = space.fingerprint.similarity
    stored = encode_rows(fit(space, again, manifest.id), spec(space), similarity)
    exact = decode_rows(stored, spec(space))
    row_of = {chunk_id: row for row, chunk_id in enumerate(rows.chunk_ids)}
    cosines = []
    for number, chunk_id in enumerate(texts):
        if chunk_id in row_of:
            a, b = exact[number], rows.vectors.array[row_of[chunk_id]]
            if a.any() or b.any():
                length = float(np.linalg.norm(a) * np.linalg.norm(b))
                cosines.append(float(a @ b) / max(length, 1e-12))
    worst = min(cosines, default=1.0)
    least = MIN_COSINE[manifest.dtype]
    found = f"{len(texts)} chunks embedded again: smallest cosine {worst:.5f} (at least {least} is asked for)"
    if not intact:
        found = "other chunks or metadata are stored"
    report.add("sample", intact and worst >= least, found)


def _as_given(rows: Rows, texts: dict[str, str], sample: Sequence[Document]) -> bool:
    """Whether the store gives back the chunks and the metadata that the corpus has."""
    if dict(zip(rows.chunk_ids, rows.texts, strict=True)) != texts:
        return False
    given = {document.id: document.metadata for document in sample}
    return all(
        same_metadata(stored, given[doc_id])
        for doc_id, stored in zip(rows.doc_ids, rows.metadata, strict=True)
    )


def _search(opened: Generation, queries: Vectors, what: str, report: _Report) -> None:
    """The store's exact search against one in memory, and its approximate search against that."""
    space = opened.manifest.space
    truth = exact_search(opened.store.scan(space), fit(space, queries, opened.manifest.id), K)
    exact = opened.search(queries, K, exact=True)
    same = [_same(hits, true) for hits, true in zip(exact, truth, strict=True)]
    report.add(
        "canaries",
        all(same),
        f"{sum(same)} of {len(same)} {what} have the {K} results of an exact search in memory",
    )
    rebuilt = ""
    recall = _recall(opened.search(queries, K), truth)
    if recall < MIN_RECALL:
        opened.store.build_index(space, queries)
        rebuilt = f" after the index was made anew (before: {recall:.4f})"
        recall = _recall(opened.search(queries, K), truth)
    report.add(
        "recall",
        recall >= MIN_RECALL,
        f"recall@{K} of the approximate search {recall:.4f}{rebuilt}",
    )


def exact_search(batches: Iterable[Rows], queries: np.ndarray, k: int) -> list[list[Hit]]:
    """The `k` best documents of each query over batches of whole documents, which are read once."""
    best: list[list[Hit]] = [[] for _ in queries]
    for rows in batches:
        ids = list(dict.fromkeys(rows.doc_ids))
        number = {doc_id: row for row, doc_id in enumerate(ids)}
        rows_of_chunks = [number[doc_id] for doc_id in rows.doc_ids]
        scores = np.full((len(ids), len(queries)), -np.inf, np.float32)
        np.maximum.at(scores, rows_of_chunks, rows.vectors.array @ queries.T)
        for column, hits in enumerate(best):
            least = hits[-1][1] if len(hits) == k else -np.inf
            near = np.flatnonzero(scores[:, column] >= least)
            joined = [(ids[row], float(scores[row, column])) for row in near]
            best[column] = rank_hits([*hits, *joined], k)
    return best


def _same(hits: list[Hit], truth: list[Hit]) -> bool:
    """Equal scores rank by rank, and every document that is clearly above the last."""
    certain = {doc_id for doc_id, score in truth if score > truth[-1][1] + _NEAR}
    alike = all(abs(a - b) <= _NEAR for (_, a), (_, b) in zip(hits, truth, strict=False))
    return len(hits) == len(truth) and alike and certain <= {doc_id for doc_id, _ in hits}


def _recall(found: list[list[Hit]], truth: list[list[Hit]]) -> float:
    """Mean share of the true results that were found, those that tie with the last one counting alike."""
    shares = []
    for hits, true in zip(found, truth, strict=True):
        if true:
            near = sum(score >= true[-1][1] - _NEAR for _, score in hits)
            shares.append(near / len(true))
    return float(np.mean(shares)) if shares else 1.0


def _some_filters(sample: Sequence[Document]) -> list[tuple[str, Any]]:
    """A few fields with values that documents have, different fields first."""
    pairs: dict[tuple[str, Any], None] = {}
    for document in sample:
        for name, value in document.metadata.items():
            if isinstance(value, str | int) and value != "":
                pairs[name, value] = None
    used: Counter[str] = Counter()  # values taken of each field
    numbered = []
    for pair in pairs:
        numbered.append((used[pair[0]], pair))
        used[pair[0]] += 1
    first = heapq.nsmallest(_FILTERS, numbered, key=lambda numbered: numbered[0])
    return [pair for _, pair in first]


def _filters(
    opened: Generation,
    query: Vectors,
    filters: Sequence[tuple[tuple[str, Any], int]],
    corpus: Corpus,
    report: _Report,
) -> None:
    """Filtered searches give eligible documents only, and as many as there are.

    `filters`: a field with its value, and how many documents of the corpus are eligible.
    """
    wrong = []
    for (name, value), count in filters:
        accepted = set(clauses({name: value})[0])
        (hits,) = opened.search(query, K, filter={name: value})
        eligible = 0
        for doc_id, _ in hits:
            document = corpus.get(doc_id)
            if document is not None and accepted & set(terms(document.metadata)):
                eligible += 1
        if eligible != len(hits) or len(hits) != min(K, count):
            wrong.append(
                f"{name}={value}: {eligible} of {len(hits)} results are eligible, {count} documents are"
            )
    found = f"{len(filters)} filters leave eligible documents only, and all of them"
    report.add("filters", not wrong, "; ".join(wrong) or found)
