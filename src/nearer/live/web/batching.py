"""Concurrent queries answered together: while a batch is searched, the next one gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from nearer.errors import NearerError
from nearer.live.index.searcher import Served
from nearer.types import Hit, Query, typed_query


class QueueFullError(NearerError):
    """More queries wait than the service holds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A query on its way, and who is to answer it."""

    query: Query
    k: int
    served: Served


class Batcher:
    """Answers asks in one thread, up to `batch` of those that wait at a time; refuses beyond `queue` waiting ones."""

    def __init__(self, queue: int, batch: int) -> None:
        self._limit, self._batch = queue, batch
        self._waiting: list[tuple[Ask, asyncio.Future[list[Hit]]]] = []
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._busy = 0

    @property
    def depth(self) -> int:
        """Queries that wait or are being answered."""
        return len(self._waiting) + self._busy

    async def ask(self, asks: Sequence[Ask], timeout: float) -> list[list[Hit] | BaseException]:
        """Results of each ask, or what its search raised.  Raises QueueFullError at once, TimeoutError later."""
        if len(self._waiting) + len(asks) > self._limit:
            raise QueueFullError("too many queries are waiting", next_step="try again in a second")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in asks]
        self._waiting += zip(asks, futures, strict=True)
        self._more.set()
        try:
            return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), timeout)
        finally:
            for future in futures:  # whoever has gone need not be answered
                future.cancel()

    async def run(self) -> None:
        """The loop: ends when cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            taken = [
                (ask, future) for ask, future in self._waiting[: self._batch] if not future.done()
            ]
            self._waiting = self._waiting[self._batch :]
            if not self._waiting:
                self._more.clear()
            if not taken:
                continue
            self._busy = len(taken)
            try:
                found = await loop.run_in_executor(self._thread, answer, [ask for ask, _ in taken])
            except Exception as error:
                for (
                    _,
                    future,
                ) in taken:  # whoever waits for these is told, the loop is started again
                    if not future.done():
                        future.set_exception(error)
                raise
            finally:
                self._busy = 0
            for (_, future), result in zip(taken, found, strict=True):
                if not future.done():
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)

    async def drain(self, timeout: float) -> None:
        """Wait until nothing waits."""
        ends = asyncio.get_running_loop().time() + timeout
        while self.depth and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def answer(asks: Sequence[Ask]) -> list[list[Hit] | Exception]:
    """Results of each ask, or what went wrong with it: one bad query does not fail its neighbours."""
    groups: dict[int, list[int]] = {}
    for place, ask in enumerate(asks):
        groups.setdefault(id(ask.served), []).append(place)
    found: list[Any] = [None] * len(asks)
    for places in groups.values():
        try:
            together = _search([asks[place] for place in places])
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            together = (
                [error] if len(places) == 1 else [answer([asks[place]])[0] for place in places]
            )
        for place, result in zip(places, together, strict=True):
            found[place] = result
    return found


def _search(asks: Sequence[Ask]) -> list[Any]:
    queries = [
        typed_query(ask.query.text, ask.query.filter, number) for number, ask in enumerate(asks)
    ]
    run = asks[0].served.search(queries, max(ask.k for ask in asks))
    return [list(run.results[query.id][: ask.k]) for query, ask in zip(queries, asks, strict=True)]
