"""Opening a generation for reading: its table, and the model that encodes queries for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from nearer import config
from nearer.embed.base import Encoder, EncoderSpec, TextEncoder
from nearer.embed.bridge import Bridge, BridgedEncoder
from nearer.embed.fingerprint import Vectors
from nearer.embed.opening import open_encoder
from nearer.errors import FingerprintError
from nearer.live.index.manifest import Manifest
from nearer.live.index.on_disk import GenerationsOnDisk
from nearer.live.stores.base import VectorStore
from nearer.types import Hit, Metadata, by_field_name


@dataclass(frozen=True)
class Generation:
    """A generation ready to answer: its table, and the model that encodes queries for it."""

    manifest: Manifest
    store: VectorStore
    encoder: Encoder
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def queries(self, queries: str | Sequence[str] | Vectors) -> Vectors:
        """Query vectors of this generation.  Raises FingerprintError for vectors of another model, or of none."""
        if isinstance(queries, Vectors):
            return self._required(queries)
        texts = [queries] if isinstance(queries, str) else queries
        if isinstance(texts, np.ndarray) or not all(isinstance(text, str) for text in texts):
            own = self.manifest.fingerprint.id
            raise FingerprintError(
                f"these vectors do not say which model made them (this one: {own})",
                where=f"generation {self.manifest.id}",
                next_step="hand over texts, or Vectors, which carry their fingerprint",
            )
        if getattr(self.encoder, "outside", False):
            return self._across(self.encoder.encode(texts, "query"))
        with self._lock:  # tokenizers are not safe to share between threads
            return self._across(self.encoder.encode(texts, "query"))

    def _required(self, queries: Vectors) -> Vectors:
        """Vectors that this generation's model made, across its bridge where it has one."""
        own, given = self.manifest.fingerprint, queries.fingerprint
        if self.manifest.bridge and given == self.manifest.space.fingerprint:
            return queries  # across the bridge already
        if given:  # queries are never cut into chunks
            given = replace(given, chunker=own.chunker)
        own.require(
            given,
            f"generation {self.manifest.id}",
            f"hand over texts, or encode them with its own model: nearer index show {self.manifest.id}",
        )
        return self._across(queries.array)

    def _across(self, array: np.ndarray) -> Vectors:
        """Vectors that say in which space they are now: the table's, which for a bridge is another model's."""
        return Vectors(array, self.manifest.space.fingerprint)

    def search(
        self,
        queries: str | Sequence[str] | Vectors,
        k: int = 10,
        *,
        filter: Metadata | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The `k` best documents of each query."""
        named = by_field_name(filter) if filter else filter
        return self.store.search(
            self.manifest.space, self.queries(queries), k, filter=named, exact=exact
        )


class OpenedGenerations(GenerationsOnDisk):
    """Loads the models of generations from their own folders."""

    def encoder(self, manifest: Manifest, folder: Path | None = None) -> TextEncoder:
        """The model of a generation, loaded from its own folder.  Raises FingerprintError when it is another one by now."""
        own = manifest.fingerprint
        kept = ("query_prompt", "document_prompt", "max_seq_length", "precision")
        settings = self.config.model.model_copy(update={name: getattr(own, name) for name in kept})
        path = (folder or self.path(manifest.id)) / "model"
        encoder = self._opened_encoder(settings, path, str(manifest.model["name"]))
        if manifest.bridge:
            over = str(manifest.bridge["over"])
            encoder = BridgedEncoder(
                for_chunks(encoder, own.chunker),
                Bridge.load(path.parent / "bridge.safetensors"),
                manifest.space.fingerprint,
                lambda: self.encoder(self.manifest(over)),
            )
        encoder = for_chunks(encoder, own.chunker)
        own.require(
            encoder.fingerprint,
            str(path),
            f"restore this folder, or drop {manifest.id} and build again: nearer index build",
        )
        # It was held to the manifest's: what it embeds carries that one, of whatever version.
        encoder.fingerprint = own
        return encoder

    def open(self, generation: str, encoder: Encoder | None = None) -> Generation:
        """A generation ready to answer; `encoder` is its model where that is loaded already."""
        manifest = self.manifest(generation)
        return Generation(manifest, self.store_of(manifest), encoder or self.encoder(manifest))

    def _opened_encoder(self, settings: config.Model, path: Path, name: str) -> TextEncoder:
        """An encoder outside keeps the documents that it was paid for; live queries are kept nowhere."""
        cache = None
        if not EncoderSpec.of(settings, self.root, path).has_weights:
            cache = self.root / "runs" / ".cache"
        return open_encoder(
            settings, self.root, cache=cache, path=path, name=name, kept_kinds=("document",)
        )


AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


def for_chunks(encoder: AnyEncoder, chunker: str | None) -> AnyEncoder:
    """The same encoder; its vectors say which chunker cut the texts."""
    twin = copy(encoder)
    twin.fingerprint = replace(encoder.fingerprint, chunker=chunker)
    return twin
