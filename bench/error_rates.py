"""How often are intervals, claims and guardrails wrong?  `python bench/error_rates.py [--seed N]`

Draws samples of queries from populations whose true mean is known and counts: how often the
interval covers that mean, how often a gain is claimed where there is none, how often a guardrail
passes where the true loss is exactly the margin.  "BCa" is the bootstrap interval that nearer used
before.  Then whole projects are simulated in which nothing is gained (tests/projects_kit.py), over
MiniLM's vectors of examples/cwe: how often does one ship?  Prints the Markdown tables of
docs/statistics.md; `--only projects` prints those of projects alone.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap
from simulated_projects import make_worlds, print_projects

from nearer.measure.bounded import Sample, p_value, sample_of
from nearer.measure.significance import DIFFERENCE, UNIT, compare, mean_interval, queries_needed

SIZES = (10, 20, 30, 100, 300)
MARGIN = 0.05
MIN_GAIN = 0.01
_DRAWS = 999
_BEFORE = 500  # samples of a cell that the BCa interval is tried on
_WIDTHS = 40  # samples of a cell of which the width is measured
_POWER = 300  # samples that show how often a true gain is found

Population = Callable[[int, np.random.Generator], np.ndarray]
Limits = tuple[float, float]

# -- populations ----------------------------------------------------------------------------------

# nDCG of a query with one relevant document: at rank 1 to 10, each rarer than the one before, or not found
_GAINS = np.append(1.0 / np.log2(np.arange(1, 11) + 1), 0.0)
_RANKS = 0.6 ** np.arange(10) / (0.6 ** np.arange(10)).sum()


def _ndcg(n: int, rng: np.random.Generator, missed: float) -> np.ndarray:
    return rng.choice(_GAINS, n, p=np.append((1 - missed) * _RANKS, missed))


def _ndcg_mean(missed: float) -> float:
    return float((1 - missed) * (_RANKS @ _GAINS[:-1]))


def _two(n: int, rng: np.random.Generator, share: float, value: float, other: float) -> np.ndarray:
    return np.where(rng.random(n) < share, value, other)


def _ndcg_change(n: int, rng: np.random.Generator) -> np.ndarray:
    """Three queries in ten get a new value from the same population."""
    change = _ndcg(n, rng, 0.5) - _ndcg(n, rng, 0.5)
    return np.where(rng.random(n) < 0.3, change, 0.0)


def _ndcg_loss(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(n) < MARGIN / 0.5, -0.5, _ndcg_change(n, rng))


def _sparse(n: int, rng: np.random.Generator) -> np.ndarray:
    size = rng.uniform(0.1, 1.0, n) * rng.choice([-1.0, 1.0], n)
    return np.where(rng.random(n) < 0.1, size, 0.0)


def _rare_losses(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([0.1, -0.9, 0.0], n, p=[0.18, 0.02, 0.80])


def _normal(mean: float, sd: float) -> Population:
    return lambda n, rng: np.clip(rng.normal(mean, sd, n), mean - 0.9, mean + 0.9)


def _skewed(n: int, rng: np.random.Generator) -> np.ndarray:
    return 0.5 / 4.5 - rng.beta(0.5, 4.0, n)


#: differences whose true mean is 0
NO_GAIN: Mapping[str, Population] = {
    "sparse: 1 in 10 changes, up or down": _sparse,
    "sparse: 18% gain .1, 2% lose .9": _rare_losses,
    "nDCG-like: 3 in 10 change": _ndcg_change,
    "98% gain .02, 2% lose .98": lambda n, rng: _two(n, rng, 0.02, -0.98, 0.02),
    "dense, sd .25": _normal(0.0, 0.25),
    "dense, sd .05": _normal(0.0, 0.05),
    "dense, long tail of losses": _skewed,
}

#: differences whose true mean is -MARGIN
AT_MARGIN: Mapping[str, Population] = {
    "1 in 10 loses .5": lambda n, rng: _two(n, rng, 0.1, -0.5, 0.0),
    "1 in 20 loses 1": lambda n, rng: _two(n, rng, 0.05, -1.0, 0.0),
    "93% gain .02, 7% lose .98": lambda n, rng: _two(n, rng, 0.07, -0.98, 0.02),
    "nDCG-like: 3 in 10 change, 1 in 10 loses .5": _ndcg_loss,
    "dense, sd .25": _normal(-MARGIN, 0.25),
}

#: values of one system, and their true mean
VALUES: Mapping[str, tuple[Population, float]] = {
    "half not found": (lambda n, rng: _ndcg(n, rng, 0.5), _ndcg_mean(0.5)),
    "9 in 10 not found": (lambda n, rng: _ndcg(n, rng, 0.9), _ndcg_mean(0.9)),
    "19 in 20 found first": (lambda n, rng: _two(n, rng, 0.05, 0.0, 1.0), 0.95),
}


# -- one cell of a table --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """One population at one number of queries: where to find it, and what to draw."""

    table: str
    name: str
    n: int
    replications: int
    seed: int

    def samples(self, draw: Population) -> np.ndarray:
        """(replications, n) float64; the seed depends on the cell, not on the order of the work."""
        key = [self.seed, self.n, *f"{self.table} {self.name}".encode()]
        rng = np.random.default_rng(key)
        return np.stack([draw(self.n, rng) for _ in range(self.replications)])


def bca(
    samples: np.ndarray, confidence: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The interval used before, for each row; where it is undefined all values are alike."""
    low, high = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows in np.array_split(samples, max(1, samples.size // 20_000)):
            interval = bootstrap(
                (rows,),
                np.mean,
                axis=1,
                vectorized=True,
                n_resamples=_DRAWS,
                confidence_level=confidence,
                rng=rng,
            ).confidence_interval
            mean = rows.mean(axis=1)
            low.append(np.where(np.isfinite(interval.low), interval.low, mean))
            high.append(np.where(np.isfinite(interval.high), interval.high, mean))
    return np.concatenate(low), np.concatenate(high)


def misses(sample: Sample, mean: float, alpha: float) -> tuple[bool, bool]:
    """Does the lower bound lie above the true mean, does the upper one lie below it?

    A bound lies beyond a value exactly when the p value there is below alpha, which is ten times
    faster to compute than the bound itself.
    """
    above = p_value(sample, mean) < alpha if mean > sample.least else False
    below = p_value(sample.mirrored(), -mean) < alpha if mean < sample.most else False
    return above, below


def width_ratio(samples: np.ndarray, limits: Limits, before: np.ndarray) -> float:
    """Width of the interval in use over that of the BCa interval, of the first samples."""
    widths = []
    for row in samples[:_WIDTHS]:
        interval = mean_interval(row, bounds=limits)
        widths.append(interval.high - interval.low)
    return float(np.mean(widths) / before[:_WIDTHS].mean())


def no_gain(cell: Cell) -> list[float]:
    """Coverage and false claims of the BCa interval and of the rule in use; ratio of the widths."""
    samples = cell.samples(NO_GAIN[cell.name])
    rng = np.random.default_rng(cell.seed)
    low, high = bca(samples[:_BEFORE], 0.95, rng)
    useful = samples.mean(axis=1) >= MIN_GAIN
    covered, outcomes = [], []
    for row in samples:
        above, below = misses(sample_of(row, np.ones(cell.n), *DIFFERENCE), 0.0, 0.025)
        covered.append(not (above or below))
        outcome = "unclear"
        if above or below:
            # half of the difference on either side keeps both systems within [0, 1]
            outcome = compare(0.5 - row / 2, 0.5 + row / 2, rng, _DRAWS).outcome
        outcomes.append(outcome)
    better = np.array([outcome == "better" for outcome in outcomes])
    return [
        np.mean((low <= 1e-12) & (high >= -1e-12)),
        np.mean(covered),
        np.mean((low > 0) & useful[:_BEFORE]),
        np.mean(better & useful),
        np.mean(better),
        np.mean([outcome == "worse" for outcome in outcomes]),
        width_ratio(samples, DIFFERENCE, high - low),
    ]


def at_margin(cell: Cell) -> list[float]:
    """Share of guardrails that pass by the BCa bound and by the bound in use."""
    samples = cell.samples(AT_MARGIN[cell.name])
    low, _ = bca(samples[:_BEFORE], 0.90, np.random.default_rng(cell.seed))
    passes = []
    for row in samples:
        sample = sample_of(row, np.ones(cell.n), *DIFFERENCE)
        passes.append(p_value(sample, -MARGIN) < 0.05)
    return [np.mean(low >= -MARGIN), np.mean(passes)]


def of_values(cell: Cell) -> list[float]:
    """Coverage of the mean of one system's values, and the ratio of the widths."""
    draw, mean = VALUES[cell.name]
    samples = cell.samples(draw)
    low, high = bca(samples[:_BEFORE], 0.95, np.random.default_rng(cell.seed))
    covered = []
    for row in samples:
        covered.append(not any(misses(sample_of(row, np.ones(cell.n), *UNIT), mean, 0.025)))
    before = np.mean((low <= mean) & (high >= mean))
    return [before, np.mean(covered), width_ratio(samples, UNIT, high - low)]


def found(cell: Cell) -> list[float]:
    """Share of real gains that are shown with as many queries as `queries_needed` names."""
    gain, sd = (float(part) for part in cell.name.split(" with sd "))
    samples = cell.samples(_normal(gain, sd))[:_POWER]
    rng = np.random.default_rng(cell.seed)
    zero = np.full(cell.n, 0.5)
    shown = [compare(zero - row / 2, zero + row / 2, rng, _DRAWS).outcome for row in samples]
    return [np.mean([outcome == "better" for outcome in shown])]


_TABLES = {"no gain": no_gain, "margin": at_margin, "values": of_values, "power": found}


def measure(cell: Cell) -> list[float]:
    return [float(figure) for figure in _TABLES[cell.table](cell)]


# -- printing -------------------------------------------------------------------------------------


def cells(sizes: Sequence[int], replications: int, seed: int) -> list[Cell]:
    """Every cell of every table."""
    made = []
    for table, names in (("no gain", NO_GAIN), ("margin", AT_MARGIN), ("values", VALUES)):
        for name in names:
            made += [Cell(table, name, n, replications, seed) for n in sizes]
    for gain, sd in ((0.05, 0.25), (0.1, 0.25), (0.03, 0.1)):
        n = queries_needed(sd, gain) or 0
        made.append(Cell("power", f"{gain:g} with sd {sd:g}", n, replications, seed))
    return made


def table(title: str, heads: Sequence[str], rows: Iterable[tuple[Cell, Sequence[float]]]) -> None:
    """One Markdown table; shares in per cent, the last head `width` as a ratio."""
    print(f"\n{title}\n")
    print("| population | queries | " + " | ".join(heads) + " |")
    print("|---|---:|" + "---:|" * len(heads))
    for cell, figures in rows:
        shown = []
        for head, figure in zip(heads, figures, strict=True):
            if head.startswith("width"):
                shown.append(f"{figure:.2f}")
            else:
                shown.append(f"{100 * figure:.1f}")
        print(f"| {cell.name} | {cell.n} | " + " | ".join(shown) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2611)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--projects", type=int, default=200)
    parser.add_argument("--only", choices=["projects"])
    options = parser.parse_args()
    started = time.perf_counter()
    make_worlds(options.seed)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        print_projects(pool, options.projects, options.seed)
    if options.only is None:
        print_statements(options)
    print(f"\n{time.perf_counter() - started:.0f} s on {os.cpu_count()} cores.")


def print_statements(options: argparse.Namespace) -> None:
    """The tables of single statements."""
    work = cells(options.sizes, options.replications, options.seed)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        measured = list(zip(work, pool.map(measure, work, chunksize=1), strict=True))
    of = {name: [row for row in measured if row[0].table == name] for name in _TABLES}
    print(f"Seed {options.seed}, {options.replications:,} replications per line.")
    heads = ["covers, BCa", "covers", "useful gain claimed, BCa", "useful gain claimed"]
    heads += ["better", "worse", "width / BCa"]
    table("No true gain: per cent of samples", heads, of["no gain"])
    table(
        f"True loss of {MARGIN:g} at a margin of {MARGIN:g}",
        ["passes, BCa", "passes"],
        of["margin"],
    )
    table("Values of one system", ["covers, BCa", "covers", "width / BCa"], of["values"])
    table("A true gain, with the queries that are said to be needed", ["shown"], of["power"])


if __name__ == "__main__":
    main()
