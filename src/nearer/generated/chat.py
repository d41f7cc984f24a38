"""Queries from a language model behind an OpenAI-compatible endpoint, each document paid for once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearer.errors import ConfigError
from nearer.generated.base import Brief, Draft, GeneratorSpec
from nearer.generated.prompts import conversation, drafts_in
from nearer.rag.model import WORDING, LanguageModel, Messages

_OWN = replace(
    WORDING,
    url="generate.url",
    model="generate.model",
    smaller="generate.characters makes requests smaller, rag.parameters is what is sent besides",
)


class ChatGenerator:
    """Asks one question per document; what was answered once is kept and never asked for again."""

    def __init__(self, model: LanguageModel, spec: GeneratorSpec) -> None:
        self._model = model
        self._settings = spec.settings.generate
        self._examples = spec.examples

    @classmethod
    def from_spec(cls, spec: GeneratorSpec) -> ChatGenerator:
        """Raises ConfigError where no endpoint or no model is named."""
        generate, rag = spec.settings.generate, spec.settings.rag
        url = generate.url or rag.url
        model = generate.model or rag.model
        if not url or not model:
            raise ConfigError(
                "there is no model that could write queries",
                where="generate.model" if url else "generate.url",
                next_step="nearer generate --set generate.url=http://localhost:8000/v1 "
                "--set generate.model=MODEL",
            )
        settings = rag.model_copy(update={"url": url, "model": model})
        wording = _OWN if generate.url else replace(_OWN, url=WORDING.url)
        return cls(LanguageModel(settings, model, spec.cache, wording), spec)

    @property
    def name(self) -> str:
        """The model, and where it is."""
        return self._model.name

    def generate(self, briefs: Sequence[Brief]) -> list[list[Draft]]:
        """A reply that holds no queries gives none; it is kept, and was paid for."""
        replies = self._model.ask(self._conversations(briefs), "write queries")
        return [drafts_in(reply, brief) for reply, brief in zip(replies, briefs, strict=True)]

    def estimate(self, briefs: Sequence[Brief]) -> str:
        """What asking for these would send and cost, as a sentence.  Raises ModelError over the cap."""
        return self._model.estimate(self._conversations(briefs)) or "everything is kept: no cost"

    def _conversations(self, briefs: Sequence[Brief]) -> list[Messages]:
        settings = self._settings
        asked = []
        for brief in briefs:
            asked.append(
                conversation(brief, self._examples, settings.instructions, settings.copied_words)
            )
        return asked
