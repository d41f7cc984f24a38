"""Who may judge: one random token per reviewer, of which only a hash is kept.

A token is printed once.  It travels in a header, never in a cookie, so no other page can make a
browser send it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from nearer.data.times import read_time
from nearer.errors import ConfigError, DataError
from nearer.files import atomic, locked, read_json

_NAME = re.compile(r"[\w@.-]{1,64}")
_BYTES = 24  # of randomness in a token


@dataclass(frozen=True, slots=True)
class Reviewer:
    """`adjudicates`: whether disagreements of others go to this reviewer too."""

    name: str
    token_hash: str
    expires: datetime
    adjudicates: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "token_hash": self.token_hash,
            "expires": self.expires.isoformat(timespec="seconds"),
            "adjudicates": self.adjudicates,
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Reviewer:
        expires = read_time(values["expires"])
        adjudicates = bool(values.get("adjudicates"))
        return cls(str(values["name"]), str(values["token_hash"]), expires, adjudicates)


@dataclass(frozen=True, slots=True)
class Expired:
    """The token was right until then."""

    reviewer: Reviewer


class Reviewers:
    """The reviewers of a project, in `review/reviewers.json`, which only its user can read."""

    def __init__(self, root: Path) -> None:
        self._path = root / "review" / "reviewers.json"
        self._secret = root / "review" / "secret"

    def all(self) -> list[Reviewer]:
        """Everybody who was invited, in order.  Raises DataError for a damaged file."""
        if not self._path.is_file():
            return []
        values = read_json(self._path)
        try:
            return [Reviewer.of(line) for line in values["reviewers"]]
        except (KeyError, TypeError, ValueError, DataError):
            raise DataError(
                "this file does not list reviewers",
                where=str(self._path),
                next_step="remove it, and invite the reviewers again (nearer review invite NAME)",
            ) from None

    def invite(self, name: str, days: int, *, adjudicates: bool = False) -> tuple[Reviewer, str]:
        """A reviewer with a new token; an earlier token of the same name ends.

        Raises ConfigError for a name that cannot be one.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be the name of a reviewer",
                next_step="use up to 64 letters, digits and . _ - @",
            )
        token = secrets.token_urlsafe(_BYTES)
        expires = datetime.now(UTC) + timedelta(days=days)
        reviewer = Reviewer(name, _hash(token), expires, adjudicates)
        with self._alone():
            others = [other for other in self.all() if other.name != name]
            self._write([*others, reviewer])
        return reviewer, token

    def of(self, token: str) -> Reviewer | Expired | None:
        """Whose token it is; every one is compared, each in constant time."""
        given = _hash(token)
        matching = None
        for reviewer in self.all():
            if hmac.compare_digest(given, reviewer.token_hash):
                matching = reviewer
        if matching is not None and matching.expires <= datetime.now(UTC):
            return Expired(matching)
        return matching

    def secret(self) -> bytes:
        """What ids and orders on the page are made with, so that nobody can compute them."""
        with self._alone():
            if not self._secret.is_file():
                with _private(self._secret) as handle:
                    handle.write(secrets.token_hex(32))
            return self._secret.read_bytes()

    def _alone(self) -> AbstractContextManager[None]:
        """Against a second command that invites at the same time."""
        return locked(self._path.with_suffix(".lock"), what="the list of reviewers")

    def _write(self, reviewers: list[Reviewer]) -> None:
        values = {"reviewers": [reviewer.as_dict() for reviewer in reviewers]}
        with _private(self._path) as handle:
            handle.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def _private(path: Path) -> Iterator[IO[str]]:
    """`files.atomic` for a file that only its user can read."""
    with atomic(path) as handle:
        os.fchmod(handle.fileno(), 0o600)
        yield handle


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
