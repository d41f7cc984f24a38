"""What the service costs: `python bench/serve.py [--queries 400] [--clients 4]`

On loopback, in one run, in turn (A B C A B C …), medians of the rounds, ratios:

- *bare*: encoder and store in this process, one query at a time, as many threads as clients;
- *service*: the same queries over HTTP, as many clients;
- *shadowed*: the same while a second generation shadows every query.

Every client waits for its answer and then thinks for a while, so that the load stays below
saturation (`--think` seconds).  No query is asked twice: nothing comes out of the cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from nearer.cli.start import demo_model
from nearer.config import load
from nearer.data.load import load_corpus
from nearer.embed.encoder import load_encoder
from nearer.live.index.build import build
from nearer.live.index.generations import Generations
from nearer.live.index.searcher import Searcher
from nearer.live.index.verify import verify
from nearer.live.web.service import Service, Tokens, server_of


def project(root: Path) -> tuple[Generations, str]:
    """The demo's documents under MiniLM, active, and a second generation that differs by its prompt."""
    data = Path("examples/cwe").resolve()
    values: dict[str, Any] = {
        "data": {"folder": str(data)},
        "model": {"name": str(demo_model()), "precision": "fp32"},
        "serve": {"cache": 0},
    }
    (root / "nearer.yaml").write_text(json.dumps(values))
    generations = Generations(root, load(root / "nearer.yaml"))
    corpus, made = load_corpus(generations.config.data, root), []
    for prompt in (None, "weakness: "):
        settings = generations.config.model.model_copy(update={"query_prompt": prompt})
        made.append(
            build(
                generations,
                corpus,
                load_encoder(settings, root),
                settings.name,
                today=prompt is None,
            ).manifest.id
        )
        verify(generations, made[-1], corpus)
    generations.cutover(made[0])
    return generations, made[1]


def loaded(
    ask: Callable[[str], Any], queries: list[str], clients: int, think: float
) -> dict[str, float]:
    """Queries a second, and p50, p95 and p99 in milliseconds, of `clients` that ask and think."""

    def one(query: str) -> float:
        started = time.perf_counter()
        ask(query)
        took = time.perf_counter() - started
        time.sleep(think)
        return took

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = list(pool.map(one, queries))
    spread = {f"p{q}": 1000 * float(np.percentile(times, q)) for q in (50, 95, 99)}
    return {"queries_per_second": len(queries) / (time.perf_counter() - started), **spread}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--think", type=float, default=0.1)
    given = parser.parse_args()
    texts = [
        json.loads(line)["text"]
        for line in Path("examples/cwe/queries.jsonl").read_text().splitlines()
    ]
    fresh = (f"{text} {number}" for number in itertools.count() for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        generations, candidate = project(Path(folder))
        service = Service(generations, Tokens())
        server = server_of(service, 0)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started or service.problem:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        bare = Searcher(generations).current().generation
        client = httpx.Client(base_url=address, timeout=60)
        sides: dict[str, Callable[[str], Any]] = {
            "bare": lambda text: bare.search(text, 10),
            "service": lambda text: client.post("/search", json={"query": text}).raise_for_status(),
        }
        sides["shadowed"] = sides["service"]
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(given.rounds):
            for name, ask in sides.items():
                if name == "shadowed":
                    generations.start_rollout(candidate, "shadow", 1.0)
                    time.sleep(3)
                measured[name].append(
                    loaded(
                        ask,
                        list(itertools.islice(fresh, given.queries)),
                        given.clients,
                        given.think,
                    )
                )
                if name == "shadowed":
                    generations.stop_rollout()
                    time.sleep(6)
        outcomes = [
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("nearer_shadow_total")
        ]
        server.should_exit = True
        thread.join()
    for name, rounds in measured.items():
        print(
            json.dumps(
                {
                    "side": name,
                    **{
                        key: round(statistics.median(one[key] for one in rounds), 2)
                        for key in rounds[0]
                    },
                }
            )
        )
    for name, base in (("service", "bare"), ("shadowed", "service")):
        ratios = [a["p95"] / b["p95"] for a, b in zip(measured[name], measured[base], strict=True)]
        print(
            json.dumps(
                {
                    "p95 ratio": f"{name} / {base}",
                    "median": round(statistics.median(ratios), 3),
                    "rounds": [round(r, 3) for r in ratios],
                }
            )
        )
    print(json.dumps({"cores": os.cpu_count(), **vars(given), "shadow": outcomes}))


if __name__ == "__main__":
    main()
