"""A generation without vectors of its own: a new model's queries, carried into the table of the active one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nearer import progress
from nearer.data.corpus import Corpus
from nearer.embed.bridge import Bridge, BridgedEncoder, fit, recall_kept
from nearer.embed.encoder import Kind, SentenceEncoder
from nearer.errors import StoreError
from nearer.files import disk_errors, write_json
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import Manifest

_HELD = 0.2  # share of the sampled documents that the bridge is measured on and not learned from


def build_bridge(
    generations: Generations,
    new: SentenceEncoder,
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
        active = generations.pointer().id
        if active is None:
            what, step = (
                "no generation is active: there is nothing to bridge to",
                "nearer index build, verify and cutover",
            )
            raise StoreError(what, where=str(generations.folder), next_step=step)
        over = generations.manifest(active)
        if over.bridge:
            what, step = (
                f"{active} is a bridge itself",
                f"nearer index bridge after a cut-over to {over.bridge['over']}, or re-embed",
            )
            raise StoreError(what, where=str(generations.folder), next_step=step)
        old = generations.encoder(over)
        rng = np.random.default_rng([generations.config.seed, *b"bridge"])
        chosen = [
            corpus[int(i)].content
            for i in sorted(rng.choice(len(corpus), min(sample, len(corpus)), replace=False))
        ]
        asked = [
            queries[int(i)]
            for i in sorted(rng.choice(len(queries), min(sample, len(queries)), replace=False))
        ]
        with progress.task("embed with both models", 4, "passes") as bar:
            pairs = []
            kinds: tuple[tuple[list[str], Kind], ...] = ((chosen, "document"), (asked, "query"))
            for texts, what in kinds:
                both = []
                for encoder in (new, old):
                    both.append(
                        encoder.encode(texts, what)
                        if texts
                        else np.zeros((0, encoder.fingerprint.dimension), np.float32)
                    )
                    bar.advance()
                pairs.append(both)
        held = [rng.random(len(both[0])) < _HELD for both in pairs]
        seen = [
            np.concatenate([both[side][~mask] for both, mask in zip(pairs, held, strict=True)])
            for side in (0, 1)
        ]
        bridge = fit(seen[0], seen[1])
        made = {
            "over": active,
            "fingerprint": over.fingerprint.as_dict(),
            "kind": bridge.kind,
            "sample": len(chosen),
            "queries": len(asked),
        }
        made["kept"] = _kept(bridge, pairs, held, over.fingerprint.similarity)
        encoder = BridgedEncoder(new, bridge, over.fingerprint, lambda: old)
        fingerprint = replace(encoder.fingerprint, chunker=over.fingerprint.chunker)
        manifest = replace(
            over, id=generations.free_id(fingerprint), state="building", fingerprint=fingerprint, model={"name": name, "today": False},
            verified=None, decision=None, bridge=made, parts={},
        )  # fmt: skip
        fresh = generations.folder / f".new-{manifest.id}"
        write_json(fresh / "manifest.json", manifest.as_dict())
        with disk_errors(fresh / "model"):
            new.model.save(str(fresh / "model"), create_model_card=False)
        bridge.save(fresh / "bridge.safetensors")
        (fresh / "parts").mkdir()
        generations.encoder(manifest, fresh)  # the copy must answer as the original does
        return generations.add(fresh, manifest)


def _kept(
    bridge: Bridge, pairs: Sequence[Any], held: Sequence[Any], similarity: str
) -> dict[str, float]:
    """{recall@10, without}: what bridged queries find of the new model's own results, and what the old model's queries do."""
    (new_documents, old_documents), (new_queries, old_queries) = pairs
    if held[1].sum() < 2:  # no queries: documents ask for documents
        new_queries, old_queries, held = new_documents, old_documents, [held[0], held[0]]
    queries = new_queries[held[1]]
    wanted = queries @ new_documents.T
    found = {"recall@10": bridge(queries, similarity), "without": old_queries[held[1]]}
    return {
        name: round(recall_kept(vectors @ old_documents.T, wanted), 4)
        for name, vectors in found.items()
    }
