"""Commands that set results side by side and put a decision into force: compare, gate, sign-off, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearer.cli.shared import Options, emit, with_options

if TYPE_CHECKING:
    from nearer.decision.contrast import Contrast

System = Annotated[
    str | None,
    typer.Option(
        "--system",
        metavar="NAME",
        help="Compare this system of each run's evaluation (default: the system in production).",
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option("--markdown", metavar="FILE", help="Also write it as Markdown, for a comment."),
]


@with_options("force")
def compare(
    options: Options,
    baseline: Annotated[
        str, typer.Argument(metavar="RUN_A", help="A run, a TREC run file or a scores.jsonl.")
    ],
    candidate: Annotated[str, typer.Argument(metavar="RUN_B", help="The same; set against A.")],
    qrels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judgments, where not those of the run's dev split."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts of the queries: slices and flips.")
    ] = None,
    system: System = None,
    markdown: Markdown = None,
) -> None:
    """Which of two runs is better, for whom, and is it real?

    Paired query by query: measures with intervals, slices, and the queries that flipped.  Takes runs
    of this project, folders of runs, and TREC run files with their judgments.

    Example: nearer compare main new-chunker
    """
    from nearer.cli.comparing import bench_of
    from nearer.decision.sides import read_source

    root = options.config.resolve().parent
    bench = bench_of(options, candidate, (qrels, queries))
    sources = [read_source(name, root, system) for name in (baseline, candidate)]
    _tell(bench.contrast(sources), options, markdown)


@with_options("force")
def gate(
    options: Options,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="RUN|FILE",
            help="The baseline: a run, its folder, a TREC run file or a scores.jsonl.",
        ),
    ],
    slices: Annotated[
        bool, typer.Option("--slices", help="Also say no when a slice is really worse (Holm).")
    ] = False,
    system: System = None,
    markdown: Markdown = None,
) -> None:
    """Did search get really worse than a stored baseline?  Exits with 1 if so, for CI.

    Evaluates the run on the dev queries where that is not done yet, and measures the stored results
    of the baseline by the same judgments.  Says no only when the loss is significant.

    Example: nearer gate --against main --markdown comment.md
    """
    from nearer.cli.comparing import Bench
    from nearer.decision.sides import read_source
    from nearer.lifecycle import between

    workspace = options.workspace()
    _require_other(against, workspace.root, workspace.run_dir)
    baseline = read_source(against, workspace.root, system)  # refused before anything is computed
    workspace.run(between("check", "evaluate"))
    bench = Bench.of_project(options, None)
    own = read_source(str(workspace.run_dir), workspace.root, system)
    contrast = bench.contrast([baseline, own])
    failed = contrast.regressed or (slices and bool(contrast.worse_slices))
    _tell(contrast, options, markdown, failed)
    if failed:
        raise typer.Exit(1)


def _require_other(against: str, root: Path, run_dir: Path) -> None:
    """Raise ConfigError where a run would be compared with itself."""
    from nearer.errors import ConfigError

    paths = (Path(against), root / against, root / "runs" / against)
    if any(path.resolve() == run_dir for path in paths):
        raise ConfigError(
            f"{against} is the run that is judged: nothing would be compared",
            where="--against",
            next_step=f"nearer gate --run OTHER --against {against}",
        )


def _tell(
    contrast: Contrast, options: Options, markdown: Path | None, failed: bool | None = None
) -> None:
    """Show a comparison; `failed` is what the gate says (None: nobody asked it)."""
    from nearer.cli import show
    from nearer.files import write_text
    from nearer.report import contrasted
    from nearer.results import Line, draw

    if markdown is not None:
        says_no = contrast.regressed if failed is None else failed
        write_text(markdown, contrasted.render(contrast, says_no))
    if options.as_json:
        value: dict[str, Any] = contrast.as_dict()
        if failed is not None:
            value["gate"] = "fail" if failed else "pass"
        emit(value)
        return
    blocks = contrast.blocks()
    if failed is not None:
        answer = "the gate says no" if failed else "the gate lets it pass"
        blocks.append(Line(answer, "bad" if failed else "good"))
    draw(blocks, show.out)


@with_options("force", "quiet")
def sign_off(
    options: Options,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who approves.")],
    note: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="Why, or under which condition.")
    ] = None,
) -> None:
    """Approve the decision of a run, as a person: a cut-over asks for it.

    The approval holds for this very decision.  A new one, or any edit, makes it void.

    Example: nearer sign-off --by "Ann Lee" --note "agreed in the review of 3 May"
    """
    from datetime import UTC, datetime

    from nearer import progress
    from nearer.cli import show
    from nearer.decision.sign_off import sign
    from nearer.lifecycle import BY_NAME

    workspace = options.workspace()
    states = {row["stage"]: row["state"] for row in workspace.status()}
    outdated = states["decide"] in ("stale", "waiting")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with workspace.locked():
        aside = workspace.aside(BY_NAME["decide"])
        given = sign(
            workspace.run_dir, aside, by, now, note=note, outdated=True if outdated else None
        )
    if outdated:
        progress.warn("what this decision rests on has changed since → nearer run --to decide")
    if options.as_json:
        emit(given.as_dict())
        return
    what = f"{given.by} signed {given.verdict}"
    show.out.print(f"  {what} ({given.recommended}), decision {given.decision[:12]}")
    show.out.print("  → nearer report shows it; nearer index cutover asks for it")


@with_options("force", "quiet")
def mistakes(options: Options) -> None:
    """Which of the common mistakes did this project make?

    No baseline, noisy positives, no hard negatives, training on evaluation examples, fine-tuning for
    missing metadata, mixed vector spaces, no shadow test, no monitoring: each with its evidence, or
    the command that mends it.

    Example: nearer mistakes --run default
    """
    from nearer.cli import show
    from nearer.decision.mistakes import brief, in_production, read_mistakes
    from nearer.errors import MissingStepError
    from nearer.live.monitor.production import production_of
    from nearer.results import Line, Row, Table, draw

    workspace = options.workspace()
    path = workspace.run_dir / "decide" / "mistakes.json"
    found = read_mistakes(path)
    if not found:
        why = "nobody has looked for mistakes yet"
        if path.is_file():
            why = "the last decision looked for none, as one on scored pairs alone does"
        raise MissingStepError(why, where=str(path), next_step="nearer decide")
    found = in_production(found, production_of(workspace.root))
    if options.as_json:
        emit([row.as_dict() for row in found])
        return
    tones = {"made": "bad", "no mistake": "good", "cannot say": "doubt"}
    rows = []
    for row in found:
        evidence = f"{row.evidence} → {row.next}" if row.next else row.evidence
        rows.append(Row((row.mistake, row.answer, evidence), tones.get(row.answer, "")))
    columns = ("mistake", "answer", "evidence")
    draw([Table(columns, rows, prose=("evidence",)), Line(brief(found))], show.out)
