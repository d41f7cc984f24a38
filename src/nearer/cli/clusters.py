"""`nearer clusters`: every document in a group with a name, and what changed since the last time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearer.cli.shared import Options, emit, with_options

_SHOWN = 20


@with_options("force")
def clusters(
    options: Options,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="FOLDER", help="Another model than model.name."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where it goes (default: clusters).")
    ] = None,
) -> None:
    """Which documents belong together, what is each group about, and what became of the last groups?

    Writes clusters.jsonl (the cluster of every document) and summary.json; needs no labels.

    Example: nearer clusters --set cluster.n_clusters=40 --model runs/default/train/model
    """
    from nearer.cli import show
    from nearer.embed.opening import open_encoder
    from nearer.tasks.cluster.whole import ASSIGNMENTS, group_corpus
    from nearer.tasks.showing import cell

    project = options.workspace().project
    settings = project.settings
    folder = out or project.root / "clusters"
    encoder = project.encoder
    if model is not None:
        other = settings.model.of_another(str(Path(model).expanduser()))
        encoder = open_encoder(other, Path.cwd(), cache=project.cache)
    systems = project.systems_over(encoder)
    grouped = group_corpus(systems, settings.cluster, settings.seed, folder / ASSIGNMENTS)
    grouped.save(folder)
    if options.as_json:
        emit({"folder": str(folder), **grouped.summary()})
        return
    from nearer.results import Block, Line, Row, Table, draw

    rows = [Row((one.name, cell(one.size), one.text)) for one in grouped.named[:_SHOWN]]
    figures = grouped.figures
    head = f"{figures['documents']:,} documents in {figures['n_clusters']} clusters"
    blocks: list[Block] = [
        Line(head),
        Table(("cluster", "size", "most central"), rows, ("cluster",)),
    ]
    if grouped.drift is not None:
        blocks.append(Line(f"since the last time: {grouped.drift.lead}"))
    blocks.append(Line(f"{folder / ASSIGNMENTS}", "command"))
    draw(blocks, show.out)
