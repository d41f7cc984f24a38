"""What every command shares: its options, and the boundary where errors become messages and exit codes."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nearer.errors import NearerError
    from nearer.workspace import Workspace

ConfigPath = Annotated[
    Path, typer.Option("-c", "--config", help="Configuration file.", show_default=True)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set train.epochs=1"),
]
RunName = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Results go to runs/NAME/.")
]
Force = Annotated[bool, typer.Option("--force", help="Recompute even where nothing changed.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Machine-readable result on stdout, everything else on stderr."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only results and errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Also what the libraries say, and full tracebacks.")
]
HERE = Path("nearer.yaml")
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@contextmanager
def boundary(as_json: bool, verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Errors become one message and an exit code; progress goes to stderr."""
    from nearer import progress
    from nearer.cli.show import Terminal
    from nearer.training import processes

    quiet = quiet or not processes.first()  # under torchrun the first process speaks for all
    if not verbose:
        _hush()
    try:
        with Terminal(quiet or as_json) as terminal, progress.listen(terminal):
            yield
    except (typer.Exit, typer.Abort):
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last line of defence: a bug is reported as one
        said, code = _told_as(error)
        _say(said, as_json)
        raise typer.Exit(code) from None


def _told_as(error: BaseException) -> tuple[NearerError, int]:
    """What a user reads of an error, and the exit code; the traceback of a bug is printed."""
    from nearer.errors import NearerError
    from nearer.files import disk_error

    if isinstance(error, NearerError):
        return error, 2
    if isinstance(error, KeyboardInterrupt):
        stopped = "stopped; what was finished is kept"
        return NearerError(stopped, next_step="run the same command to go on"), 130
    full = disk_error(error)  # libraries have errors of their own for a full disk
    if full is not None:
        return full, 2
    if isinstance(error, OSError):
        return NearerError(
            f"{error.strerror or error}",
            where=str(error.filename or ""),
            next_step="mend access to it, then run the same command",
        ), 2
    import traceback

    with suppress(OSError):
        traceback.print_exception(error)
    return NearerError(
        f"this is a bug in nearer: {type(error).__name__}: {error}",
        next_step="please report it with the lines above",
    ), 3


def _say(error: NearerError, as_json: bool) -> None:
    """Tell an error where somebody still listens: stdout or stderr may be what is full or closed."""
    from nearer.cli.show import print_error

    try:
        print_error(error, as_json)
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            # otherwise Python tries to write the rest again when it ends, and fails with a code of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            print_error(error, False)


def _hush() -> None:
    """Silence libraries that talk about themselves."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    for name in ("transformers", "sentence_transformers", "datasets", "accelerate", "bm25s"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def open_workspace(config: Path, overrides: list[str] | None, run: str | None) -> Any:
    from nearer import config as settings
    from nearer.workspace import Workspace

    return Workspace(config.resolve().parent, settings.load(config, overrides or (), run))


def emit(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")
    sys.stdout.flush()  # a full disk behind stdout is told like any other


@dataclass(frozen=True, slots=True)
class Options:
    """The options that most commands share: declared here once, and their values in a command."""

    config: ConfigPath = HERE
    overrides: Overrides = None
    run: RunName = None
    force: Force = False
    as_json: AsJson = False
    quiet: Quiet = False
    verbose: Verbose = False

    def workspace(self) -> Workspace:
        """The workspace that the options name.  Raises ConfigError."""
        workspace: Workspace = open_workspace(self.config, self.overrides, self.run)
        return workspace


def with_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a function of `Options` and of its own parameters into a command inside `boundary`.

    `without` names fields of `Options` that the command does not offer; they keep their defaults.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = []
        for parameter in inspect.signature(Options, eval_str=True).parameters.values():
            if parameter.name not in without:
                shared.append(parameter)

        def command(**values: Any) -> None:
            options = Options(
                **{parameter.name: values.pop(parameter.name) for parameter in shared}
            )
            with boundary(options.as_json, options.verbose, options.quiet):
                function(options, **values)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        parameters = [parameter.replace(kind=_KEYWORD) for parameter in (*own, *shared)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate
