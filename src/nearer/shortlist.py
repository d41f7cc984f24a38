"""Models that `auto` stands for: a shortlist, and which of its models are here or can be had.

The shortlist is data (`shortlist.json`: source, date, size, languages, maximum length, licence).
Nothing is downloaded and no code is imported to find out what is here: the hub's cache on disk and
the lists of files of installed packages say it.  The network is asked once per process, for at most
`_PATIENCE` seconds, and never under HF_HUB_OFFLINE.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Stands in `fix.models` and `rerank.model` for what this module finds.
AUTO = "auto"
#: What every language counts as.
MULTILINGUAL = "multilingual"
#: Models fetched from a hub that is reachable: the first of the shortlist, no more.
_FETCHED = 3
_LARGEST_FETCHED = 150.0  # millions of parameters
_PATIENCE = 1.0  # seconds
_FILE = Path(__file__).with_suffix(".json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Listed:
    """One model of the shortlist.  `max_tokens` is None where texts are read whole."""

    name: str
    kind: str  # dense, static, sparse or reranker
    languages: tuple[str, ...]
    million_parameters: float
    max_tokens: int | None
    dimension: int | None
    licence: str

    @classmethod
    def of(cls, values: dict[str, Any]) -> Listed:
        return cls(**values | {"languages": tuple(values["languages"])})

    @property
    def multilingual(self) -> bool:
        return MULTILINGUAL in self.languages


@cache
def shortlist() -> tuple[Listed, ...]:
    """Every model of the shortlist, in its order."""
    described = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(Listed.of(values) for values in described["models"])


def encoders() -> tuple[Listed, ...]:
    """Embedding models, learned sparse ones included."""
    return tuple(model for model in shortlist() if model.kind != "reranker")


def rerankers() -> tuple[Listed, ...]:
    return tuple(model for model in shortlist() if model.kind == "reranker")


def listed(name: str) -> Listed | None:
    """The line of a model, where it is on the shortlist."""
    for model in shortlist():
        if model.name == name:
            return model
    return None


def available(models: Sequence[Listed]) -> tuple[Listed, ...]:
    """Those that are in the hub's cache on disk, and, from a hub that is reachable, the first few small ones.

    A model that was fetched is in the cache afterwards: asking again gives the same answer.
    """
    fetched: list[Listed] = []
    if reachable():
        small = [model for model in models if model.million_parameters <= _LARGEST_FETCHED]
        fetched = small[:_FETCHED]
    return tuple(model for model in models if model in fetched or is_cached(model.name))


def is_cached(name: str) -> bool:
    """Whether the weights of a model are in the hub's cache on disk, in a format that is loaded here."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(name, file), str) for file in _WEIGHTS)


@cache
def carried() -> tuple[Path, ...]:
    """Folders of SentenceTransformers that installed packages carry; none of their code is imported."""
    folders: list[Path] = []
    for distribution in distributions():
        record = distribution.read_text("RECORD") or ""
        for line in record.splitlines():
            file = line.partition(",")[0]
            if file.endswith("/modules.json"):
                folders.append(Path(str(distribution.locate_file(file))).parent)
    return tuple(sorted(folder for folder in folders if _has_weights(folder)))


def _has_weights(folder: Path) -> bool:
    return any(folder.rglob("*.safetensors"))


@cache
def reachable() -> bool:
    """Whether the hub answers, asked for at most a second; never asked under HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    port = address.port or {"http": 80}.get(address.scheme, 443)
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout=_PATIENCE).close()
        except OSError:
            return
        answers.append(True)

    # In a thread, as looking a name up has no time limit of its own.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return bool(answers)


def names(models: Iterable[Listed]) -> list[str]:
    return [model.name for model in models]
