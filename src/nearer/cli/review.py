"""`nearer review …`: judgments by people, and how many more of them there should be."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nearer.cli.shared import Options, emit, with_options

if TYPE_CHECKING:
    from nearer.project import Project
    from nearer.review.asking import Asking
    from nearer.review.reviewers import Reviewer
    from nearer.review.session import Review

app = typer.Typer(
    help="Let people judge results, blind, and use what they say.", no_args_is_help=True
)
Format = Annotated[
    Literal["qrels", "csv", "argilla", "label-studio"],
    typer.Option("--format", help="Of the file; docs/review.md describes each."),
]


def _opened(options: Options, *, choose: bool = False) -> Review:
    """The review of the project that the options name.  Raises DataError and MissingStepError."""
    from nearer import progress
    from nearer.review.session import Review

    review = Review(options.workspace().project, choose=choose)
    for warning in review.log.warnings():
        progress.warn(warning)
    if review.adopted:
        progress.info(f"{review.adopted} judgments of review/qrels.tsv went into the log")
    return review


@app.command()
@with_options("force", "as_json")
def serve(
    options: Options,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: review.host, loopback).")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port (default: review.port).")] = None,
    odd_one_out: Annotated[
        bool,
        typer.Option(
            "--odd-one-out",
            help="Ask which of three documents does not belong, to judge clusters (task: cluster).",
        ),
    ] = False,
) -> None:
    """The page on which people judge: the most informative pairs first, blind, by keyboard.

    Each reviewer has a link of their own (nearer review invite); where there is none yet, one is
    made for you.

    Example: nearer review serve
    """
    from dataclasses import replace

    from nearer.cli.show import err
    from nearer.review.web.app import address, listening, server_of

    more = [f"review.host={host}"] if host is not None else []
    more += [f"review.port={port}"] if port is not None else []
    options = replace(options, overrides=[*(options.overrides or ()), *more])
    review, waiting = _asked_about_groups(options) if odd_one_out else _asked_about_pairs(options)
    settings = review.project.settings.review
    server = server_of(review)
    socket = listening(settings.host, settings.port)
    port_here = socket.getsockname()[1]
    here = address(settings.host, port_here)
    err.print(f"  {waiting} at http://{here}/")
    if not review.reviewers.all():
        reviewer, token = review.reviewers.invite(_own_name(), settings.token_days)
        _print_link(reviewer, token, settings.host, port_here)
    else:
        err.print("  links for reviewers: nearer review invite NAME")
    server.run(sockets=[socket])


def _asked_about_pairs(options: Options) -> tuple[Asking[Any], str]:
    """The review of pairs, and what it asks in words.  Raises DataError where there is nothing to ask."""
    from nearer.review.pairs import require_pairs

    review = _opened(options, choose=True)
    require_pairs(review.pairs, review.root)
    return review, f"{len(review.pairs):,} pairs to judge"


def _asked_about_groups(options: Options) -> tuple[Asking[Any], str]:
    """The odd-one-out questions, and what they are in words.  Raises DataError where there are none."""
    from nearer import progress
    from nearer.review.odd_one_out import OddOneOut

    review = OddOneOut(options.workspace().project)
    for warning in review.log.warnings():
        progress.warn(warning)
    return review, f"{len(review.questions):,} odd-one-out questions to answer"


def _own_name() -> str:
    """The name of this machine's user, as a reviewer may have it; "me" where there is none."""
    from getpass import getuser

    try:
        name = getuser()
    except (KeyError, OSError, ImportError):  # a user without an entry, as in some containers
        return "me"
    return re.sub(r"[^\w@.-]", "-", name)[:64] or "me"


@app.command()
@with_options("force", "quiet")
def invite(
    options: Options,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who judges, as the log will say.")],
    adjudicator: Annotated[
        bool, typer.Option("--adjudicator", help="Also settles what reviewers disagree on.")
    ] = False,
) -> None:
    """A reviewer's link with a token, printed this once; an earlier one of that name ends.

    Example: nearer review invite anna
    """
    from nearer.review.reviewers import Reviewers

    workspace = options.workspace()
    settings = workspace.config.review
    people = Reviewers(workspace.root)
    reviewer, token = people.invite(name, settings.token_days, adjudicates=adjudicator)
    if options.as_json:
        emit(
            {
                "name": reviewer.name,
                "token": token,
                "expires": reviewer.expires.isoformat(timespec="seconds"),
                "adjudicates": adjudicator,
            }
        )
    else:
        _print_link(reviewer, token, settings.host, settings.port)


def _print_link(reviewer: Reviewer, token: str, host: str, port: int) -> None:
    """The link goes to stdout alone: what is said around it can be thrown away."""
    from nearer.cli.show import err
    from nearer.review.web.app import address

    day = reviewer.expires.date().isoformat()
    err.print(f"  the link of {reviewer.name}, until {day}; it is not shown again:")
    sys.stdout.write(f"http://{address(host, port)}/#{token}\n")
    sys.stdout.flush()


@app.command()
@with_options("force")
def status(options: Options) -> None:
    """What was judged, how far reviewers agree, and how many more judgments settle the verdict.

    Example: nearer review status --json
    """
    from nearer.cli.show import out

    review = _opened(options)
    values = {**review.summary(), "odd_one_out": _odd_one_out(review.project)}
    if options.as_json:
        emit(values)
        return
    for line in (*_status_lines(values), *_odd_one_out_lines(values["odd_one_out"])):
        out.print(line)


def _odd_one_out(project: Project) -> dict[str, Any] | None:
    """What people say of groupings, or why nothing can be asked; None where nothing was grouped."""
    from nearer.errors import DataError
    from nearer.review.odd_one_out import OddOneOut, read_groups

    if read_groups(project) is None:
        return None
    try:
        return OddOneOut(project).summary()
    except DataError as error:
        return {"cannot": error.as_dict()}


def _odd_one_out_lines(values: dict[str, Any] | None) -> list[str]:
    if values is None:
        return []
    if "cannot" in values:
        return [f"  odd one out: {values['cannot']['what']} → {values['cannot']['next']}"]
    lines = [f"  odd one out, {values['answers']:,} answers; they are shown and decide nothing"]
    lines += [f"    {row['sentence']}" for row in values["groupings"]]
    if values["earlier"]:
        lines.append(f"    {values['earlier']:,} answers are about earlier groups and do not count")
    if any(row["more"] for row in values["groupings"]):
        lines.append("  → nearer review serve --odd-one-out")
    return lines


def _status_lines(values: dict[str, Any]) -> list[str]:
    lines = [
        f"  {values['judgments']:,} judgments of {values['pairs_judged']:,} pairs; "
        f"{values['pairs']:,} pairs wait or waited"
    ]
    for name, count in values["reviewers"].items():
        lines.append(f"    {name}: {count:,}")
    agreement = values["agreement"]
    lines.append(f"  Krippendorff's alpha {_coefficient(agreement['alpha'])}")
    for row in agreement["kappa"]:
        lines.append(f"    kappa of {' and '.join(row['reviewers'])} {_coefficient(row)}")
    for name in agreement["below_chance"]:
        lines.append(f"  ! {name} agrees with the others no more than chance: look at it together")
    if values["disagreements"]:
        lines.append(
            f"  {values['disagreements']:,} pairs wait for adjudication "
            "(nearer review invite NAME --adjudicator)"
        )
    lines += _origin_lines(values["origins"])
    lines.append(_judge_line(values["judge"]))
    if values["sentence"]:
        lines.append(f"  {values['sentence']}")
    else:
        lines.append("  no verdict to settle yet → nearer run")
    if values["judgments"] or values["adjudicated"]:
        lines.append("  → nearer run   (check takes in what was judged)")
    return lines


def _origin_lines(origins: dict[str, Any]) -> list[str]:
    """Which pools the judgments are of."""
    lines = []
    for pool in origins["pools"]:
        lines.append(
            f"  pool {pool['name']} (of {pool['source']}): {pool['judged']:,} judged, "
            f"{pool['asked']:,} are asked; {pool['test_queries']:,} of its queries go into test"
        )
    if not lines:
        return [
            "  no pool: these judgments are of what runs and traffic left open (nearer pool make)"
        ]
    return [*lines, f"  {origins['of_no_pool']:,} judged pairs are of no pool"]


def _judge_line(judge: dict[str, Any] | None) -> str:
    """Which judge was compared with people, and what it is worth."""
    if judge is None:
        return "  no judge was compared with people (nearer review judge)"
    return (
        f"  judge {judge['judge']}: kappa with people {_coefficient(judge['agreement'])}; "
        "its grades decide nothing"
    )


@app.command()
@with_options("force")
def judge(
    options: Options,
    pairs: Annotated[
        int, typer.Option("--pairs", min=0, help="Pairs that nobody judged, at most.")
    ] = 200,
) -> None:
    """Let a language model grade pairs, and say how far it agrees with people.

    Its grades are marked as a model's and decide nothing.  It needs 50 pairs that people graded.

    Example: nearer review judge --set review.judge_model=my-model
    """
    import numpy as np

    from nearer.cli.show import out
    from nearer.review import judging
    from nearer.review.judge import JudgeSpec, load_judge

    review = _opened(options, choose=True)
    project = review.project
    model = load_judge(JudgeSpec(project.settings, project.root, project.cache))
    rng = np.random.default_rng([project.settings.seed, *b"judge"])
    judged = judging.judge_pairs(review, model, pairs, rng)
    judging.save(review, judged)
    review.summary()  # the report says what the judge is worth
    if options.as_json:
        emit(judged.as_dict())
        return
    for line in _judge_lines(judged.as_dict()):
        out.print(line)


def _judge_lines(values: dict[str, Any]) -> list[str]:
    from nearer.review.judging import planted_sentence

    mean = values["mean_grade"]
    low, high = mean["corrected"]["ci"]
    lines = [
        f"  {values['judge']}: agrees with people by kappa {_coefficient(values['agreement'])}",
        f"  mean grade {mean['corrected']['mean']:.2f} ({low:.2f} to {high:.2f}), corrected by people "
        f"({mean['n_people']:,} pairs of {mean['n_groups']:,} queries); people alone "
        f"{mean['people']['mean']:.2f}, the judge alone {mean['predictions']:.2f}",
        f"  {planted_sentence(values['planted_instructions'])}; "
        f"{values['withheld']} pairs are left to people",
        "  these grades decide nothing: review/judge.jsonl → nearer review serve",
    ]
    if values["agreement"]["low"] is None or values["agreement"]["low"] <= 0.0:
        lines.insert(1, "  ! no better than chance, as far as these pairs tell")
    if not values["random"]:
        lines.insert(
            -1,
            "  ! people judged the weightiest pairs first, and the correction takes them for a random "
            "part; in a pool they are (nearer pool make)",
        )
    return lines


def _coefficient(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return f"not defined on {row['n']} shared pairs"
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f}, {row['n']} shared pairs)"


@app.command("import")
@with_options("force")
def import_(
    options: Options,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Judgments made elsewhere.")],
    kind: Format = "csv",
    reviewer: Annotated[
        str, typer.Option(metavar="NAME", help="Who judged, where the file names nobody.")
    ] = "imported",
) -> None:
    """Take in judgments that were made elsewhere; all of a file or nothing, and each only once.

    Example: nearer review import judged.csv --reviewer anna
    """
    from nearer.cli.show import out
    from nearer.review import exchange

    review = _opened(options)
    known = exchange.Known(
        exchange.project_name(review), review.query_check(), review.project.corpus.__contains__
    )
    entries = exchange.read(path, kind, known, reviewer)
    added = review.add(exchange.not_yet_said(entries, review.log.snapshot()))
    values = {"judgments": len(entries), "new": added, "known": len(entries) - added}
    if options.as_json:
        emit(values)
        return
    out.print(f"  {added:,} judgments from {path}, {values['known']:,} were there already")
    out.print("  → nearer run   (check takes in what was judged)")


@app.command()
@with_options("force")
def export(
    options: Options,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    kind: Format = "csv",
) -> None:
    """Write judgments, or for Argilla and Label Studio the pairs to judge with what was said so far.

    Example: nearer review export pairs.json --format label-studio
    """
    from nearer.cli.show import out
    from nearer.review import exchange

    review = _opened(options, choose=True)
    told = exchange.Told(exchange.project_name(review), exchange.texts_of(review))
    count = exchange.export(path, kind, review.log.judgments, review.pairs, told)
    if options.as_json:
        emit({"path": str(path), "records": count})
    else:
        out.print(f"  {count:,} records in {path}")
