"""Vectors from an OpenAI-compatible `/embeddings` endpoint.

POST `{"model", "input": [text, …], "dimensions"?}` → `{"data": [{"index", "embedding"}, …],
"usage": {"total_tokens"}}`, as OpenAI, and servers such as vLLM, TEI, Ollama and llama.cpp speak it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from nearer.embed.base import Embedded, EncoderSpec, Kind
from nearer.embed.posting import Endpoint, Wording
from nearer.errors import ConfigError

#: Environment variable with the token; without it requests carry none.
TOKEN = "NEARER_EMBEDDINGS_TOKEN"  # noqa: S105 - the name of the variable
_WORDING = Wording(
    path="/embeddings",
    url="model.url",
    model="model.name",
    token=TOKEN,
    smaller="model.max_characters cuts long texts, "
    "model.batch_texts and model.batch_characters make requests smaller",
)


class EndpointEmbedder:
    """Embedder over one model behind an endpoint (see `nearer.embed.posting` for tries and waits).

    Raises ConfigError for an address or a token that cannot be used, ModelError for whatever comes
    back.
    """

    similarity = "cosine"
    tells_kinds_apart = False

    def __init__(
        self,
        model: str,
        url: str,
        *,
        token: str = "",
        dimension: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._endpoint = Endpoint(url, _WORDING, token=token, timeout=timeout)
        self.identity = model
        self.place = self._endpoint.place
        self.name = f"{model} at {self.place}"
        self._fixed: dict[str, Any] = {"model": model}
        if dimension is not None:
            self._fixed["dimensions"] = dimension

    @classmethod
    def from_spec(cls, spec: EncoderSpec) -> EndpointEmbedder:
        """From `openai:MODEL`, `model.url` and the environment.  Raises ConfigError."""
        settings = spec.settings
        if not spec.argument:
            raise ConfigError(
                f"{spec.text} names no model",
                where="model.name",
                next_step="for example openai:text-embedding-3-small",
            )
        if not settings.url:
            raise ConfigError(
                f"nothing says where {spec.text} is",
                where="model.url",
                next_step="set model.url, for example to https://api.openai.com/v1 or http://localhost:8000/v1",
            )
        return cls(
            spec.argument,
            settings.url,
            token=os.environ.get(TOKEN, ""),
            dimension=settings.dimension,
            timeout=settings.timeout,
        )

    def encode(self, texts: Sequence[str], kind: Kind) -> Embedded:
        """Vectors (n_texts, dimension) in the order of `texts`, from one request."""
        # A lone surrogate is no text: it is sent as a question mark.
        whole = [text.encode("utf-8", "replace").decode() for text in texts]
        body = json.dumps({**self._fixed, "input": whole}).encode()
        answer = self._endpoint.post(body)
        try:
            values = json.loads(answer)
            rows = [(row["index"], row["embedding"]) for row in values["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._refuse(f"answered {self._endpoint.shown(answer)!r}, which holds no embeddings")
        ordered = dict(rows)
        if len(rows) != len(texts) or set(ordered) != set(range(len(texts))):
            self._refuse(f"gave {len(rows)} vectors for {len(texts)} texts, or not one for each")
        vectors = self._array([ordered[row] for row in range(len(texts))])
        return Embedded(vectors, _tokens(values))

    def _array(self, rows: list[Any]) -> np.ndarray:
        """float64 (n, dimension).  Raises ModelError for anything but lists of equally many numbers."""
        for row in rows:
            if not isinstance(row, list) or not all(type(value) in (int, float) for value in row):
                self._refuse("gave a vector that is no list of numbers")
        if len({len(row) for row in rows}) > 1:
            self._refuse("gave vectors of different dimensions in one answer")
        try:
            return np.array(rows, np.float64)
        except OverflowError:
            self._refuse("gave a number that no vector holds")

    def _refuse(self, problem: str) -> NoReturn:
        self._endpoint.refuse(problem)


def _tokens(values: Any) -> int | None:
    """What was counted, where the endpoint says it."""
    usage = values.get("usage")
    if not isinstance(usage, dict):
        return None
    tokens = usage.get("total_tokens", usage.get("prompt_tokens"))
    return tokens if type(tokens) is int and tokens >= 0 else None
