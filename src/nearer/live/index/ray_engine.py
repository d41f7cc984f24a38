"""The engine of many machines: Ray Data with a pool of actors that embed.

Each actor loads the generation's model from the generation's own folder, which refuses a model that
behaves differently, and writes its parts there itself: every machine must see that folder.  Ray Data
has no source that a driver can feed as it goes, so each row is a ticket, which an actor exchanges
for the next unembedded part; a ticket whose actor died is exchanged for the same part again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import chain, islice
from pathlib import Path
from typing import Any

from nearer import errors
from nearer.config import Config
from nearer.errors import NearerError, StoreError
from nearer.live.index.build import Engine, Plan, Work
from nearer.live.index.generations import Generations

_ROUND = 4096  # most tickets of one dataset, whose actors load the model once; a ticket takes the driver 2 ms
_LONG = 20.0  # seconds after which an idle actor helps with a plan that another one has
_CPUS = 4  # of an actor, where there are no GPUs


def ray_engine(generations: Generations, workers: int | None = None) -> Engine:
    """The engine for the cluster that this process has joined, else for that of RAY_ADDRESS, else for one started here.

    `workers` actors share its GPUs, or its CPUs where it has none; by default one a GPU, or one for
    four CPUs.  Two plans an actor are in flight.  Raises StoreError without Ray or its cluster; a
    worker's NearerError is raised here as it was there.
    """
    _ray()

    def engine(plans: Iterator[Plan], work: Work) -> Iterator[tuple[Plan, Any]]:
        where = (
            generations.root.resolve(),
            generations.config,
            generations.folder.resolve(),
            work.folder.parent.name,
        )
        with _cluster() as ray:
            size, share = _shares(ray.cluster_resources(), workers)
            tickets = 16 * size
            while first := list(islice(plans, 2 * size)):
                yield from _round(ray, chain(first, plans), tickets, size, share, where)
                tickets = min(4 * tickets, max(_ROUND, tickets))

    return engine


def _round(
    ray: Any,
    plans: Iterator[Plan],
    tickets: int,
    size: int,
    share: Mapping[str, float],
    where: tuple[Any, ...],
) -> Iterator[tuple[Plan, Any]]:
    """Exchange up to so many tickets for plans, and yield those whose parts are on disk."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()
    waiting: dict[str, Plan] = {}
    plans = islice(plans, tickets)

    def offer(number: int) -> None:
        for plan in islice(plans, number):
            waiting[plan.name] = plan
            # In a list it stays a reference: texts go straight from here to the actor.
            desk.offer.remote([ray.put(plan)])

    items = [{"ticket": number} for number in range(tickets)]
    rows = ray.data.from_items(items, override_num_blocks=tickets).map_batches(
        _Worker,
        fn_constructor_args=(desk, *where),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=size),
        **share,
    )
    offer(2 * size)
    done = iter(rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        while waiting:
            for row in next(done).to_pylist():
                if row["refusal"]:
                    raise _refused(json.loads(row["refusal"]))
                desk.finish.remote(row["ticket"])
                if row["part"] in waiting:  # else two actors had it
                    offer(1)
                    yield waiting.pop(row["part"]), None
    except ray.exceptions.RayError as error:
        raise _gave_up(error) from error
    finally:
        done.close()  # stops the pool, where tickets are left or the caller was interrupted
        ray.kill(desk)


def _gave_up(error: Exception) -> StoreError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return StoreError(
        f"the Ray cluster gave up: {reason}",
        where=os.environ.get("RAY_ADDRESS"),
        next_step="mend that, then run the same command again: finished parts stay",
    )


class _Desk:
    """An actor that exchanges tickets for plans, in the order in which they are handed in."""

    def __init__(self) -> None:
        self._free: asyncio.Queue[list[Any]] = asyncio.Queue()
        self._taken: dict[int, asyncio.Future[list[Any]]] = {}
        self._since: dict[int, float] = {}  # when a ticket got its plan

    async def offer(self, plan: list[Any]) -> None:
        self._free.put_nowait(plan)

    async def take(self, ticket: int) -> list[Any]:
        """A plan.  Where none is free for long, one that somebody else has had for long: the actor may have
        died, and its ticket may stand in a queue behind this very one.
        """
        if ticket not in self._taken:
            self._taken[ticket] = asyncio.ensure_future(self._free.get())
        mine = self._taken[ticket]
        while not mine.done():
            await asyncio.wait(
                {mine}, timeout=_LONG
            )  # does not cancel: an actor may die while it waits
            late = min(
                (one for one, since in self._since.items() if time.monotonic() - since > _LONG),
                key=self._since.__getitem__,
                default=None,
            )
            if not mine.done() and late is not None:
                mine.cancel()
                self._taken[ticket] = mine = self._taken[late]
                del self._since[late]  # one helper is enough
        self._since.setdefault(ticket, time.monotonic())
        return mine.result()

    async def finish(self, ticket: int) -> None:
        self._taken.pop(ticket, None)
        self._since.pop(ticket, None)


class _Worker:
    """An actor that embeds plans and writes their parts.

    What it refuses is handed back as a value, because errors lose their type and their advice on
    the way through Ray.
    """

    def __init__(
        self, desk: Any, root: Path, config: Config, folder: Path, generation: str
    ) -> None:
        self._desk, self._generations, self._generation = (
            desk,
            Generations(root, config, folder),
            generation,
        )
        self._work: Work | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        ray = _ray()
        (ticket,) = batch["ticket"]
        plan: Plan = ray.get(ray.get(self._desk.take.remote(int(ticket)))[0])
        refusal = ""
        try:
            self._embed(plan)
        except NearerError as error:
            refusal = json.dumps(error.as_dict())
        return {"ticket": [ticket], "part": [plan.name], "refusal": [refusal]}

    def _embed(self, plan: Plan) -> None:
        if self._work is None:
            manifest = self._generations.manifest(self._generation)
            encoder = self._generations.encoder(manifest)
            encoder.fingerprint = (
                manifest.fingerprint
            )  # it was held to it; parts say so in the same bytes on every machine
            self._work = Work.of(self._generations, manifest, encoder)
        if not self._work.path(plan).exists():  # else the actor that died had finished it
            self._work.save(plan, self._work.embed(plan))


def _refused(told: Mapping[str, Any]) -> NearerError:
    """A worker's error, of the class that it had there."""
    kind = getattr(errors, told["error"], NearerError)
    return kind(told["what"], where=told["where"], next_step=told["next"])


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError:
        raise StoreError(
            "many machines need Ray", where="--engine ray", next_step="pip install 'nearer[ray]'"
        ) from None
    return ray


@contextmanager
def _cluster() -> Iterator[Any]:
    ray, address = _ray(), os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        stack.enter_context(
            redirect_stdout(sys.stderr)
        )  # Ray reports deaths on stdout, which belongs to --json
        if not ray.is_initialized():
            own = (
                {}
                if address
                else {
                    "address": "local",
                    "include_dashboard": False,
                    "_node_ip_address": "127.0.0.1",
                }
            )
            try:
                ray.init(**own, log_to_driver=False, logging_level="ERROR")
            except ConnectionError:
                raise StoreError(
                    "no Ray cluster answers",
                    where=address,
                    next_step="start it, or unset RAY_ADDRESS",
                ) from None
            stack.callback(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield ray


def _shares(resources: Mapping[str, float], workers: int | None) -> tuple[int, dict[str, float]]:
    """How many actors, and what each takes of the cluster."""
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    if gpus:
        size = workers or gpus
        return size, {"num_gpus": min(1.0, gpus / size)}
    size = min(workers or max(1, cpus // _CPUS), cpus)
    return size, {"num_cpus": max(1, cpus // size)}
