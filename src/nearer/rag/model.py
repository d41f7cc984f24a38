"""A language model behind an OpenAI-compatible `/chat/completions` endpoint, each question paid for once.

POST `{"model", "messages", …}` → `{"choices": [{"message": {"content"}}], "usage"}`, as OpenAI, and
servers such as vLLM, Ollama and llama.cpp speak it.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer import progress
from nearer.embed.posting import Endpoint, Wording
from nearer.embed.spending import Load, Spending
from nearer.files import value_hash
from nearer.settings.rag import Rag

#: Environment variable with the token; without it requests carry none.
TOKEN = "NEARER_RAG_TOKEN"  # noqa: S105 - the name of the variable
WORDING = Wording(
    path="/chat/completions",
    url="rag.url",
    model="rag.model",
    token=TOKEN,
    smaller="rag.budget makes contexts smaller, rag.parameters is what is sent besides",
)
_MOST_CHARACTERS = 20_000  # of an answer
_ASSUMED_TOKENS = 256  # of an answer, where no parameter bounds it
_AROUND_MESSAGE, _AROUND_REQUEST = 16, 64  # tokens of a chat template, on the high side
#: What reasoning models write before their answer.
_REASONING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)

Messages = Sequence[Mapping[str, str]]


class LanguageModel:
    """Answers to conversations; what was answered once is kept and never asked for again.

    Each answer is on disk before its request counts as done, so that a kill costs the requests in
    flight (`rag.parallel` at most).  Raises ConfigError for an address or a token that cannot be
    used, ModelError for whatever comes back, and for what costs more than `rag.max_cost`.
    """

    def __init__(
        self, settings: Rag, model: str, cache: Path | None, wording: Wording = WORDING
    ) -> None:
        """`wording` names the settings of address and model, where others than rag's are meant."""
        token = os.environ.get(TOKEN, "")
        url = settings.url or ""
        self._endpoint = Endpoint(url, wording, token=token, timeout=settings.timeout)
        self.name = f"{model} at {self._endpoint.place}"
        self._settings = settings
        self._fixed: dict[str, Any] = {"model": model, **settings.parameters}
        self._prices = _Prices.of(settings)
        self._spending = Spending(
            f"{url} {model}", self._prices.base, settings.max_cost, "rag", "asking about"
        )
        folder = None
        if cache is not None:
            identity = value_hash({"where": self._endpoint.where, **self._fixed})[:16]
            folder = cache / "answers" / identity
            folder.mkdir(parents=True, exist_ok=True)
            self._spending.keep_in(folder)
        self._answers = _Answers(folder)

    def ask(self, conversations: Sequence[Messages], doing: str) -> list[str]:
        """The answer to each conversation, in order; `doing` is what the progress bar says."""
        keys = [_key(conversation) for conversation in conversations]
        missing = self._missing(conversations)
        if missing:
            progress.info(self._estimate(list(missing.values()), len(conversations)))
        with progress.task(doing, len(missing), "questions") as bar:
            self._ask_each(missing, bar)
        return [self._answers[key] for key in keys]

    def _ask_each(self, missing: Mapping[str, Messages], bar: progress.Task) -> None:
        with ThreadPoolExecutor(self._settings.parallel) as pool:
            # The listener of the progress lives in a context, which threads do not inherit.
            waiting: list[Future[None]] = []
            for key, conversation in missing.items():
                waiting.append(pool.submit(copy_context().run, self._paid, key, conversation))
            try:
                for future in waiting:
                    future.result()
                    bar.advance()
            except BaseException:
                for future in waiting:
                    future.cancel()
                raise

    def estimate(self, conversations: Sequence[Messages]) -> str:
        """What asking these would send and cost, as a sentence; empty where every answer is kept.

        Raises ModelError where it would cost more than `rag.max_cost`.
        """
        missing = list(self._missing(conversations).values())
        return self._estimate(missing, len(conversations)) if missing else ""

    def _missing(self, conversations: Sequence[Messages]) -> dict[str, Messages]:
        """The different conversations whose answers are not kept, by key."""
        missing: dict[str, Messages] = {}
        for conversation in conversations:
            key = _key(conversation)
            if key not in self._answers:
                missing[key] = conversation
        return missing

    def _estimate(self, missing: Sequence[Messages], total: int) -> str:
        """Count what will be sent, and refuse it where it costs too much."""
        load = Load.of([_text(conversation) for conversation in missing])
        tokens = self._spending.tokens_of(load.bytes)
        paid = self._prices.paid(tokens, self._most_tokens * load.texts)
        self._spending.require(load, paid)
        return (
            f"{self.name}: {load.texts:,} questions, {load.characters:,} characters to send "
            f"(of {total:,}; {total - load.texts:,} are kept or repeated), about {tokens:,} tokens"
            f"{self._cost(paid)}"
        )

    def _cost(self, paid: int) -> str:
        """The price with what it assumes of the answers; empty without a price."""
        price = self._spending.price_of(paid)
        if price is None:
            return ""
        if self._settings.most_answered is None:
            return (
                f", about {price:.4g} if answers have {self._most_tokens} tokens (rag.parameters has "
                "no max_tokens: they may have more)"
            )
        return f", about {price:.4g} at most (answers of {self._most_tokens} tokens, as rag.parameters bounds them)"

    @property
    def _most_tokens(self) -> int:
        """Tokens that an answer has at most, as far as the parameters say."""
        return self._settings.most_answered or _ASSUMED_TOKENS

    def _paid(self, key: str, conversation: Messages) -> None:
        """Ask one conversation, count it, and keep its answer.

        What it may cost at most is put aside before it is sent.  An answer that cannot be used, or
        that nobody counted, counts as that.
        """
        load = Load.of([_text(conversation)])
        most = self._prices.paid(_most_sent(conversation, load), self._most_tokens)
        messages = [dict(message) for message in conversation]
        body = json.dumps({**self._fixed, "messages": messages}).encode()
        with self._spending.reserved(load, most):
            started = time.perf_counter()
            answer = self._endpoint.post(body)
            text, usage = _read(answer)
            sent, answered = _counts(usage)
            paid = most if sent is None else self._prices.paid(sent, answered)
            seconds = time.perf_counter() - started
            self._spending.note(load, sent, seconds, "answer", paid=paid)
        if text is None:
            shown = self._endpoint.shown(answer)
            self._endpoint.refuse(f"answered {shown!r}, which holds no text")
        self._answers.keep(key, text)


def _read(answer: bytes) -> tuple[str | None, Any]:
    """The text of an answer, None where it holds none, and what was counted."""
    text = usage = None
    with suppress(ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        values = json.loads(answer)
        usage = values.get("usage")
        text = values["choices"][0]["message"]["content"]
    return (_cleaned(text) if isinstance(text, str) else None), usage


def _counts(usage: Any) -> tuple[int | None, int]:
    """Tokens sent and answered as the endpoint counted them; (None, 0) where it did not."""
    if not isinstance(usage, Mapping):
        return None, 0
    sent, back = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(sent) is not int or type(back) is not int or min(sent, back) < 0:
        return None, 0
    return sent, back


def _most_sent(conversation: Messages, load: Load) -> int:
    """Tokens that a conversation has at most: one per byte, and what servers put around messages."""
    return load.bytes + _AROUND_MESSAGE * len(conversation) + _AROUND_REQUEST


def _key(conversation: Messages) -> str:
    """What an answer is kept under: the content of the conversation."""
    return value_hash([dict(message) for message in conversation])


def _text(conversation: Messages) -> str:
    return "\n".join(message["content"] for message in conversation)


def _cleaned(text: str) -> str:
    """An answer without its reasoning and without lone surrogates, cut where it is endless."""
    answer = _REASONING.sub("", text).strip()[:_MOST_CHARACTERS]
    return answer.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class _Prices:
    """Prices of tokens sent and answered, as shares of the larger one, `base`."""

    base: float | None
    sent: float = 1.0
    back: float = 1.0

    @classmethod
    def of(cls, settings: Rag) -> _Prices:
        sent = settings.price_per_million_tokens
        back = settings.price_per_million_answered
        if sent is None:
            return cls(None)
        if back is None:
            back = sent
        base = max(sent, back)
        if not base:
            return cls(0.0)
        return cls(base, sent / base, back / base)

    def paid(self, sent: int, answered: int) -> int:
        """Tokens sent and answered, as so many of the dearer kind."""
        return math.ceil(sent * self.sent + answered * self.back)


class _Answers:
    """Kept answers: lines of `answers.jsonl`, in memory where there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "answers.jsonl"
        self._texts: dict[str, str] = {}
        self._lock = threading.Lock()
        if self._path is not None and self._path.is_file():
            self._load(self._path)

    def _load(self, path: Path) -> None:
        """Read the whole lines; what a kill left of the last one is cut off from the next."""
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                values = json.loads(line)
                self._texts[values["key"]] = str(values["text"])
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as handle:
                handle.write("\n")

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def __getitem__(self, key: str) -> str:
        return self._texts[key]

    def keep(self, key: str, text: str) -> None:
        with self._lock:
            self._texts[key] = text
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps({"key": key, "text": text}) + "\n")
