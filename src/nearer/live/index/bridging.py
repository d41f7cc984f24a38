"""A generation without vectors of its own: a new model's queries, carried into the table of the active one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.embed.base import Encoder, Kind, TextEncoder
from nearer.embed.bridge import Bridge, BridgedEncoder, fit, recall_kept
from nearer.errors import StoreError
from nearer.files import write_json
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import Manifest

_HELD = 0.2  # share of the sampled documents that the bridge is measured on and not learned from


@dataclass(frozen=True, slots=True)
class _Learned:
    """What both models gave for the same texts, and which of them are held out of learning."""

    new: np.ndarray  # (n, dimension of the new model)
    old: np.ndarray  # (n, dimension of the old model)
    held: np.ndarray  # (n,) bool


def build_bridge(
    generations: Generations,
    new: TextEncoder,
    name: str,
    corpus: Corpus,
    queries: Sequence[str],
    sample: int,
) -> Manifest:
    """A bridge from a new model to the active generation, learned on `queries` and up to `sample` documents.

    What it keeps is measured on the documents held out of learning: the share of the new model's own
    ten nearest documents that bridged queries find, queries being those held out.  Raises StoreError.
    """
    with generations.writing():
        over = _target(generations)
        old = generations.encoder(over)
        rng = np.random.default_rng([generations.config.seed, *b"bridge"])
        texts = [corpus[row].content for row in _some(rng, len(corpus), sample)]
        asked = [queries[row] for row in _some(rng, len(queries), sample)]
        with progress.task("embed with both models", 4, "passes") as bar:
            documents = _by_both((new, old), texts, "document", bar, rng)
            spoken = _by_both((new, old), asked, "query", bar, rng)
        bridge = _learn((documents, spoken))
        description = {
            "over": over.id,
            "fingerprint": over.fingerprint.as_dict(),
            "kind": bridge.kind,
            "sample": len(texts),
            "queries": len(asked),
            "kept": _kept(bridge, documents, spoken, over.fingerprint.similarity),
        }
        encoder = BridgedEncoder(new, bridge, over.fingerprint, lambda: old)
        fingerprint = replace(encoder.fingerprint, chunker=over.fingerprint.chunker)
        manifest = replace(
            over,
            id=generations.free_id(fingerprint),
            state="building",
            fingerprint=fingerprint,
            model={"name": name, "today": False},
            verified=None,
            decision=None,
            bridge=description,
            parts={},
        )
        return _add(generations, manifest, new, bridge)


def _target(generations: Generations) -> Manifest:
    """The active generation.  Raises StoreError where there is none, or it is a bridge itself."""
    active = generations.pointer().id
    where = str(generations.folder)
    if active is None:
        raise StoreError(
            "no generation is active: there is nothing to bridge to",
            where=where,
            next_step="nearer index build, verify and cutover",
        )
    over = generations.manifest(active)
    if over.bridge:
        raise StoreError(
            f"{active} is a bridge itself",
            where=where,
            next_step=f"nearer index bridge after a cut-over to {over.bridge['over']}, or re-embed",
        )
    return over


def _some(rng: np.random.Generator, total: int, most: int) -> list[int]:
    """Some row numbers below `total`, ascending."""
    return [int(row) for row in sorted(rng.choice(total, min(most, total), replace=False))]


def _by_both(
    encoders: tuple[Encoder, Encoder],
    texts: Sequence[str],
    kind: Kind,
    bar: progress.Task,
    rng: np.random.Generator,
) -> _Learned:
    """What the new model and the old one give for some texts, of which some are held out."""
    vectors = []
    for encoder in encoders:
        encoded = np.zeros((0, encoder.fingerprint.dimension), np.float32)
        if texts:
            encoded = encoder.encode(texts, kind)
        vectors.append(encoded)
        bar.advance()
    return _Learned(vectors[0], vectors[1], rng.random(len(vectors[0])) < _HELD)


def _learn(texts: Sequence[_Learned]) -> Bridge:
    """The bridge that fits what is not held out."""
    new = np.concatenate([some.new[~some.held] for some in texts])
    old = np.concatenate([some.old[~some.held] for some in texts])
    return fit(new, old)


def _add(
    generations: Generations, manifest: Manifest, new: TextEncoder, bridge: Bridge
) -> Manifest:
    """Save a bridge with its model as a generation of its own."""
    fresh = generations.folder / f".new-{manifest.id}"
    write_json(fresh / "manifest.json", manifest.as_dict())
    new.save(fresh / "model")
    bridge.save(fresh / "bridge.safetensors")
    (fresh / "parts").mkdir()
    generations.encoder(manifest, fresh)  # the copy must answer as the original does
    return generations.add(fresh, manifest)


def _kept(
    bridge: Bridge, documents: _Learned, queries: _Learned, similarity: str
) -> dict[str, float]:
    """{recall@10, without}: what bridged queries find of the new model's own results, and what the old model's queries do."""
    if queries.held.sum() < 2:  # no queries: documents ask for documents
        queries = documents
    asked = queries.new[queries.held]
    wanted = asked @ documents.new.T
    found = {"recall@10": bridge(asked, similarity), "without": queries.old[queries.held]}
    return {
        name: round(recall_kept(vectors @ documents.old.T, wanted), 4)
        for name, vectors in found.items()
    }
