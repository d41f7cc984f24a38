"""The command line.  Thin: it parses, calls the workspace, prints the results.

Only typer is imported here at the top; everything else waits until a command runs, so that
`nearer --help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearer.cli import clusters as cli_clusters
from nearer.cli import generate as cli_generate
from nearer.cli import index as cli_index
from nearer.cli import judge as cli_judge
from nearer.cli import monitor as cli_monitor
from nearer.cli import pool as cli_pool
from nearer.cli import review as cli_review
from nearer.cli import serve as cli_serve
from nearer.cli import share as cli_share
from nearer.cli.shared import Options, emit, with_options

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
_STAGES, _RESULTS, _LIVE = "Stages, in order", "What results say", "In production"


def main() -> None:
    """Entry point: exit code 0 done, 1 the gate said no, 2 something to mend, 3 a bug."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    app()


def _run_stages(
    first: str | None,
    last: str | None,
    options: Options,
    shares: Mapping[str, float] | None = None,
) -> list[StepResult]:
    """Run the stages from `first` to `last` and print their results as they come.

    `shares` gives each stage's part of the whole time, where that is known.
    """
    from nearer import lifecycle
    from nearer.cli import show
    from nearer.training import processes

    stages = lifecycle.between(first, last)
    if not processes.first():  # of torchrun: the first process speaks for all
        return options.workspace().run(stages, force=options.force)
    if options.as_json:
        results = options.workspace().run(stages, force=options.force)
        values = [_as_json(result) for result in results]
        emit(values if len(stages) > 1 else values[0])
        return results
    return options.workspace().run(
        stages,
        force=options.force,
        before=show.StageAnnouncer(stages, shares).announce,
        after=show.print_result,
    )


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
    """A command that runs one stage and has no options of its own."""

    @app.command(name, help=help_text, rich_help_panel=_STAGES)
    @with_options()
    def command(options: Options) -> None:
        _run_stages(name, name, options)


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
@with_options()
def diagnose(
    options: Options,
    query: Annotated[
        str | None,
        typer.Option("--query", metavar="ID", help="Tell the story of one query instead."),
    ] = None,
) -> None:
    """Why did each failing query fail, and what is the cheapest thing that repairs it?

    Executes the repairs: metadata, other chunks, exact words, exact search, a reranker, other models.
    Train and dev queries only.

    Example: nearer diagnose --query q0042
    """
    if query is None:
        _run_stages("diagnose", "diagnose", options)
    else:
        _print_stories(query, [], options)


_stage_command(
    "fix",
    "How far do simpler fixes go: metadata, rewriting, hybrid, reranking, chunking, a better base model?\n\nMeasures each on dev with its "
    "cost, then combines those that really help.\n\nExample: nearer fix --set 'fix.models=[models/minilm-l3]'",
)
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse training data that holds dev or test queries, instead of leaving them out.",
    ),
]


@app.command("mine", rich_help_panel=_STAGES)
@with_options()
def mine(options: Options, strict: Strict = False) -> None:
    """Which examples teach the distinctions that failed?

    Positives from training judgments, hard negatives that are really negative, and positives that
    are probably wrong.

    Example: nearer mine --set mine.negatives=2
    """
    _run_stages("mine", "mine", _strictly(options, strict))


def _strictly(options: Options, strict: bool) -> Options:
    """The options with `mine.strict` set, where it is asked for."""
    if not strict:
        return options
    return replace(options, overrides=[*(options.overrides or ()), "mine.strict=true"])


@app.command("train", rich_help_panel=_STAGES)
@with_options()
def train(
    options: Options,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve", help="Also train on less data, to tell what more would add."
        ),
    ] = False,
) -> None:
    """Can the model learn them without forgetting the rest?

    Fine-tunes on clean batches, stops early on dev, goes on after a kill.

    Example: nearer train --set train.budget=10m --run quick
    """
    if learning_curve:
        more = [*(options.overrides or ()), "train.learning_curve=true"]
        options = replace(options, overrides=more)
    _run_stages("train", "train", options)


@app.command("why")
@with_options("force")
def why(
    options: Options,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Id of a train or dev query, or a text.")
    ],
    document: Annotated[
        str, typer.Argument(metavar="DOC", help="Id of the document that should have been found.")
    ],
) -> None:
    """Why is this document not found for this query?

    Example: nearer why "how do I reset my password" DOC-17
    """
    _print_stories(query, [document], options)


def _print_stories(query: str, documents: Sequence[str], options: Options) -> None:
    """Explain one query: for the given documents, or for all that are relevant to it."""
    from nearer.cli import show
    from nearer.diagnosis.story import why
    from nearer.stages.diagnose import prepared

    project = options.workspace().project_for("diagnose")
    systems, splits = prepared(project)
    stories = why(systems, splits, query, documents, project.settings)
    if options.as_json:
        emit(stories)
        return
    for story in stories:
        show.print_story(story)


@app.command(rich_help_panel=_STAGES)
@with_options()
def decide(
    options: Options,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 1 unless the verdict is ship.")
    ] = False,
) -> None:
    """Ship it, take a simpler fix, or stop?

    The only command that opens the test queries; every look is counted.

    Example: nearer decide --gate
    """
    results = _run_stages("decide", "decide", options)
    if gate and results[-1].summary.get("verdict") != "ship":
        raise typer.Exit(1)


_stage_command(
    "report",
    "What do we show the people who must agree?\n\nWrites report.html and report.md.\n\nExample: nearer report",
)


@app.command("run")
@with_options()
def run_all(
    options: Options,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="First stage.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Last stage.")] = None,
    strict: Strict = False,
) -> None:
    """All stages, from check to report; what is fresh is not computed again.

    Example: nearer run --from mine --set mine.negatives=2
    """
    from nearer.errors import ConfigError
    from nearer.lifecycle import BY_NAME

    for name in (first, last):
        if name is not None and name not in BY_NAME:
            known = ", ".join(BY_NAME)
            raise ConfigError(f"no stage called {name!r}", next_step=f"use one of {known}")
    _run_stages(first, last, _strictly(options, strict))


@app.command()
@with_options("force", "quiet")
def status(options: Options) -> None:
    """What is done, what is stale, what comes next.

    Example: nearer status --run quick
    """
    from nearer.cli import show

    rows = options.workspace().status()
    if options.as_json:
        emit(rows)
    else:
        show.print_status(rows)


@app.command()
@with_options("config", "overrides", "run", "force", "quiet")
def init(
    options: Options,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where nearer.yaml goes.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with corpus, queries and qrels (BEIR layout).")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of Markdown, HTML, text or PDF files: the corpus."
        ),
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
) -> None:
    """Look at your data and write a commented nearer.yaml that points at it.

    With --documents alone, nearer generate then makes queries, so that nearer run can begin.

    Example: nearer init search --data my-data --model models/minilm
    """
    # Longer than fifty lines: most of them are the options.
    from nearer.cli import show
    from nearer.cli.start import initialise

    paths = {"folder": data, "documents": documents, "corpus": corpus, "queries": queries}
    paths |= {"judgments": judgments, "clicks": clicks, "training": training}
    named = {key: path for key, path in paths.items() if path}
    written, inspection = initialise(folder, named, model, columns or (), force)
    if options.as_json:
        emit({"config": str(written), **inspection.facts})
    else:
        first = "nearer run" if inspection.facts["splits"] else "nearer generate"
        show.print_init(written, inspection.lines, first)


@app.command()
@with_options("config", "run")
def demo(
    options: Options,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where the demo works (default: nearer-demo…)."),
    ] = None,
    task: Annotated[
        str,
        typer.Option("--task", help="search, recommend (Debian packages) or cluster (by section)."),
    ] = "search",
) -> None:
    """A real fine-tune on real data: 938 software weaknesses, 2,007 vulnerability reports, MiniLM.

    With --task, 8,379 packages of Debian: those that go together, or those of one section.

    Example: nearer demo --task recommend
    """
    from nearer.cli.demos import demo_of

    chosen = demo_of(task)
    where = folder or Path(chosen.folder)
    of_demo = replace(options, config=chosen.prepare(where))
    _run_stages(None, None, of_demo, chosen.shares)


app.command()(cli_generate.generate)
app.command(rich_help_panel=_RESULTS)(cli_judge.compare)
app.command(rich_help_panel=_RESULTS)(cli_judge.gate)
app.command("sign-off", rich_help_panel=_RESULTS)(cli_judge.sign_off)
app.command(rich_help_panel=_RESULTS)(cli_judge.mistakes)
app.add_typer(cli_index.app, name="index", rich_help_panel=_LIVE)
app.command(rich_help_panel=_LIVE)(cli_serve.serve)
app.add_typer(cli_serve.shadow, name="shadow", rich_help_panel=_LIVE)
app.command(rich_help_panel=_LIVE)(cli_monitor.monitor)
app.add_typer(cli_review.app, name="review", rich_help_panel=_LIVE)
app.add_typer(cli_pool.app, name="pool", rich_help_panel=_LIVE)
app.add_typer(cli_serve.log, name="log", rich_help_panel=_LIVE)
app.command(rich_help_panel=_LIVE)(cli_clusters.clusters)
app.command(rich_help_panel=_LIVE)(cli_share.export)
app.command(rich_help_panel=_LIVE)(cli_share.push)
