"""Every error that nearer raises on purpose.

    NearerError              something the user can mend; the command line exits with 2
    ├── ConfigError          nearer.yaml or --set: an unknown key, a bad value
    ├── DataError            documents, queries, judgments, click logs, runs
    ├── ModelError           a model folder or name that cannot be loaded or trained
    ├── FingerprintError     vectors of one model met another model
    ├── SearchSystemError    the user's own search system (run file, function, endpoint) failed
    ├── MissingStepError     a stage needs the result of an earlier one
    ├── StoreError           a vector store refused, or a generation is not in the state that a command needs
    ├── HeldOutError         something other than `decide` tried to open the test split
    ├── DiskError            a disk is full, read-only, out of quota or failing, or access is denied
    └── BusyError            another process holds this run

An error says *what* is wrong, *where* (file, line, key) and the *next* command to type.
Anything else that escapes is a bug: the command line exits with 3 and says so.
"""

from __future__ import annotations

#: How to get a dev split, where there is none.
NO_DEV = (
    "judge more queries, or give dev a larger share (data.split.dev) or a file of its own "
    "(data.judgments.dev), then run nearer check"
)


class NearerError(Exception):
    """Base of all errors that the user can mend.

    Parameters: `what` is one sentence; `where` a file, `file:line`, key or address; `next_step` is
    what to do or type.  All three appear in `str(error)`, one clause each.
    """

    def __init__(
        self, what: str, *, where: str | None = None, next_step: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  → {self.next_step}" if self.next_step else text

    def as_dict(self) -> dict[str, str | None]:
        """The error for `--json`: keys `error`, `what`, `where`, `next`."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "next": self.next_step,
        }


class ConfigError(NearerError):
    """The configuration holds an unknown key or a value that cannot be used."""


class DataError(NearerError):
    """A file of documents, queries or judgments cannot be read or does not fit the others."""


class ModelError(NearerError):
    """A model cannot be found, loaded, trained or saved."""


class FingerprintError(NearerError):
    """Vectors made by one model met another model; comparing them would be meaningless."""


class SearchSystemError(NearerError):
    """The user's own search system did not answer, or answered something unusable."""


class MissingStepError(NearerError):
    """A stage was asked for before the stage whose files it reads."""


class StoreError(NearerError):
    """A vector store refused, or a generation is not in the state that a command needs."""


class HeldOutError(NearerError):
    """The test split was asked for outside `decide`."""


class DiskError(NearerError):
    """A disk is full, read-only, out of quota or failing, or access is denied."""


class BusyError(NearerError):
    """Another process is writing this run."""


class UndeclaredReadError(RuntimeError):
    """A stage read what it does not declare in `lifecycle.py`: a bug of the stage, not of its user.

    What is read undeclared would not make the stage run again when it changes.
    """

    def __init__(self, stage: str, name: str) -> None:
        super().__init__(f"stage {stage!r} reads {name}, which lifecycle.py does not declare")
