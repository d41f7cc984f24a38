"""`nearer pool …`: a test set from what users ask, judged by people, with honest estimates on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearer.cli.shared import Options, emit, with_options

if TYPE_CHECKING:
    from nearer.project import Project
    from nearer.review.pool_queries import Candidates

app = typer.Typer(
    help="Draw queries, pool what every system finds for them, and estimate from what is judged.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The name of the pool.")]
_POOL = "first"


@app.command()
@with_options()
def make(
    options: Options,
    queries: Annotated[
        Path | None,
        typer.Argument(
            metavar="[QUERIES]",
            help="A file of queries, its field `frequency` used; without one, the traffic log.",
        ),
    ] = None,
    name: Name = _POOL,
    n_queries: Annotated[
        int, typer.Option("--queries", min=2, help="How many queries to draw.")
    ] = 100,
    share: Annotated[
        float,
        typer.Option(
            min=0.05, max=1.0, help="Of the pools, what people judge; below 1, means are estimated."
        ),
    ] = 1.0,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SYSTEM",
            help="A system by name, fine-tuned, or a TREC run file; may be repeated. "
            "Default: today's, the baselines, and the fine-tuned model.",
        ),
    ] = None,
) -> None:
    """Draw a test set, equally many frequent, middle and rare queries, and pool all systems' results.

    Queries that repeat one of train, dev or test are left out.  The pool goes to nearer review.

    Example: nearer pool make --queries 100 --share 0.3
    """
    import numpy as np

    from nearer.cli.show import out
    from nearer.review import pools

    project = options.workspace().project
    candidates = _candidates(project, queries, name, options.force)
    settings = pools.PoolSettings(name, n_queries, project.settings.review.depth, share)
    rng = np.random.default_rng([project.settings.seed, *f"pool {name}".encode()])
    pool = pools.make(project, settings, candidates, system or (), rng)
    if options.as_json:
        emit(pool.facts)
        return
    for line in _made_lines(pool.facts):
        out.print(line)


def _candidates(project: Project, queries: Path | None, name: str, force: bool) -> Candidates:
    """What can be drawn for a pool of that name.  Raises ConfigError where there is one already."""
    from nearer.errors import ConfigError
    from nearer.review import pool_queries, pools

    folder = pools.folder_of(project.root, name)
    if folder.exists() and not force:
        raise ConfigError(
            f"there is a pool called {name!r} already",
            where=str(folder),
            next_step="nearer pool make --name OTHER, or --force to make it anew",
        )
    if queries is None:
        candidates = pool_queries.from_traffic(project)
    else:
        candidates = pool_queries.from_file(queries, project)
    others = pools.used_texts(project.root, but=name)
    return pool_queries.without_known(candidates, project, others)


def _made_lines(facts: Any) -> list[str]:
    bands = ", ".join(f"{count} {band}" for band, count in facts["bands"].items())
    lines = [
        f"  {facts['queries']:,} queries ({bands}) of {facts['candidates']:,}, from {facts['source']}"
    ]
    for reason, count in facts["excluded"].items():
        if count:
            lines.append(f"    left out: {count:,} {reason}")
    lines.append(
        f"  {facts['asked']:,} of {facts['documents']:,} pooled results of "
        f"{', '.join(facts['systems'])} are to be judged; {facts['whole']:,} pools whole"
    )
    lines.append("  → nearer review serve, then nearer pool score")
    return lines


@app.command()
@with_options("force")
def score(
    options: Options,
    name: Name = _POOL,
    by: Annotated[
        str,
        typer.Option(
            metavar="UNIT", help="requests: a query counts as often as it is asked; or queries."
        ),
    ] = "requests",
) -> None:
    """What the judgments of a pool say so far: each system with an interval, bounds, differences.

    Example: nearer pool score --name first
    """
    from nearer.cli.show import out
    from nearer.errors import ConfigError
    from nearer.review.judgments import JudgmentLog
    from nearer.review.pool_scores import score_pool
    from nearer.review.pools import read_pool, without_missing

    if by not in ("requests", "queries"):
        raise ConfigError(f"no unit called {by!r}", next_step="use --by requests or --by queries")
    project = options.workspace().project
    pool = without_missing(read_pool(project.root, name), project.corpus)
    log = JudgmentLog(project.root / "review" / "judgments.jsonl")
    scores = score_pool(
        pool,
        log.judgments,
        by_requests=by == "requests",
        alpha=project.settings.decide.alpha,
    )
    values = {"name": name, "by": by, **scores.as_dict()}
    if options.as_json:
        emit(values)
        return
    for line in _score_lines(values):
        out.print(line)


def _score_lines(values: dict[str, Any]) -> list[str]:
    measure = values["measure"]
    lines = [
        f"  {values['judged']:,} of {values['asked']:,} results judged; "
        f"{values['n_queries']:,} queries count, {values['open']:,} are open; mean over {values['by']}"
    ]
    for row in values["systems"]:
        low, high = row["bounds"]
        lines.append(
            f"  {row['name']}: {measure} {_mean(row[measure])}; {low:.3f} to {high:.3f} over all "
            f"queries, whatever is unjudged; AP {_mean(row['AP'])}"
        )
    for name, row in values["differences"].items():
        first = values["systems"][0]["name"]
        lines.append(f"  {name} less {first}: {_mean(row, sign='+')}")
    if values["systems"][0][measure]["corrected"] is None:
        lines.append(
            "  ! not corrected: fewer than two queries are judged whole, so this is biased"
        )
    return lines


def _mean(row: dict[str, Any], sign: str = "") -> str:
    corrected = row["corrected"]
    if corrected is not None:
        low, high = corrected["ci"]
        return f"{corrected['mean']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
    return "not known" if row["plain"] is None else f"{row['plain']:{sign}.3f} (not corrected)"


@app.command()
@with_options("force")
def finish(options: Options, name: Name = _POOL) -> None:
    """Take the queries whose pool is judged whole into test; each counts as the requests it stands for.

    Example: nearer pool finish --name first
    """
    from nearer.cli.show import out
    from nearer.review import pool_scores
    from nearer.review.pools import read_pool, without_missing
    from nearer.review.session import Review

    review = Review(options.workspace().project)
    pool = without_missing(read_pool(review.root, name), review.project.corpus)
    whole, relevant = pool_scores.finish(review.root, pool, review.log.judgments)
    review.summary()  # the report says which pool test queries are from
    if options.as_json:
        emit({"name": name, "whole": whole, "test_queries": relevant})
        return
    out.print(f"  {relevant:,} test queries of {whole:,} judged whole (the others find nothing)")
    out.print("  → nearer run   (check takes them into test)")
