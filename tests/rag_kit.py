"""A stand-in for an OpenAI-compatible `/chat/completions` endpoint: the example's, and one that misbehaves."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from embeddings_kit import Answer

EXAMPLE = Path(__file__).parents[1] / "examples" / "rag"


def example(name: str) -> ModuleType:
    """A module of examples/rag."""
    spec = importlib.util.spec_from_file_location(f"rag_example_{name}", EXAMPLE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STAND_IN = example("stand_in")


@dataclass
class ChatStandIn:
    """The endpoint, as tests see it; `embeddings_kit.serving` serves it.

    `reply` gives the text of an answer, by default the example's; `script` holds what the next
    requests are answered instead.
    """

    reply: Callable[[dict[str, Any]], str] = STAND_IN.reply
    token: str | None = None
    script: list[Answer] = field(default_factory=list)
    before: Callable[[int], None] | None = None  # called with the number of each request
    url: str = ""
    asked: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)  # what was asked in each answered request

    @property
    def questions(self) -> Counter[str]:
        """How often each conversation was answered."""
        return Counter(self.answered)

    def answer(self, body: dict[str, Any], authorization: str) -> Answer:
        self.asked += 1
        self.bodies.append(body)
        if self.before is not None:
            self.before(self.asked)
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, {}, {"error": {"message": f"wrong key: {authorization}"}}
        if self.script:
            return self.script.pop(0)
        self.answered.append(json.dumps(body["messages"]))
        completion: dict[str, Any] = STAND_IN.completion(body)
        completion["choices"][0]["message"]["content"] = self.reply(body)
        return 200, {}, completion
