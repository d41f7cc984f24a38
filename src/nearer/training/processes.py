"""One training by several processes that `torchrun` started: who writes, what all must agree on.

The first process (rank 0) writes files, reads clocks and judges; what it finds is told to the
others, so that all take the same decision at the same step.  With one process nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from nearer.errors import ModelError

T = TypeVar("T")

#: How long a process waits for the others: longer than any dev evaluation takes.
_PATIENCE = timedelta(hours=6)


def count() -> int:
    """How many processes work on this training together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0 on."""
    return int(os.environ.get("RANK", "0"))


def first() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


def join() -> None:
    """Meet the other processes, once; without torchrun nothing happens."""
    if count() == 1:
        return
    import torch

    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=_PATIENCE)


def agreed(compute: Callable[[], T]) -> T:
    """What the first process computes, in every process.  All must call it in the same order."""
    if count() == 1:
        return compute()
    import torch

    join()
    values: list[Any] = [compute() if first() else None]
    torch.distributed.broadcast_object_list(values, src=0)
    value: T = values[0]
    return value


def meet() -> None:
    """Wait until every process is here."""
    if count() > 1:
        agreed(lambda: None)


@contextmanager
def together() -> Iterator[None]:
    """Turns the failure of a collective operation into a ModelError: another process has ended."""
    try:
        yield
    except RuntimeError as error:
        text = f"{type(error).__name__} {error}".lower()
        lost = any(word in text for word in ("gloo", "nccl", "connection", "distbackend"))
        if count() == 1 or not lost:
            raise
        raise ModelError(
            "another process of this training has ended",
            where=f"process {rank()} of {count()}",
            next_step="run the same torchrun command: it goes on from the last checkpoint",
        ) from error
