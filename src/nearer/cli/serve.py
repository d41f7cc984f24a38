"""`nearer serve`, `nearer shadow …` and `nearer log …`: what happens with real traffic."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nearer.cli.command import Id, Told, Who, command_of
from nearer.cli.shared import HERE, ConfigPath, Overrides, boundary, open_workspace

shadow = typer.Typer(
    help="Try a generation on live traffic before everybody gets it.", no_args_is_help=True
)
log = typer.Typer(
    help="The traffic log: import it from other systems, or draw clicks out of it.",
    no_args_is_help=True,
)


def serve(
    config: ConfigPath = HERE,
    overrides: Overrides = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: serve.host, loopback).")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port (default: serve.port).")] = None,
) -> None:
    """Search over HTTP with the active generation and the pipeline that was judged; /dashboard shows it.

    NEARER_ADMIN_TOKEN lets its holder cut over and roll back; NEARER_SEARCH_TOKEN, when set, is needed to search.

    Example: NEARER_ADMIN_TOKEN=$(openssl rand -hex 16) nearer serve
    """
    with boundary(False, False):
        from nearer.live.index.generations import Generations
        from nearer.live.web.access import Tokens
        from nearer.live.web.service import run

        more = [
            f"serve.{name}={value}"
            for name, value in (("host", host), ("port", port))
            if value is not None
        ]
        workspace = open_workspace(config, [*(overrides or ()), *more], None)
        tokens = Tokens(
            os.environ.get("NEARER_ADMIN_TOKEN") or None,
            os.environ.get("NEARER_SEARCH_TOKEN") or None,
        )
        run(Generations(workspace.root, workspace.config), tokens)


@command_of(shadow)
def start(
    generations: Any,
    generation: Id,
    mode: Annotated[
        Literal["shadow", "interleave", "canary"],
        typer.Option(
            help="shadow: out of sight; interleave: its results among the live ones; canary: alone, for some users."
        ),
    ] = "shadow",
    share: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Of the queries (canary: of the users).")
    ] = 0.1,
    who: Who = None,
) -> Told:
    """Begin; a running service follows within a second, and stops it by itself when it does harm.

    Example: nearer shadow start 1a2b3c4d-1 --share 0.2
    """
    made = generations.start_rollout(generation, mode, share, who=who)
    told = {
        "generation": made.generation,
        "mode": made.mode,
        "share": made.share,
        "since": made.since,
    }
    return (
        told,
        f"  {mode} of {generation} on {share:.1%} of the {'users' if mode == 'canary' else 'queries'}\n  → nearer shadow report",
    )


@command_of(shadow)
def stop(
    generations: Any,
    why: Annotated[str | None, typer.Option(metavar="WHY", help="For the history.")] = None,
    who: Who = None,
) -> Told:
    """End what is tried.

    Example: nearer shadow stop --why "enough seen"
    """
    stopped = generations.stop_rollout(why=why, who=who)
    return {
        "stopped": stopped
    }, f"  {stopped} is tried no longer" if stopped else "  nothing is tried"


@command_of(shadow)
def report(
    generations: Any,
    generation: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The candidate (default: what is tried).")
    ] = None,
) -> Told:
    """Agreement, latency, empty answers and judged quality of a candidate on the queries of the traffic log.

    Writes shadow/ID.json, which a cut-over asks for when index.require_shadow is set, and puts the
    biggest disagreements into review/queue.jsonl.

    Example: nearer shadow report
    """
    from datetime import UTC, datetime

    from nearer.errors import StoreError
    from nearer.live.rollout.guards import guard
    from nearer.live.rollout.shadow import write_report
    from nearer.live.traffic.log import read_traffic

    running, active = generations.rollout(), generations.pointer().id
    chosen = generation or (running.generation if running else None)
    if chosen is None or active is None:
        raise StoreError(
            "nothing is tried",
            where=str(generations.folder),
            next_step="nearer shadow start ID, or nearer shadow report ID",
        )
    generations.path(chosen)
    requests = read_traffic(generations.root / "traffic")
    if running and running.generation == chosen and running.mode != "shadow":
        found = guard(requests, running, generations.config.shadow, datetime.now(UTC))
        lines = [
            f"  {row['guard']:<18}{row['candidate']:.3f} against {row['live']:.3f} live, p {row['p_worse']:.3f}"
            for row in found["rows"]
        ]
        return {"generation": chosen, "mode": running.mode, **found}, "\n".join(
            [*lines, f"  harm: {found['harm'] or 'none shown'}"]
        )
    told = write_report(generations, chosen, requests, active)
    return told, _told(told)


@command_of(shadow)
def replay(
    generations: Any,
    generation: Id,
    against: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The other side (default: the active generation)."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Queries, the latest ones.")] = None,
) -> Told:
    """Ask the queries of the traffic log again, of any two generations, and report as a shadow does.

    Example: nearer shadow replay 1a2b3c4d-1 --limit 2000
    """
    from nearer.errors import StoreError
    from nearer.live.rollout.replay import replay_log

    other = against or generations.pointer().id
    if other is None:
        raise StoreError(
            "no generation is active",
            where=str(generations.folder),
            next_step="nearer shadow replay ID --against ID",
        )
    told = replay_log(generations, generation, other, limit)
    return told, _told(told)


def _told(record: dict[str, Any]) -> str:
    lines = [
        f"  {record['candidate']} against {record['live']}: {record['verdict']} ({'; '.join(record['reasons'])})"
    ]
    names = {
        "overlap": "results in common",
        "rbo": "rank-biased overlap",
        "top1_changed": "another first result",
    }
    for name, one in record.get("agreement", {}).items():
        lines.append(
            f"  {names[name]:<22}{one['mean']:.3f}  ({one['ci'][0]:.3f} to {one['ci'][1]:.3f})"
        )
    if "latency_ms" in record:
        live, own = record["latency_ms"]["live"], record["latency_ms"]["candidate"]
        aside = (
            ""
            if record["timed"]
            else "; a shadow gives way to users: time it with nearer shadow replay"
        )
        lines.append(
            f"  {'p50 / p95, ms':<22}{own['p50']:.1f} / {own['p95']:.1f}, live {live['p50']:.1f} / {live['p95']:.1f}{aside}"
        )
        lines.append(
            f"  {'empty':<22}{record['empty']['candidate']}, live {record['empty']['live']}"
        )
    if exposed := record.get("exposure"):
        for name, before in exposed["live"].items():
            after = exposed["candidate"].get(name)
            if after is not None:
                lines.append(
                    f"  {name:<22}{after:.3f}, live {before:.3f} ({exposed['requests']} answers to /similar)"
                )
    if judged := record.get("judged"):
        ci = f"{judged['ci'][0]:+.3f} to {judged['ci'][1]:+.3f}"
        lines.append(
            f"  {judged['measure']:<22}{judged['live']:.3f} → {judged['candidate']:.3f} ({ci}) on {judged['queries']} judged queries"
        )
    if record.get("queued"):
        lines.append(f"  {record['queued']} disagreements wait in review/queue.jsonl")
    return "\n".join(lines)


@command_of(log, name="import")
def import_(
    generations: Any,
    queries: Annotated[Path, typer.Argument(help="Rows of results, or ubi_queries.")],
    events: Annotated[Path | None, typer.Option(help="ubi_events.")] = None,
    generation: Annotated[str, typer.Option(help="What answered, for the log.")] = "imported",
) -> Told:
    """Put the log of another system into traffic/: Elasticsearch and OpenSearch (UBI), or a table of results.

    Read are CSV, TSV, JSON lines and Parquet, also compressed. A table needs columns time, query and doc_id; rank,
    request_id, clicked, user and latency_ms are taken where they are. Events that cannot be used are left out and counted.

    Example: nearer log import ubi_queries.jsonl --events ubi_events.jsonl
    """
    import json
    from collections import Counter

    from nearer.live.traffic.imports import read_log
    from nearer.live.traffic.log import append_whole

    skipped = Counter[str]()
    lines = read_log(queries, events, generation, skipped)
    days: dict[str, list[bytes]] = {}
    count = {"requests": 0, "feedback": 0}
    for (
        line
    ) in lines:  # all of it is read before anything is written: a bad line leaves no half import
        count["requests" if "query" in line else "feedback"] += 1
        days.setdefault(line["time"][:10], []).append(
            json.dumps(line, ensure_ascii=False).encode() + b"\n"
        )
    for day, texts in days.items():
        path = generations.root / "traffic" / f"{day}.jsonl"
        there = (
            set(path.read_bytes().splitlines(keepends=True)) if path.exists() else set()
        )  # an export that overlaps adds what is new
        if new := [text for text in texts if text not in there]:
            append_whole(path, b"".join(new))
    told = f"  {count['requests']:,} requests and {count['feedback']:,} lines of feedback on {len(days)} days"
    reasons = [f"\n  {n:,} {why}" for why, n in skipped.items()]
    return {**count, "days": sorted(days), "skipped": dict(skipped)}, told + "".join(reasons)


@command_of(log)
def clicks(
    generations: Any,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("clicks.jsonl"),
) -> Told:
    """Write requests with their clicks as one click log, which data.clicks takes.

    Example: nearer log clicks --out clicks.jsonl
    """
    from nearer.files import write_jsonl
    from nearer.live.traffic.log import read_traffic

    def lines() -> Any:
        for one in read_traffic(generations.root / "traffic"):
            if one.query and one.results:
                session = {"session": one.user} if one.user else {}
                yield (
                    one.as_dict()
                    | session
                    | {"clicks": [f.doc_id for f in one.feedback if f.kind == "click"]}
                )

    count = write_jsonl(out, lines())
    return {
        "path": str(out),
        "requests": count,
    }, f"  {count:,} requests in {out}\n  → nearer init DIR --corpus … --clicks {out}"
