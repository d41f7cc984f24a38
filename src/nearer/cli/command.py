"""Commands over the generations of a project: a function becomes one, with the options that all share.

Such a function takes the generations first.  It gives back, once or again and again, what `--json`
prints and what people read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearer.cli.shared import Options, emit, with_options

if TYPE_CHECKING:
    from nearer.tables import Grid

Id = Annotated[
    str, typer.Argument(metavar="ID", help="A generation, as `nearer index list` names it.")
]
Who = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="Who does this, for the history (default: the user)."
    ),
]
#: What a command gives back: the value that `--json` prints, and the lines or the table for people.
Told = tuple[Any, "str | Grid"]
#: A command before it has the shared options.
Command = Callable[..., Told | Iterable[Told]]


def command_of(typer_app: typer.Typer, name: str | None = None) -> Callable[[Command], None]:
    """Make a function of the generations a command of `typer_app`."""

    def register(function: Command) -> None:
        named = name or function.__name__.rstrip("_")
        typer_app.command(named, help=function.__doc__)(_wrapped(function))

    return register


def _wrapped(function: Command) -> Callable[..., None]:
    def run(options: Options, **given: Any) -> None:
        from nearer.cli import show
        from nearer.live.index.generations import Generations

        workspace = options.workspace()
        results = function(Generations(workspace.root, workspace.config), **given)
        for value, text in [results] if isinstance(results, tuple) else results:
            if options.as_json:
                emit(value)
            else:
                show.print_answer(text)
            if isinstance(value, dict) and value.get("passed") is False:
                raise typer.Exit(2)

    # Its own options are those of the function, which takes generations where this takes options.
    run.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return with_options("force")(run)
