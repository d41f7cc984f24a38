"""`nearer monitor`: is it still good?  Once, from cron, or for ever."""

from __future__ import annotations

import time
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from nearer.cli.shared import Options, emit, with_options

if TYPE_CHECKING:
    from nearer.live.monitor.watch import Report
    from nearer.workspace import Workspace

_TIMEOUT = 10.0  # seconds a webhook may take


@with_options("force")
def monitor(
    options: Options,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="DATE",
            formats=["%Y-%m-%d"],
            help="Judge every day from DATE on (default: the newest).",
        ),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Look for ever, so often; a day is judged as a whole once it is over.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Post the report there when an alert fires (monitor.webhook)."
        ),
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 when an alert fires.")] = False,
) -> None:
    """Is it still good?  Quality, drift, freshness and health out of the traffic log; an alert says what to do.

    Example: nearer monitor --gate
    """
    workspace = options.workspace()
    address = webhook or workspace.config.monitor.webhook
    if address:
        _checked(address)
    day = since.date() if since else None
    while True:
        reports = _look(workspace, day, watching=watch is not None)
        for report in reports:
            if options.as_json or report.alerts or not options.quiet:
                _show(report, options.as_json)
        if address and reports[-1].alerts:
            _post(address, reports[-1])
        if gate and any(report.alerts for report in reports):
            raise typer.Exit(1)
        if watch is None:
            return
        day = None
        time.sleep(watch)


def _look(workspace: Workspace, since: date | None, *, watching: bool) -> list[Report]:
    from nearer.live.index.generations import Generations
    from nearer.live.monitor.watch import look

    return look(Generations(workspace.root, workspace.config), since, watching=watching)


def _show(report: Report, as_json: bool) -> None:
    from nearer.cli.show import print_monitor

    if as_json:
        emit(report.as_dict())
    else:
        print_monitor(report)


def _checked(address: str) -> None:
    from urllib.parse import urlsplit

    from nearer.errors import ConfigError

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "not an http or https address", where="monitor.webhook", next_step="give https://…"
        )


def _post(address: str, report: Report) -> None:
    """Send the report.  A webhook's path and query are often its secret: only the host is ever named."""
    import json
    import urllib.request
    from http.client import HTTPException
    from urllib.parse import urlsplit

    from nearer import progress

    body = json.dumps(report.as_dict(), ensure_ascii=False, default=str).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "nearer"}
    request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310 - see _checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310
            pass
    except (OSError, HTTPException, ValueError) as error:
        progress.warn(
            f"the webhook at {urlsplit(address).hostname} did not take the report ({type(error).__name__})"
        )
