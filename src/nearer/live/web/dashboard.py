"""The dashboard: what answers and why, how well, what is tried beside it, and what to do about alerts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from nearer.errors import NearerError
from nearer.files import read_json
from nearer.live.index.generations import Generations
from nearer.live.index.manifest import READY
from nearer.live.index.searcher import judged
from nearer.live.monitor.series import Row, Series
from nearer.report.charts import timeline
from nearer.report.values import model_name

_DAYS = 90
_HISTORY = 12
_CHARTS = 8
_FIRST = (
    "quality",
    "latency",
    "query_",
    "scores",
    "click",
    "empty",
    "documents",
    "new_",
)  # series in the order of interest

SCRIPT = """
const dialog = document.querySelector("dialog"), form = dialog.querySelector("form"), told = dialog.querySelector("output");
let action = null;
document.addEventListener("click", event => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  action = button.dataset;
  dialog.querySelector("h2").textContent = button.dataset.asks;
  dialog.querySelector("[data-label]").textContent = button.dataset.action === "cutover"
    ? "Why no decision is needed (empty: one must ship it)" : "Why, for the history";
  told.textContent = "";
  dialog.showModal();
});
dialog.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
form.addEventListener("submit", async event => {
  event.preventDefault();
  const why = form.why.value.trim() || undefined;
  const body = action.action === "cutover" ? { generation: action.generation, override: why } : { why };
  told.textContent = "…";
  try {
    const answer = await fetch("/admin/" + action.action, {
      method: "POST", body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", Authorization: "Bearer " + form.token.value },
    });
    const value = await answer.json();
    told.textContent = answer.ok ? value.active + " is active" : [value.what, value.next].filter(Boolean).join(" → ");
    if (answer.ok) { form.token.value = ""; await refresh(); setTimeout(() => dialog.close(), 1200); }
  } catch { told.textContent = "the service does not answer"; }
});
async function refresh() {
  const stale = document.getElementById("stale");
  try {
    const answer = await fetch("/dashboard", { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = [...document.querySelectorAll("#live details[open] > summary")].map(one => one.textContent);
    document.getElementById("live").replaceWith(page.getElementById("live"));
    for (const one of document.querySelectorAll("#live details > summary")) one.parentElement.open = open.includes(one.textContent);
    stale.hidden = true;
  } catch { stale.hidden = false; }
}
setInterval(() => { if (!document.hidden && !dialog.open) refresh(); }, 5000);
"""


def dashboard_page(generations: Generations, tried: Mapping[str, Any]) -> tuple[str, str]:
    """The page as one string of HTML, and its content security policy.  `tried` is what `Rollouts.told` says."""
    root, pointer, manifests = generations.root, generations.pointer(), generations.manifests()
    active = next((one for one in manifests if one.id == pointer.id), None)
    today = datetime.now(UTC).date()
    history = list(reversed(generations.history()))
    moves = [line for line in history if line["action"] in ("cutover", "rollback")]
    series, records = (
        Series(root / "monitor" / "series.db"),
        [read_json(path) for path in sorted((root / "shadow").glob("*.json"))],
    )
    view = {
        "active": active,
        "pipeline": _pipeline(generations, active) if active else "",
        "since": next((line for line in moves if line["to"] == pointer.id), None),
        "previous": pointer.previous,
        "ready": READY,
        "generations": list(reversed(manifests)),
        "history": history[:_HISTORY],
        "alerts": list(reversed(series.alerts((today - timedelta(days=1)).isoformat()))),
        "charts": _charts(series, today, {line["time"][:10] for line in moves}),
        "slices": _slices(series),
        "records": records,
        "tried": tried,
        "checked": _last(root / "monitor" / "report.json"),
        "now": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "style": Markup(_style()),  # noqa: S704 - our own files
        "script": Markup(SCRIPT),  # noqa: S704 - our own constant
    }
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _environment().get_template("dashboard.html.j2").render(view), policy


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("nearer.live", "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["figure"] = lambda value: (
        f"{value:.3f}" if isinstance(value, float) else "–" if value is None else f"{value:,}"
    )
    env.filters["model"] = model_name
    env.filters["when"] = lambda text: str(text)[:16].replace("T", " ")
    return env


@cache
def _style() -> str:
    return "".join(
        files(package).joinpath(name).read_text("utf-8")
        for package, name in (("nearer.report", "style.css"), ("nearer.live.web", "dashboard.css"))
    )


def _pipeline(generations: Generations, manifest: Any) -> str:
    try:
        return judged(generations, manifest)[0].label
    except NearerError as error:
        return error.what


def _charts(series: Series, today: date, moved: set[str]) -> list[dict[str, Any]]:
    """A line a series, those about all queries, with the cut-overs of the time shown."""
    since = (today - timedelta(days=_DAYS)).isoformat()
    lines: dict[str, list[Row]] = {}
    for row in series.read(since=since):
        if row.slice == "all" and row.value == row.value:
            lines.setdefault(row.name, []).append(row)
    first = {prefix: place for place, prefix in enumerate(_FIRST)}
    place = {
        name: next((at for prefix, at in first.items() if name.startswith(prefix)), len(first))
        for name in lines
    }
    moving = [
        name
        for name, rows in lines.items()
        if place[name] < len(first) or any(row.value for row in rows)
    ]
    chosen = sorted(moving, key=lambda name: (place[name], name))[:_CHARTS]
    drawn = []
    for name in chosen:
        points = sorted({row.time[:10]: row.value for row in lines[name]}.items())
        marks = sorted(day for day in moved if day >= points[0][0])
        drawn.append(
            {"name": name, "last": points[-1][1], "svg": timeline(points, title=name, marks=marks)}
        )
    return drawn


def _slices(series: Series) -> list[Row]:
    """The latest value of every series of a slice."""
    latest = {(row.name, row.slice): row for row in series.read() if row.slice != "all"}
    return [latest[key] for key in sorted(latest)][:60]


def _last(path: Path) -> str | None:
    return (
        datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if path.is_file()
        else None
    )
