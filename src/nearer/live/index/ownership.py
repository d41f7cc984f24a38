"""Which project owns a table: an identity made once and kept in `generations/.project`.

Projects may share a location (one database, one bucket).  Each keeps its tables in a namespace of
its own, every table carries the identity of its project, and a project refuses tables of another.
A project folder that was copied carries the identity of the original: it may read those tables, and
is refused before it writes them, until its owner says what it is (`nearer index claim`).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nearer.errors import StoreError
from nearer.files import write_json
from nearer.live.index.state import read_state

#: Hidden, so that what stands openly beside ACTIVE and history.jsonl are generations.
IDENTITY_FILE = ".project"
_FORMER = "PROJECT"  # what it was called at first
_ID = re.compile(r"[0-9a-f]{12}")
_REPAIR = "nearer index repair, which takes it from the manifests"


@dataclass(frozen=True, slots=True)
class Identity:
    """The contents of `.project`.  `home` and `inode` say which folder it was made for."""

    id: str
    home: str
    inode: int

    @property
    def namespace(self) -> str:
        """Where the tables of this project stand when the configuration names no place."""
        return f"nearer_{self.id}"

    def fits(self, folder: Path) -> bool:
        """Was it made for this folder?  A folder that moved keeps its inode, a restored one its path."""
        return self.home == str(folder.resolve()) or self.inode == folder.stat().st_ino


def identity_path(folder: Path) -> Path:
    """The file of the identity, which need not exist; one under its former name is renamed."""
    path, former = folder / IDENTITY_FILE, folder / _FORMER
    if path.exists() or not former.is_file():
        return path
    try:
        os.replace(former, path)
    except OSError:  # a folder that may only be read
        return former
    return path


def new_identity(folder: Path) -> Identity:
    return Identity(secrets.token_hex(6), str(folder.resolve()), folder.stat().st_ino)


def known_identity(folder: Path, project: str) -> Identity:
    """A project's identity, bound to this folder."""
    return Identity(project, str(folder.resolve()), folder.stat().st_ino)


def read_identity_file(folder: Path) -> Identity | None:
    """The identity of the project, None before its first generation.  Raises StoreError when damaged."""
    path = identity_path(folder)
    values = read_state(path, {"id": str, "home": str, "inode": int}, _REPAIR)
    if values is None:
        return None
    if not _ID.fullmatch(values["id"]):
        raise StoreError(
            f"no project is named {values['id'][:40]!r}", where=f"{path}:1", next_step=_REPAIR
        )
    return Identity(values["id"], values["home"], values["inode"])


def write_identity(folder: Path, identity: Identity) -> Identity:
    write_json(identity_path(folder), asdict(identity))
    return identity


def is_owner(text: str) -> bool:
    """Can this be the identity of a project?"""
    return _ID.fullmatch(text) is not None


def settle_identity(folder: Path, owners: Callable[[], set[str]], private: bool) -> Identity:
    """The identity of a project that is about to write, made on its first use.

    `owners` gives the projects that its manifests name, `private` says that nobody else keeps tables
    at its location.  Raises StoreError for a copy that would write the tables of the original.
    """
    identity = read_identity_file(folder)
    if identity is None:
        if named := owners():
            what = f"{IDENTITY_FILE} is gone, but manifests name project {min(named)}"
            raise StoreError(what, where=str(identity_path(folder)), next_step=_REPAIR)
        return write_identity(folder, new_identity(folder))
    if identity.fits(folder):
        here = replace(identity, home=str(folder.resolve()), inode=folder.stat().st_ino)
        return identity if here == identity else write_identity(folder, here)
    if private:
        # Its tables were copied with it.  New ones get a name that the original does not have.
        return write_identity(folder, new_identity(folder))
    raise StoreError(
        f"this project was copied or moved from {identity.home}, whose tables it would write",
        where=str(identity_path(folder)),
        next_step="nearer index claim --copied, for tables of its own; "
        "or nearer index claim --moved, where the original is gone",
    )
