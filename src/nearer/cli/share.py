"""`nearer push` and `nearer export`: a trained model for others, and for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nearer.cli.shared import Options, emit, with_options

#: Texts that an export is compared on.
_QUERIES = 64
_DOCUMENTS = 192


@with_options("force")
def push(
    options: Options,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is public (default: private).")
    ] = False,
) -> None:
    """Send the trained model with its card to a hub, where HF_TOKEN may write.

    HF_ENDPOINT names another hub than huggingface.co.

    Example: nearer push me/my-search-model
    """
    from nearer.cli import show
    from nearer.training.push import push as send
    from nearer.training.release import Release

    workspace = options.workspace()
    release = Release.of(workspace.config, workspace.root, workspace.run_dir)
    with release.staged() as folder:
        pushed = send(folder, name, private=not public)
    if options.as_json:
        emit({"url": pushed.url, "commit": pushed.commit, "files": pushed.files})
        return
    size = f"{pushed.size / 1e6:,.0f} MB"
    show.out.print(f"  {pushed.files} files ({size}), the card included → {pushed.url}")


@with_options("force")
def export(
    options: Options,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="openvino or onnx; checked before it is kept."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where it goes (default: exports/RUN-FORMAT).")
    ] = None,
    vectors: Annotated[
        bool,
        typer.Option("--vectors", help="Measure on dev what smaller vectors would lose."),
    ] = False,
) -> None:
    """The trained model for another runtime, refused unless vectors and ranking are the same there.

    Example: nearer export --format openvino
    """
    from nearer.errors import ConfigError

    if format is None and not vectors:
        raise ConfigError(
            "there is nothing to do",
            where="nearer export",
            next_step="nearer export --format openvino, or nearer export --vectors",
        )
    told: dict[str, Any] = {}
    if format is not None:
        told |= _exported(options, format, out)
    if vectors:
        told |= _measured(options)
    if options.as_json:
        emit(told)


def _exported(options: Options, format: str, out: Path | None) -> dict[str, Any]:
    """Export, and say how near it is to the model."""
    from dataclasses import asdict

    from nearer.cli import show
    from nearer.results import short_path
    from nearer.training.card import CARD
    from nearer.training.export import export as write
    from nearer.training.release import Release

    workspace = options.workspace()
    release = Release.of(workspace.config, workspace.root, workspace.run_dir)
    folder = out or workspace.root / "exports" / f"{workspace.config.run}-{format}"
    encoder = release.encoder()
    parity = write(encoder, format, folder.resolve(), _compared(workspace))
    (folder / CARD).write_text(release.card(encoder), encoding="utf-8")
    if not options.as_json:
        show.out.print(f"  {parity}")
        show.out.print(f"  → {short_path(folder)}")
    return {"path": str(folder), "format": format, **asdict(parity)}


def _compared(workspace: Any) -> dict[Any, list[str]]:
    """Dev queries, and documents spread over the corpus with the longest among them."""
    project = workspace.project_for("train")
    dev = project.split("dev") if project.split("dev").queries else project.split("train")
    queries = [query.text for query in dev.queries[:_QUERIES]]
    corpus = project.corpus
    step = max(1, len(corpus) // _DOCUMENTS)
    documents = list(corpus.contents(range(0, len(corpus), step)))[:_DOCUMENTS]
    return {"query": queries, "document": documents}


def _measured(options: Options) -> dict[str, Any]:
    """Measure and show what smaller vectors lose."""
    from nearer.cli import show
    from nearer.files import write_json
    from nearer.results import Line, Row, Table, draw
    from nearer.training.looks import whole_judge
    from nearer.training.release import Release
    from nearer.training.storage import compressions, losses

    workspace = options.workspace()
    release = Release.of(workspace.config, workspace.root, workspace.run_dir)
    project = workspace.project_for("train")
    encoder = release.encoder()
    judge = whole_judge(project.systems, project.dev, project.rng("train"))
    found = losses(encoder, judge, compressions(encoder.dimension), project.rng("train"))
    rows = [row.as_dict(judge.measure) for row in found]
    told = {"measure": judge.measure, "queries": len(judge.dev.queries), "vectors": rows}
    write_json(workspace.root / "exports" / f"{workspace.config.run}-vectors.json", told)
    if not options.as_json:
        cells = []
        for row in found:
            change = f"{row.delta:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
            size = f"{row.bytes_per_document:,}"
            cells.append(Row((row.vectors, size, f"{row.value:.3f}", change)))
        columns = ("vectors", "bytes per document", f"dev {judge.measure}", "change")
        draw([Table(columns, cells), Line("change: against float32, 95% interval")], show.out)
    return told
