"""Sends a model with its card to a hub: huggingface.co, or the one that HF_ENDPOINT names.

Only when somebody asks for it.  The token comes from HF_TOKEN and appears in no message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nearer.errors import ConfigError, ModelError, NearerError
from nearer.files import files_below

TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable, not a token
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was sent, and where it is now."""

    url: str
    commit: str
    files: int
    size: int  # bytes


def push(folder: Path, name: str, *, private: bool) -> Pushed:
    """Send all files of `folder` to the repository `name`, in one commit; it is made if needed.

    Raises ConfigError for a bad name, without a token and where the hub is switched off, ModelError
    when the hub refuses or does not answer.
    """
    token = os.environ.get(TOKEN, "").strip()
    _require_possible(name, token)
    import huggingface_hub

    hub = huggingface_hub.HfApi(token=token, library_name="nearer")
    files = files_below(folder)
    operations = []
    for path in files:
        relative = path.relative_to(folder).as_posix()
        operations.append(
            huggingface_hub.CommitOperationAdd(path_in_repo=relative, path_or_fileobj=path)
        )
    with _told(name, hub.endpoint, token):
        repository = hub.create_repo(name, private=private, exist_ok=True)
        commit = hub.create_commit(
            name, operations, commit_message="Model and card, sent by nearer"
        )
    size = sum(path.stat().st_size for path in files)
    return Pushed(str(repository), str(commit.oid), len(files), size)


def _require_possible(name: str, token: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not OWNER/NAME", where="nearer push", next_step="nearer push me/my-model"
        )
    if not token:
        raise ConfigError(
            "there is no token for the hub",
            where=TOKEN,
            next_step=f"export {TOKEN}=… (one that may write), then run the same command",
        )
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            "the hub is switched off",
            where="HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE",
            next_step="unset them, then run the same command",
        )


@contextmanager
def _told(name: str, endpoint: str, token: str) -> Iterator[None]:
    """Whatever goes wrong between here and the hub becomes a ModelError without the token."""
    try:
        yield
    except NearerError:
        raise
    except Exception as error:  # noqa: BLE001 - the hub's library lets those of its parts through
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        lines = str(error).replace(token, "…").strip().splitlines() or [type(error).__name__]
        if status in (401, 403):
            advice = f"give {TOKEN} a token that may write to {name}"
        elif status is None:
            advice = "look at the network and at HF_ENDPOINT, then run the same command"
        else:
            advice = "mend that, then run the same command"
        raise ModelError(
            f"the hub did not take {name}: {lines[0][:300]}", where=endpoint, next_step=advice
        ) from None
