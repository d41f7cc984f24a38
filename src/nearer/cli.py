"""The command line.  Thin: it parses, calls the workspace, shows what came back.

Only typer is imported here at the top; everything else waits until a command runs, so that
`nearer --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

ConfigPath = Annotated[Path, typer.Option("-c", "--config", help="Configuration file.", show_default=True)]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set train.epochs=1")]
RunName = Annotated[str | None, typer.Option("--run", metavar="NAME", help="Results go to runs/NAME/.")]
Force = Annotated[bool, typer.Option("--force", help="Recompute even where nothing changed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout, everything else on stderr.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only results and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Also what the libraries say, and full tracebacks.")]
_HERE = Path("nearer.yaml")


def main() -> None:
    """Entry point: exit code 0 done, 1 the gate said no, 2 something to mend, 3 a bug."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    app()


@contextmanager
def _boundary(as_json: bool, verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Errors become one message and an exit code; progress goes to stderr."""
    from nearer import progress
    from nearer.errors import NearerError
    from nearer.show import Terminal, say_error

    if not verbose:
        _hush()
    try:
        with Terminal(quiet or as_json) as terminal, progress.listen(terminal):
            yield
    except NearerError as error:
        say_error(error, as_json)
        raise typer.Exit(2) from None
    except OSError as error:
        said = NearerError(
            f"{error.strerror or error}", where=str(error.filename or ""), next_step="free space or mend access, then run the same command"
        )
        say_error(said, as_json)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say_error(NearerError("stopped; what was finished is kept", next_step="run the same command to go on"), as_json)
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is reported as one
        import traceback

        traceback.print_exc()
        say_error(
            NearerError(f"this is a bug in nearer: {type(error).__name__}: {error}", next_step="please report it with the lines above"),
            as_json,
        )
        raise typer.Exit(3) from None


def _hush() -> None:
    """Silence libraries that talk about themselves."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    for name in ("transformers", "sentence_transformers", "datasets", "accelerate", "bm25s"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _workspace(config: Path, overrides: list[str] | None, run: str | None) -> Any:
    from nearer import config as settings
    from nearer.workspace import Workspace

    return Workspace(config.resolve().parent, settings.load(config, overrides or (), run))


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
    from nearer import lifecycle, show

    workspace = _workspace(config, overrides, run)
    stages = lifecycle.between(first, last)
    results: list[StepResult] = workspace.run(
        stages,
        force=force,
        before=None if as_json else show.Pace(stages, shares).begin,
        after=None if as_json else lambda result: show.say_result(result, workspace),
    )
    if as_json:
        told = [_as_json(result) for result in results]
        _emit(told if len(stages) > 1 else told[0])
    return results


def _emit(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def _as_json(result: StepResult) -> dict[str, Any]:
    return {"stage": result.stage, "status": result.status, "seconds": round(result.seconds, 3), "path": str(result.path), **result.summary}


def _stage_command(name: str, help_text: str) -> None:
    def command(
        config: ConfigPath = _HERE,
        overrides: Overrides = None,
        run: RunName = None,
        force: Force = False,
        as_json: AsJson = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        with _boundary(as_json, verbose, quiet):
            _run_stages(name, name, config, overrides, run, force, as_json)

    command.__doc__ = help_text
    app.command(name, help=help_text)(command)


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
_stage_command("report", "What do we show the people who must agree?\n\nWrites report.html and report.md.\n\nExample: nearer report")


@app.command()
def decide(
    config: ConfigPath = _HERE,
    overrides: Overrides = None,
    run: RunName = None,
    force: Force = False,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 unless the verdict is ship.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Ship it, take a simpler fix, or stop?

    The only command that opens the test queries; every look is counted.

    Example: nearer decide --gate
    """
    with _boundary(as_json, verbose, quiet):
        results = _run_stages("decide", "decide", config, overrides, run, force, as_json)
        if gate and results[-1].summary.get("verdict") != "ship":
            raise typer.Exit(1)


@app.command("run")
def run_all(
    first: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Last stage.")] = None,
    config: ConfigPath = _HERE,
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

    with _boundary(as_json, verbose, quiet):
        for name in (first, last):
            if name is not None and name not in BY_NAME:
                from nearer.errors import ConfigError

                raise ConfigError(f"no stage called {name!r}", next_step=f"use one of {', '.join(BY_NAME)}")
        _run_stages(first, last, config, overrides, run, force, as_json)


@app.command()
def status(
    config: ConfigPath = _HERE, overrides: Overrides = None, run: RunName = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """What is done, what is stale, what comes next.

    Example: nearer status --run quick
    """
    with _boundary(as_json, verbose):
        from nearer import show

        rows = _workspace(config, overrides, run).status()
        if as_json:
            _emit(rows)
        else:
            show.say_status(rows)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where nearer.yaml goes.")],
    data: Annotated[Path | None, typer.Option(help="Folder with corpus, queries and qrels (BEIR layout).")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Documents: .jsonl, .csv, .tsv, .parquet, also .gz.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Queries.")] = None,
    judgments: Annotated[Path | None, typer.Option(help="Judgments: TSV, CSV, JSONL or TREC qrels.")] = None,
    clicks: Annotated[Path | None, typer.Option(help="Click log, when there are no judgments.")] = None,
    training: Annotated[Path | None, typer.Option(help="Plain training file: pairs, triplets or scored pairs.")] = None,
    model: Annotated[str | None, typer.Option(help="Embedding model: a folder, or a name.")] = None,
    columns: Annotated[list[str] | None, typer.Option(metavar="NAME=COLUMN", help="Your column names: --columns doc_id=product")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing nearer.yaml.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look at your data and write a commented nearer.yaml that points at it.

    Example: nearer init search --data my-data --model models/minilm
    """
    with _boundary(as_json, verbose):
        from nearer import show
        from nearer.start import initialise

        named = {"folder": data, "corpus": corpus, "queries": queries, "judgments": judgments, "clicks": clicks, "training": training}
        path, seen, lines = initialise(folder, {key: value for key, value in named.items() if value}, model, columns or (), force)
        if as_json:
            _emit({"config": str(path), **seen})
        else:
            show.say_init(path, lines)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the demo works.")] = Path("nearer-demo"),
    overrides: Overrides = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """A real fine-tune on real data: 938 software weaknesses, 2,007 vulnerability reports, MiniLM.

    Example: nearer demo
    """
    with _boundary(as_json, verbose, quiet):
        from nearer.start import DEMO_SHARES, prepare_demo

        _run_stages(None, None, prepare_demo(folder), overrides, None, force, as_json, DEMO_SHARES)
