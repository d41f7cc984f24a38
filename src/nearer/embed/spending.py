"""What was sent to a model outside, what it cost, and what it may cost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nearer import config
from nearer.errors import ConfigError, ModelError

#: Tokens per byte of UTF-8 until enough was counted: on the high side for English (1/4 to 1/5) and
#: about right for scripts of three bytes per character.
_TOKENS_PER_BYTE = 1 / 3
_ENOUGH = 10_000  # bytes from which what was counted says more than that

#: Tokens that this process paid for, by model: a cap holds for a command, not for each of its stages.
_sent: dict[str, int] = {}
#: Tokens that requests in flight may cost at most, by model.
_reserved: dict[str, int] = {}
_changed = threading.Condition()


@dataclass(frozen=True, slots=True)
class Load:
    """Texts that are to be sent, counted."""

    texts: int
    characters: int
    bytes: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> Load:
        characters = sum(map(len, texts))
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return cls(len(texts), characters, size)

    def __add__(self, other: Load) -> Load:
        return Load(
            self.texts + other.texts, self.characters + other.characters, self.bytes + other.bytes
        )


NOTHING = Load(0, 0, 0)


@dataclass
class Spending:
    """Counts requests to one model; with `keep_in` they are kept as lines of `requests.jsonl`.

    `price` is that of a million tokens, `most` the most that one process may spend.  `section` of
    nearer.yaml names both, `doing` says in messages what is done with texts.  Raises ConfigError for
    a cap without a price.
    """

    model: str
    price: float | None = None
    most: float | None = None
    section: str = "model"
    doing: str = "embedding"
    _path: Path | None = None
    _waiting: list[str] = field(default_factory=list)
    _bytes: int = 0
    _tokens: int = 0
    _timed: int = 0  # tokens of documents, which go out in full requests
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.most is not None and self.price is None:
            raise ConfigError(
                "a cap on costs needs a price",
                where=f"{self.section}.max_cost",
                next_step=f"set {self.section}.price_per_million_tokens too",
            )

    @classmethod
    def of(cls, settings: config.Model) -> Spending:
        model = f"{settings.url} {settings.name}"
        return cls(model, settings.price_per_million_tokens, settings.max_cost)

    def keep_in(self, folder: Path) -> None:
        """Read what was counted before, and write what is counted from now on into `folder`."""
        self._path = folder / "requests.jsonl"
        if self._path.is_file():
            self._read(self._path)
        for line in self._waiting:
            self._append(line)
        self._waiting.clear()

    # -- before --------------------------------------------------------------------------------

    def tokens_of(self, size: int) -> int:
        """Tokens that texts of so many bytes make: by what was counted so far, else on the high side."""
        per_byte = _TOKENS_PER_BYTE
        if self._bytes >= _ENOUGH:
            per_byte = self._tokens / self._bytes
        return round(size * per_byte)

    def price_of(self, tokens: int) -> float | None:
        """What so many tokens cost; None without a price."""
        return None if self.price is None else tokens * self.price / 1e6

    def require(self, load: Load, tokens: int) -> None:
        """Raise ModelError where sending this, for so many tokens, would cost more than is left."""
        if self.most is None or not load.texts:
            return
        if self._fits(tokens):
            return
        cost, spent = self.price_of(tokens) or 0.0, self.price_of(_sent.get(self.model, 0)) or 0.0
        raise ModelError(
            f"{self.doing} {load.texts:,} texts ({load.characters:,} characters) costs about "
            f"{cost:.4g}, and {spent:.4g} is spent: more than the {self.most:.4g} of "
            f"{self.section}.max_cost",
            where=self.model.partition(" ")[2],
            next_step=f"raise {self.section}.max_cost, or send less; what was paid for is kept",
        )

    @contextmanager
    def reserved(self, load: Load, tokens: int) -> Iterator[None]:
        """Around one request that costs so many tokens at most: they are put aside until it is counted.

        Requests in flight cannot exceed the cap together.  Where one does not fit beside those, it
        waits until they are counted, as they mostly cost less.  Raises ModelError where it does not
        fit alone.
        """
        if self.most is None:
            yield
            return
        with _changed:
            while _reserved.get(self.model, 0) and not self._fits(tokens):
                _changed.wait()
            self.require(load, tokens)
            _reserved[self.model] = _reserved.get(self.model, 0) + tokens
        try:
            yield
        finally:
            with _changed:
                _reserved[self.model] -= tokens
                _changed.notify_all()

    def _fits(self, tokens: int) -> bool:
        """Whether so many tokens more, beside those paid and put aside, stay below the cap."""
        taken = _sent.get(self.model, 0) + _reserved.get(self.model, 0)
        return self.most is None or (self.price_of(taken + tokens) or 0.0) <= self.most

    # -- after ---------------------------------------------------------------------------------

    def note(
        self,
        load: Load,
        tokens: int | None,
        seconds: float,
        purpose: str,
        *,
        paid: int | None = None,
    ) -> None:
        """Count one answered request; `tokens` were sent, as the other side says (None: it does not).

        `paid` is what counts against the cap, where that is not what was sent.  `purpose` is
        `document`, `query`, `probe`, or `passing` for vectors that are kept nowhere: those are
        counted and not written down.
        """
        counted = self.tokens_of(load.bytes) if tokens is None else tokens
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "purpose": purpose,
            "texts": load.texts,
            "characters": load.characters,
            "bytes": load.bytes,
            "tokens": counted,
            "seconds": round(seconds, 4),
        }
        if paid is not None:
            line["paid"] = paid
        with _changed:
            _sent[self.model] = _sent.get(self.model, 0) + (counted if paid is None else paid)
            if purpose != "passing":
                self._add(line)
                self._append(json.dumps(line))

    def seconds_of(self, tokens: int) -> float | None:
        """Seconds that so many tokens of documents take, by the requests so far; None before the first."""
        if not self._timed:
            return None
        return tokens * self._seconds / self._timed

    def _add(self, line: Mapping[str, Any]) -> None:
        size, tokens, seconds = int(line["bytes"]), int(line["tokens"]), float(line["seconds"])
        self._bytes += size
        self._tokens += tokens
        if line["purpose"] == "document":
            self._timed += tokens
            self._seconds += seconds

    def _read(self, path: Path) -> None:
        """Count the whole lines of a file; what a kill left of its last one is cut off from the next."""
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                values = json.loads(line)
                self._add(values)
        if text and not text.endswith("\n"):
            self._append("")

    def _append(self, line: str) -> None:
        if self._path is None:
            self._waiting.append(line)
            return
        with open(self._path, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")
