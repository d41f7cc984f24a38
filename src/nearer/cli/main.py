"""The command line.  Thin: it parses, calls the workspace, shows what came back.

Only typer is imported here at the top; everything else waits until a command runs, so that
`nearer --help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearer.cli import index as cli_index
from nearer.cli import monitor as cli_monitor
from nearer.cli import serve as cli_serve
from nearer.cli.shared import (
    HERE,
    AsJson,
    ConfigPath,
    Force,
    Overrides,
    Quiet,
    RunName,
    Verbose,
    boundary,
    emit,
    open_workspace,
)

if TYPE_CHECKING:
    from nearer.workspace import StepResult

app = typer.Typer(
    name="nearer",
    help="Find out whether fine-tuning your embedding model pays, do it when it does, and ship it safely.\n\n"
    "Start with [bold]nearer demo[/bold], or with your own data: [bold]nearer init DIR --data FOLDER[/bold], "
    "then [bold]cd DIR && nearer run[/bold].",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_STAGES, _LIVE = "Stages, in order", "In production"


def main() -> None:
    """Entry point: exit code 0 done, 1 the gate said no, 2 something to mend, 3 a bug."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    app()


def _run_stages(
    first: str | None,
    last: str | None,
    config: Path,
    overrides: list[str] | None,
    run: str | None,
    force: bool,
    as_json: bool,
    shares: Mapping[str, float] | None = None,
) -> list[StepResult]:
    from nearer import lifecycle
    from nearer.cli import show

    workspace = open_workspace(config, overrides, run)
    stages = lifecycle.between(first, last)
    results: list[StepResult] = workspace.run(
        stages,
        force=force,
        before=None if as_json else show.Pace(stages, shares).begin,
        after=None if as_json else show.say_result,
    )
    if as_json:
        told = [_as_json(result) for result in results]
        emit(told if len(stages) > 1 else told[0])
    return results


def _as_json(result: StepResult) -> dict[str, Any]:
    return {
        "stage": result.stage,
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "path": str(result.path),
        "stale_inputs": list(result.stale_inputs),
        **result.summary,
    }


def _stage_command(name: str, help_text: str) -> None:
    def command(
        config: ConfigPath = HERE,
        overrides: Overrides = None,
        run: RunName = None,
        force: Force = False,
        as_json: AsJson = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        with boundary(as_json, verbose, quiet):
            _run_stages(name, name, config, overrides, run, force, as_json)

    command.__doc__ = help_text
    app.command(name, help=help_text, rich_help_panel=_STAGES)(command)


_stage_command(
    "check",
    "Can this data be trusted to train and to judge?\n\nLooks for missing, empty and duplicate texts, cut-off documents, "
    "leakage between splits; freezes the split.\n\nExample: nearer check --set check.near_duplicate=0.8",
)
_stage_command(
    "evaluate",
    "How well does today's search do, and for whom?\n\nMeasures today's system, BM25, dense and hybrid search on the dev queries, "
    "with intervals and slices.\n\nExample: nearer evaluate --json",
)


@app.command("diagnose", rich_help_panel=_STAGES)
def diagnose(
    query: Annotated[
        str | None,
        typer.Option("--query", metavar="ID", help="Tell the story of one query instead."),
    ] = None,
    config: ConfigPath = HERE,
    overrides: Overrides = None,
    run: RunName = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Why did each failing query fail, and what is the cheapest thing that repairs it?

    Executes the repairs: metadata, other chunks, exact words, exact search, a reranker, other models.
    Train and dev queries only.

    Example: nearer diagnose --query q0042
    """
    with boundary(as_json, verbose, quiet):
        if query is None:
            _run_stages("diagnose", "diagnose", config, overrides, run, force, as_json)
        else:
            _tell_story(query, [], config, overrides, run, as_json)


_stage_command(
    "fix",
    "How far do simpler fixes go: metadata, rewriting, hybrid, reranking, chunking, a better base model?\n\nMeasures each on dev with its "
    "cost, then combines those that really help.\n\nExample: nearer fix --set 'fix.models=[models/minilm-l3]'",
)
_stage_command(
    "mine",
    "Which examples teach the distinctions that failed?\n\nPositives from training judgments, hard negatives that are really negative."
    "\n\nExample: nearer mine --set mine.negatives=2",
)
_stage_command(
    "train",
    "Can the model learn them without forgetting the rest?\n\nFine-tunes on clean batches, stops early on dev, goes on after a kill."
    "\n\nExample: nearer train --set train.epochs=1 --run quick",
)


@app.command("why")
def why(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Id of a train or dev query, or a text.")
    ],
    document: Annotated[
        str, typer.Argument(metavar="DOC", help="Id of the document that should have been found.")
    ],
    config: ConfigPath = HERE,
    overrides: Overrides = None,
    run: RunName = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Why is this document not found for this query?

    Example: nearer why "how do I reset my password" DOC-17
    """
    with boundary(as_json, verbose, quiet):
        _tell_story(query, [document], config, overrides, run, as_json)


def _tell_story(
    query: str,
    documents: list[str],
    config: Path,
    overrides: list[str] | None,
    run: str | None,
    as_json: bool,
) -> None:
    from nearer.cli import show
    from nearer.stages import diagnose as stage

    project = open_workspace(config, overrides, run).project_for("diagnose")
    systems, splits = stage.prepared(project)
    stories = stage.why(systems, splits, query, documents, project.settings)
    if as_json:
        emit(stories)
    else:
        for story in stories:
            show.say_story(story)


@app.command(rich_help_panel=_STAGES)
def decide(
    config: ConfigPath = HERE,
    overrides: Overrides = None,
    run: RunName = None,
    force: Force = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 1 unless the verdict is ship.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Ship it, take a simpler fix, or stop?

    The only command that opens the test queries; every look is counted.

    Example: nearer decide --gate
    """
    with boundary(as_json, verbose, quiet):
        results = _run_stages("decide", "decide", config, overrides, run, force, as_json)
        if gate and results[-1].summary.get("verdict") != "ship":
            raise typer.Exit(1)


_stage_command(
    "report",
    "What do we show the people who must agree?\n\nWrites report.html and report.md.\n\nExample: nearer report",
)


@app.command("run")
def run_all(
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="First stage.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Last stage.")] = None,
    config: ConfigPath = HERE,
    overrides: Overrides = None,
    run: RunName = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """All stages, from check to report; what is fresh is not computed again.

    Example: nearer run --from mine --set mine.negatives=2
    """
    from nearer.lifecycle import BY_NAME

    with boundary(as_json, verbose, quiet):
        for name in (first, last):
            if name is not None and name not in BY_NAME:
                from nearer.errors import ConfigError

                raise ConfigError(
                    f"no stage called {name!r}", next_step=f"use one of {', '.join(BY_NAME)}"
                )
        _run_stages(first, last, config, overrides, run, force, as_json)


@app.command()
def status(
    config: ConfigPath = HERE,
    overrides: Overrides = None,
    run: RunName = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What is done, what is stale, what comes next.

    Example: nearer status --run quick
    """
    with boundary(as_json, verbose):
        from nearer.cli import show

        rows = open_workspace(config, overrides, run).status()
        if as_json:
            emit(rows)
        else:
            show.say_status(rows)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where nearer.yaml goes.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with corpus, queries and qrels (BEIR layout).")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Documents: .jsonl, .csv, .tsv, .parquet, also .gz.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="Queries.")] = None,
    judgments: Annotated[
        Path | None, typer.Option(help="Judgments: TSV, CSV, JSONL or TREC qrels.")
    ] = None,
    clicks: Annotated[
        Path | None, typer.Option(help="Click log, when there are no judgments.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="Plain training file: pairs, triplets or scored pairs.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Embedding model: a folder, or a name.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMN", help="Your column names: --columns doc_id=product"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing nearer.yaml.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look at your data and write a commented nearer.yaml that points at it.

    Example: nearer init search --data my-data --model models/minilm
    """
    with boundary(as_json, verbose):
        from nearer.cli import show
        from nearer.cli.start import initialise

        named = {
            "folder": data,
            "corpus": corpus,
            "queries": queries,
            "judgments": judgments,
            "clicks": clicks,
            "training": training,
        }
        path, seen, lines = initialise(
            folder,
            {key: value for key, value in named.items() if value},
            model,
            columns or (),
            force,
        )
        if as_json:
            emit({"config": str(path), **seen})
        else:
            show.say_init(path, lines)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the demo works.")] = Path(
        "nearer-demo"
    ),
    overrides: Overrides = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """A real fine-tune on real data: 938 software weaknesses, 2,007 vulnerability reports, MiniLM.

    Example: nearer demo
    """
    with boundary(as_json, verbose, quiet):
        from nearer.cli.start import DEMO_SHARES, prepare_demo

        _run_stages(None, None, prepare_demo(folder), overrides, None, force, as_json, DEMO_SHARES)


app.add_typer(cli_index.app, name="index", rich_help_panel=_LIVE)
app.command(rich_help_panel=_LIVE)(cli_serve.serve)
app.add_typer(cli_serve.shadow, name="shadow", rich_help_panel=_LIVE)
app.command(rich_help_panel=_LIVE)(cli_monitor.monitor)
app.add_typer(cli_serve.log, name="log", rich_help_panel=_LIVE)
