"""An encoder whose weights are not here: behind an endpoint, or in a class of the user's own.

Of such an encoder only vectors are known.  `OutsideEncoder` adds what the product needs beside them:
an identity made of what is declared and of probe vectors, batches, a cache in which every answered
request stands before the next is sent, checks of what comes back, and what it costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nearer import plugins, progress
from nearer.embed.base import (
    DESCRIPTION,
    SEAM,
    Embedded,
    Embedder,
    EncoderSpec,
    Kind,
    TextEncoder,
    encoding,
)
from nearer.embed.cache import EmbeddingCache
from nearer.embed.fingerprint import PROBES, UNKNOWN_PRECISION, VERSION, Fingerprint, rounded
from nearer.embed.precision import Precision
from nearer.embed.probing import fold
from nearer.embed.spending import NOTHING, Load, Spending
from nearer.errors import ModelError, NearerError
from nearer.files import content_hash, write_json
from nearer.text import token_spans

_BLOCK = 1024  # texts looked up in the cache together


class Rows(Protocol):
    """Where vectors are kept: on disk, or for as long as the process lives."""

    def lacks(self, names: Sequence[str]) -> list[int]:
        """Positions of the names that are not kept, each name once."""

    def through(
        self, texts: Sequence[str], prefix: str, compute: Callable[[list[str]], np.ndarray]
    ) -> np.ndarray:
        """float32 (n_texts, dimension), kept or computed and then kept."""


class _Memory:
    """Vectors of a project without a cache folder: paid for once all the same."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._rows: dict[str, np.ndarray] = {}

    def lacks(self, names: Sequence[str]) -> list[int]:
        missing: dict[str, int] = {}
        for position, name in enumerate(names):
            if name not in self._rows:
                missing.setdefault(name, position)
        return list(missing.values())

    def through(
        self, texts: Sequence[str], prefix: str, compute: Callable[[list[str]], np.ndarray]
    ) -> np.ndarray:
        names = [prefix + text for text in texts]
        missing = self.lacks(names)
        if missing:
            computed = compute([texts[position] for position in missing])
            for position, row in zip(missing, computed, strict=True):
                self._rows[names[position]] = row
        if not names:
            return np.zeros((0, self._dimension), np.float32)
        return np.stack([self._rows[name] for name in names])


class OutsideEncoder(TextEncoder):
    """Encoder over an `Embedder`.

    Texts that nobody asked for before go out in batches of at most `model.batch_texts` texts and
    `model.batch_characters` characters; the vectors of each batch are kept before the next is sent.
    `kept_kinds` are the kinds of text whose vectors are kept and whose costs are capped: a service
    neither keeps nor caps what its users ask.
    Raises ModelError for vectors that cannot be used.
    """

    outside = True

    def __init__(
        self,
        embedder: Embedder,
        spec: EncoderSpec,
        *,
        cache: Path | None = None,
        name: str | None = None,
        kept_kinds: Sequence[Kind] = ("query", "document"),
    ) -> None:
        settings = spec.settings
        self.name = name or spec.text
        self.precision = Precision(UNKNOWN_PRECISION, "the model is computed elsewhere")
        self.similarity = str(getattr(embedder, "similarity", "cosine"))
        self._embedder, self._spec, self._settings = embedder, spec, settings
        self._prompts: dict[Kind, str] = {
            "query": settings.query_prompt or "",
            "document": settings.document_prompt or "",
        }
        self._spending = Spending.of(settings)
        self._kept_kinds = self._capped = tuple(kept_kinds)
        self._dimension = settings.dimension
        self.fingerprint = self._fingerprint()
        self._rows: Rows = _Memory(self.dimension)
        if cache is not None:
            self._rows = EmbeddingCache(cache, self.fingerprint)
            self._spending.keep_in(cache / "embeddings" / self.fingerprint.id)

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`; nothing that is kept is asked for again.

        What is going to be sent is counted and announced first, and refused where it costs more than
        `model.max_cost`; then texts are read a block at a time.  Raises ModelError.
        """
        rows = self._rows if kind in self._kept_kinds else _Memory(self.dimension)
        prefix = self._prefix(kind)
        self._announce(rows, texts, kind)
        vectors = np.empty((len(texts), self.dimension), np.float32)
        with progress.task(encoding(kind), len(texts), "texts") as bar:

            def compute(missing: list[str]) -> np.ndarray:
                return self._paid(missing, kind, kind if kind in self._kept_kinds else "passing")

            for start, block in _blocks(texts):
                stop = start + len(block)
                for batch in self._batches(_missing(rows, block, prefix)):
                    rows.through(batch, prefix, compute)
                    bar.advance(len(batch))
                vectors[start:stop] = rows.through(block, prefix, compute)
                bar.reach(stop)
        return vectors

    def without_cache(self) -> OutsideEncoder:
        """The same encoder, always asking: to time queries, which costs what they cost."""
        twin = copy(self)
        twin._kept_kinds = ()
        return twin

    def token_counts(self, texts: Iterable[str], kind: Kind = "document") -> np.ndarray:
        """Estimated from bytes, and from what the other side counted so far."""
        sizes = [Load.of([self._text(text, kind)]).bytes for text in texts]
        return np.array([max(1, self._spending.tokens_of(size)) for size in sizes], np.int64)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return token_spans(text)

    def seconds_for(self, texts: Sequence[str]) -> float:
        """From the requests so far; only where there were none `texts` are asked for, and kept."""
        tokens = int(self.token_counts(texts).sum())
        seconds = self._spending.seconds_of(tokens)
        if seconds is None:
            started = time.perf_counter()
            self.encode(texts, "document")
            seconds = self._spending.seconds_of(tokens) or time.perf_counter() - started
        return seconds

    def price_of(self, tokens: int) -> float | None:
        return self._spending.price_of(tokens)

    def save(self, folder: Path) -> None:
        write_json(folder / DESCRIPTION, self._spec.description())

    # -- sending -------------------------------------------------------------------------------

    def _announce(self, rows: Rows, texts: Sequence[str], kind: Kind) -> None:
        """Count what will be sent, refuse it where it costs too much, and say it."""
        load, prefix = NOTHING, self._prefix(kind)
        counted: set[int] = set()  # hashes: a corpus is not held in memory to be counted
        for _, block in _blocks(texts):
            new = [text for text in _missing(rows, block, prefix) if hash(text) not in counted]
            counted.update(map(hash, new))
            load += Load.of(new)
        if kind in self._capped:
            self._spending.require(load, self._spending.tokens_of(load.bytes))
        if load.texts < 2:  # a single query is no news
            return
        kept = len(texts) - load.texts
        tokens = self._spending.tokens_of(load.bytes)
        price = self._spending.price_of(tokens)
        cost = "" if price is None else f", about {price:.4g} in all"
        progress.info(
            f"{self.name}: {load.texts:,} texts, {load.characters:,} characters to embed "
            f"(of {len(texts):,}; {kept:,} are kept or repeated), about {tokens:,} tokens{cost}"
        )

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Texts in requests of at most so many texts and characters; a longer text goes alone."""
        batch: list[str] = []
        characters = 0
        for text in texts:
            full = len(batch) == self._settings.batch_texts
            if batch and (full or characters + len(text) > self._settings.batch_characters):
                yield batch
                batch, characters = [], 0
            batch.append(text)
            characters += len(text)
        if batch:
            yield batch

    def _paid(self, texts: list[str], kind: Kind, purpose: str) -> np.ndarray:
        """float32 (n_texts, dimension) of one request, counted and checked."""
        sent = [self._text(text, kind) for text in texts]
        load = Load.of(sent)
        put_aside: AbstractContextManager[None] = nullcontext()
        if kind in self._capped:
            put_aside = self._spending.reserved(load, self._spending.tokens_of(load.bytes))
        with put_aside:
            started = time.perf_counter()
            answer, tokens = self._answer(sent, kind)
            self._spending.note(load, tokens, time.perf_counter() - started, purpose)
        return self._checked(answer, len(texts))

    def _answer(self, sent: list[str], kind: Kind) -> tuple[Any, int | None]:
        """What the embedder gives, and the tokens that it counted."""
        try:
            answer = self._embedder.encode(sent, kind)
        except NearerError:
            raise
        except Exception as error:
            raise ModelError(
                f"encode raised {type(error).__name__}: {error}",
                where=self.name,
                next_step="mend the class",
            ) from error
        if isinstance(answer, Embedded):
            return answer.vectors, answer.tokens
        return answer, None

    def _text(self, text: str, kind: Kind) -> str:
        """What is sent for a text: cut, behind its prompt; endpoints refuse an empty one."""
        cut = text[: self._settings.max_characters]
        return (self._prompts[kind] + cut) or " "

    def _checked(self, answer: Any, count: int) -> np.ndarray:
        """Vectors as they are used.  Raises ModelError for those that cannot be compared."""
        try:
            with np.errstate(over="ignore"):
                vectors = np.asarray(answer).astype(np.float32)
        except (TypeError, ValueError):
            raise self._refused("vectors that are no numbers") from None
        if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
            raise self._refused(f"an array of shape {vectors.shape} for {count} texts")
        if self._dimension not in (None, vectors.shape[1]):
            raise self._refused(f"vectors of {vectors.shape[1]} numbers, not {self._dimension}")
        if not np.isfinite(vectors).all():
            raise self._refused("vectors that are not finite")
        if self.similarity == "dot":
            return vectors
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not norms.all():
            raise self._refused("a vector of zeros, which has no direction")
        normed: np.ndarray = vectors / norms
        return normed

    def _refused(self, problem: str) -> ModelError:
        return ModelError(
            f"it gives {problem}",
            where=self.name,
            next_step="see that model.name and model.dimension are right; what was kept before is safe",
        )

    # -- identity ------------------------------------------------------------------------------

    @property
    def _one_kind(self) -> bool:
        """Whether queries and documents of equal text have equal vectors."""
        told_apart = bool(getattr(self._embedder, "tells_kinds_apart", True))
        return not told_apart and self._prompts["query"] == self._prompts["document"]

    def _prefix(self, kind: Kind) -> str:
        """What the keys of kept vectors begin with."""
        return f"{'text' if self._one_kind else kind}\0{self._prompts[kind]}\0"

    def _fingerprint(self) -> Fingerprint:
        """Identity from what is declared, and the vectors of the probes, asked for anew each time.

        Only so a model that was exchanged behind its name is noticed.
        """
        if self.similarity not in ("cosine", "dot"):
            raise ModelError(
                f"similarity {self.similarity!r} is not supported",
                where=self.name,
                next_step="give cosine or dot as the similarity of the class",
            )
        documents = self._paid(list(PROBES), "document", "probe")
        self._dimension = documents.shape[1]
        queries = documents if self._one_kind else self._paid(list(PROBES), "query", "probe")
        declared = _declared(self._embedder, self._spec)
        cut = self._settings.max_characters
        return Fingerprint(
            weights=declared["identity"],
            tokenizer="",
            modules=declared["place"],
            query_prompt=self._prompts["query"],
            document_prompt=self._prompts["document"],
            max_seq_length=None,
            similarity=self.similarity,
            dimension=self._dimension,
            precision=UNKNOWN_PRECISION,
            chunker=None,
            probes=rounded(documents),
            version=VERSION,
            configuration=f"cut after {cut} characters" if cut else "",
            behaviour=tuple(map(tuple, fold(queries).astype(np.float32).tolist())),
            former=("", declared["place"]),
        )


def load_outside(
    spec: EncoderSpec,
    *,
    cache: Path | None = None,
    name: str | None = None,
    kept_kinds: Sequence[Kind] = ("query", "document"),
) -> OutsideEncoder:
    """The encoder that a spec without weights stands for.  Raises ModelError and ConfigError."""
    implementation = plugins.find(SEAM, spec.kind, spec.root)
    return OutsideEncoder(
        _instance_of(implementation, spec), spec, cache=cache, name=name, kept_kinds=kept_kinds
    )


def _instance_of(implementation: Any, spec: EncoderSpec) -> Embedder:
    """Raises ModelError when it cannot be made or has no `encode`."""
    embedder = plugins.make(implementation, spec, spec.text)
    if not isinstance(embedder, Embedder):
        raise ModelError(
            "this class has no encode(texts, kind)",
            where=spec.text,
            next_step="see nearer.embed.base.Embedder",
        )
    return embedder


def _declared(embedder: Embedder, spec: EncoderSpec) -> dict[str, str]:
    """`identity`: which model; `place`: who computes it.

    Without an identity of its own a class is known by the file of its module.
    """
    place = str(getattr(embedder, "place", spec.kind))
    identity = getattr(embedder, "identity", None)
    if not identity:
        source = getattr(sys.modules.get(type(embedder).__module__), "__file__", None)
        identity = content_hash(Path(source))[:32] if source else spec.text
    return {"identity": str(identity), "place": place}


def _missing(rows: Rows, texts: Sequence[str], prefix: str) -> list[str]:
    return [texts[position] for position in rows.lacks([prefix + text for text in texts])]


def _blocks(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Texts a block at a time, each with the position of its first."""
    block: list[str] = []
    start = 0
    for text in texts:
        block.append(text)
        if len(block) == _BLOCK:
            yield start, block
            start += len(block)
            block = []
    if block:
        yield start, block
