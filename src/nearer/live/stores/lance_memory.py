"""LanceDB within bounds: how much of a table is in memory while it is filled and indexed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

#: Read while lancedb is imported, or when each is needed first.  By itself Lance scans 8,192 rows per
#: batch, reads 2 GiB ahead, keeps 2 GiB of words per worker before it writes any, and 128 MiB of
#: vectors: filling a table would take memory in proportion to it.
_DEFAULTS = {
    "LANCEDB_LOG": "off",
    "LANCE_DEFAULT_BATCH_SIZE": "1024",  # rows
    "LANCE_IO_BUFFER_SIZE": str(32 * 2**20),  # bytes
    "LANCE_FTS_NUM_SHARDS": "2",  # workers
    "LANCE_FTS_PARTITION_SIZE": "32",  # MiB per worker
    "LANCE_SHUFFLE_BATCH_BYTES": str(16 * 2**20),
}


def library() -> Any:
    """lancedb, with our defaults where its own variables are not set.

    It reads them once.  Without LANCEDB_LOG its native part writes warnings to stderr past Python's
    logging; what goes wrong is raised anyway.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import lancedb

    return lancedb


def give_back() -> None:
    """Hand free memory back to the system, which the C library and Arrow keep otherwise.

    Between the steps of filling a table; the next one would come on top of it.
    """
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


class Source:
    """Arrow batches that Lance asks for; what goes wrong while they are made is kept as it was raised.

    Through Arrow's interface an error reaches Lance as text alone.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._cause: BaseException | None = None

    def reader(self, schema: Any) -> Any:
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(schema, self._watched())

    def raise_cause(self) -> None:
        """Raise what stopped the batches, if anything did."""
        if self._cause is not None:
            raise self._cause

    def _watched(self) -> Iterator[Any]:
        try:
            yield from self._batches
        except BaseException as error:
            self._cause = error
            raise
