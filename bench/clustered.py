"""How often is an interval of clusters wrong?  `python bench/clustered.py [--seed N]`

Queries of a cluster all change by the same amount, and the true mean is known.  Counted is how
often the lower bound lies above it and the upper one below it (2.5% allowed each), for three sizes
of the cluster that was not seen: the largest observed one, the one that a random query belongs to
(in use), and the mean size.  Prints the Markdown table of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from error_rates import misses

from nearer.measure.bounded import Sample, sample_of
from nearer.measure.significance import DIFFERENCE

LARGEST = 15
COUNTS = (20, 60, 250)

Draw = Callable[[int, np.random.Generator], np.ndarray]

#: sizes of clusters, at most LARGEST
SIZES: Mapping[str, Draw] = {
    "Zipf (1.8)": lambda n, rng: np.minimum(rng.zipf(1.8, n), LARGEST).astype(float),
    "geometric (.4)": lambda n, rng: np.minimum(rng.geometric(0.4, n), LARGEST).astype(float),
    "1, and one in 20 of 15": lambda n, rng: np.where(rng.random(n) < 0.05, 15.0, 1.0),
}
#: what all queries of a cluster change by; the true mean is 0
CHANGES: Mapping[str, Draw] = {
    "2 in 5 change by .4, up or down": lambda n, rng: rng.choice(
        [-0.4, 0.0, 0.4], n, p=[0.2, 0.6, 0.2]
    ),
    "dense, sd .25": lambda n, rng: np.clip(rng.normal(0, 0.25, n), -1, 1),
    "98% gain .02, 2% lose .98": lambda n, rng: np.where(rng.random(n) < 0.98, 0.02, -0.98),
}


class LargestUnseen(Sample):
    """The unseen cluster is as large as the largest observed one."""

    @property
    def unseen_size(self) -> float:
        return float(self.sizes.max())


class MeanUnseen(Sample):
    """The unseen cluster is of the mean size."""

    @property
    def unseen_size(self) -> float:
        return self.n / float(self.counts.sum())


KINDS: Mapping[str, type[Sample]] = {
    "largest": LargestUnseen,
    "in use": Sample,
    "mean": MeanUnseen,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table: what to draw, and how often."""

    sizes: str
    changes: str
    n: int
    replications: int
    seed: int

    def measured(self) -> list[float]:
        """Shares of lower bounds that are too high and upper ones that are too low, for each kind."""
        rng = np.random.default_rng([self.seed, self.n, *f"{self.sizes} {self.changes}".encode()])
        counts = np.zeros((len(KINDS), 2))
        for _ in range(self.replications):
            sizes = SIZES[self.sizes](self.n, rng)
            drawn = sample_of(CHANGES[self.changes](self.n, rng) * sizes, sizes, *DIFFERENCE)
            for row, kind in enumerate(KINDS.values()):
                one = kind(drawn.totals, drawn.sizes, drawn.counts, drawn.least, drawn.most)
                counts[row] += misses(one, 0.0, 0.025)
        return [float(share) for share in (counts / self.replications).ravel()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2611)
    parser.add_argument("--replications", type=int, default=1000)
    options = parser.parse_args()
    work = [
        Cell(sizes, changes, n, options.replications, options.seed)
        for sizes in SIZES
        for changes in CHANGES
        for n in COUNTS
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(Cell.measured, work, chunksize=1))
    print(f"Seed {options.seed}, {options.replications:,} replications per line.\n")
    heads = [f"{kind}: {side}" for kind in KINDS for side in ("low too high", "high too low")]
    print("| sizes | changes | clusters | " + " | ".join(heads) + " |")
    print("|---|---|---:|" + "---:|" * len(heads))
    for cell, shares in zip(work, rows, strict=True):
        shown = " | ".join(f"{100 * share:.1f}" for share in shares)
        print(f"| {cell.sizes} | {cell.changes} | {cell.n} | {shown} |")


if __name__ == "__main__":
    main()
