"""What turns texts into vectors: the seam `encoder`, and what the product asks of one.

An implementation is an `Embedder`: it gives numbers for texts, and nothing more is known of it.
Ours over a SentenceTransformer (`encoder.py`) brings everything itself; around any other stands an
`OutsideEncoder` (`outside.py`), which adds identity, cache, batches, checks and costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from nearer import config, plugins
from nearer.embed.fingerprint import Fingerprint, Vectors
from nearer.embed.precision import Precision
from nearer.errors import ModelError
from nearer.files import read_json

Kind = Literal["query", "document"]

SEAM = "encoder"
#: What a folder or a name without more stands for.
OF_MODELS = "sentence_transformers"
#: Stands in the place of a model folder, where the weights are somewhere else: how to reach them.
DESCRIPTION = "encoder.json"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an embedder gives that also knows what was paid: vectors (n_texts, dimension), tokens."""

    vectors: Any
    tokens: int | None = None


@runtime_checkable
class Embedder(Protocol):
    """The contract of the seam.

    A class is made by its `from_spec(EncoderSpec)` where it has one, else without arguments.  It may
    also have `name`, `similarity` (`cosine`, the default, or `dot`), `identity` (a string that
    tells two models apart; else its module's file does), and `tells_kinds_apart` (False where
    queries and documents of equal text get equal vectors).
    """

    def encode(self, texts: Sequence[str], kind: Kind) -> Any:
        """(n_texts, dimension) finite numbers in the order of `texts`, or `Embedded`.

        Prompts are applied before; vectors are brought to length 1 afterwards where they are
        compared by cosine.  What it raises is reported to the user as it is.
        """


class Encoder(Protocol):
    """Anything that turns texts into vectors of one space.

    Vectors of one encoder share its `fingerprint`; `similarity` is `cosine` (rows have length 1)
    or `dot`.  A class of your own with these members can stand wherever a store or a retriever takes one.
    """

    fingerprint: Fingerprint
    similarity: str

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`."""


class TextEncoder(ABC):
    """An encoder with everything that stages ask of one, wherever its weights are."""

    name: str
    fingerprint: Fingerprint
    similarity: str
    precision: Precision
    outside: bool = (
        False  # computed elsewhere: nothing is asked for twice, and threads may share it
    )

    @property
    def dimension(self) -> int:
        return self.fingerprint.dimension

    @abstractmethod
    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """float32 (n_texts, dimension), in the order of `texts`; cached texts are not encoded again."""

    @abstractmethod
    def without_cache(self) -> TextEncoder:
        """The same encoder, always computing: to time queries."""

    @abstractmethod
    def token_counts(self, texts: Iterable[str], kind: Kind = "document") -> np.ndarray:
        """Tokens per text, not cut, int64 (n_texts,); estimated where the tokenizer is not here."""

    @abstractmethod
    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Characters of each token of a text; of its words where the tokenizer is not here."""

    @abstractmethod
    def seconds_for(self, texts: Sequence[str]) -> float:
        """Seconds that embedding these documents takes, measured with the cache left out."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `open_encoder(path=folder)` needs to give this encoder again."""

    def price_of(self, tokens: int) -> float | None:
        """What embedding so many tokens is charged with; None where nobody charges for it."""
        return None

    def vectors(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Vectors of texts with the identity attached: what stores take."""
        return Vectors(self.encode(texts, kind), self.fingerprint)


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """float32 rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What a class of the seam is made from.

    `text` is the name in full (`openai:MODEL`), `kind` the implementation, `argument` what follows
    it; `settings` are those of the model section, and `root` is the project's folder.
    """

    text: str
    kind: str
    argument: str
    settings: config.Model
    root: Path

    @classmethod
    def of(cls, settings: config.Model, root: Path, path: Path | None = None) -> EncoderSpec:
        """What a model section names, or the folder `path`.

        A folder goes first; one that holds `encoder.json` stands for the encoder described there.
        Raises ModelError for one that is damaged, or stands outside of the project.
        """
        folder = path or folder_of(settings.name, root)
        if folder is not None:
            if not (folder / DESCRIPTION).is_file():
                return cls(str(folder), OF_MODELS, str(folder), settings, root)
            settings = _described(settings, folder, trusted=path is not None, root=root)
        kind, colon, argument = settings.name.partition(":")
        if kind in plugins.names(SEAM):
            return cls(settings.name, kind, argument, settings, root)
        if colon:
            return cls(settings.name, settings.name, "", settings, root)
        return cls(settings.name, OF_MODELS, settings.name, settings, root)

    @property
    def has_weights(self) -> bool:
        """Whether the model is loaded here, so that its weights can be trained."""
        return self.kind == OF_MODELS

    def description(self) -> dict[str, Any]:
        """What `encoder.json` says."""
        return {name: getattr(self.settings, name) for name in _DESCRIBED}


#: Settings that say which encoder it is and how to reach it.  The token is none of them.
_DESCRIBED = ("name", "url", "dimension", "max_characters", "query_prompt", "document_prompt")


def _described(settings: config.Model, folder: Path, *, trusted: bool, root: Path) -> config.Model:
    """The settings with what the description of a folder says.

    A description sends texts and the token somewhere: one that somebody else's folder brings is
    refused.  Raises ModelError for it, and for one that is damaged.
    """
    where = folder / DESCRIPTION
    if not trusted and not folder.resolve().is_relative_to(root.resolve()):
        raise ModelError(
            "this folder, which is not the project's, says where texts would be sent",
            where=str(where),
            next_step="name the encoder itself in model.name, and its address in model.url",
        )
    described = read_json(where)
    if not isinstance(described, dict) or not isinstance(described.get("name"), str):
        raise ModelError(
            "this description of an encoder is damaged",
            where=str(where),
            next_step="build the generation again, or train again",
        )
    return settings.model_copy(update={name: described.get(name) for name in _DESCRIBED})


def encoding(kind: Kind) -> str:
    """What progress calls the encoding of queries or documents."""
    return "encode queries" if kind == "query" else "encode documents"


def folder_of(name: str, root: Path) -> Path | None:
    """The folder that a model's name means, where there is one."""
    for candidate in (Path(name).expanduser(), root / name):
        if candidate.is_dir():
            return candidate
    return None
