"""`nearer generate`: queries that the documents could answer, where nobody has asked yet."""

from __future__ import annotations

from typing import Annotated

import typer

from nearer.cli.shared import Options, emit, with_options


@with_options("force")
def generate(
    options: Options,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be sent and what it costs, and send nothing."
        ),
    ] = False,
) -> None:
    """Which queries could the documents answer, where nobody has asked yet?

    Writes generated/: queries, judgments, what was refused and why. All of them are marked as
    generated, and test queries of that kind ship nothing by themselves.

    Example: nearer generate --set generate.per_kind=2
    """
    from nearer.cli import show
    from nearer.generated.making import Maker, generate
    from nearer.generated.result import require_ours, write
    from nearer.results import draw, short_path

    project = options.workspace().project
    require_ours(project.root / "generated")
    if dry_run:
        estimate = Maker.of(project).estimate()
        if options.as_json:
            emit({"briefs": estimate})
        else:
            show.out.print(f"  {estimate}")
        return
    result = generate(project)
    folder = write(result, project.root)
    if options.as_json:
        emit({"folder": str(folder), **result.brief()})
        return
    draw(result.blocks(), show.out)
    show.out.print(f"  wrote {short_path(folder)}")
    used = project.settings.data.generated
    command = "nearer run" if used != "none" else "nearer run --set data.generated=train"
    show.out.print(f"  → {command}   (data.generated: {used})")
