"""report.html: one file, no network, no script needed, everything from data escaped.

`render` turns the parsed files of a run into a page.  A section whose file is missing is left out
or says so in one line.  The look is in style.css, the order of things in report.html.j2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nearer.report import charts
from nearer.report import content as c
from nearer.report.content import Json, ReportData, maps, num, obj, pair, text

MAX_SLICES, MAX_EXAMPLES, MAX_RANKED = 24, 20, 10

# Details are opened before printing where the browser cannot do it by style alone; nothing else needs script.
SCRIPT = (
    "addEventListener('beforeprint',()=>document.querySelectorAll('details:not([open])').forEach(d=>{d.open=true;d.dataset.p=1}));"
    "addEventListener('afterprint',()=>document.querySelectorAll('details[data-p]').forEach(d=>{d.open=false;delete d.dataset.p}));"
)

GLOSSARY = (
    (
        "nDCG@10",
        "How good the first ten results are: 1 when the relevant documents stand first, best grade first; less the further down they are.",
    ),
    ("R@k", "Recall: share of the relevant documents that are among the first k."),
    ("P@k", "Precision: share of the first k that is relevant."),
    ("RR", "Reciprocal rank: 1 ÷ the rank of the first relevant document."),
    ("AP", "Average precision: precision averaged over the ranks of the relevant documents."),
    ("Success@k", "1 when at least one relevant document is among the first k."),
    (
        "Judged@k",
        "Share of the first k that somebody has judged. Unjudged results count as wrong, so read low or unequal shares with care.",
    ),
    ("Query", "The unit of all statistics: systems are compared query by query."),
    ("Today's system", "What users get now; every candidate is compared with it."),
    ("Minimum useful gain", "Declared before the test was opened; a smaller gain is not worth a change, however certain it is."),
    ("p", "How often so large a difference would appear if the systems were alike: their scores are swapped at random, query by query."),
    ("Holm p", "p made larger to allow for the number of slices looked at. Slices are for finding out, not for the verdict."),
    ("Guardrail", "What must not get worse. Absence of a visible drop is no evidence of safety, so too few queries give inconclusive."),
    (
        "Margin (of a query)",
        "Similarity of the best relevant document minus that of the best irrelevant one. Above 0 the right one is nearer.",
    ),
    ("Negative flip", "A query that today's system answers and the candidate does not."),
    ("Slice", "A group of queries that share a tag, or a feature such as length."),
)


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("nearer", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {"fixed": c.fixed, "signed": c.signed, "pv": c.p_value, "whole": c.whole, "t": text, "words": c.words}
    env.globals["status"] = lambda value: c.STATUS.get(str(value), "none")
    return env


def render(data: ReportData | Json) -> str:
    """The whole page as one string of HTML; see `ReportData` for what may be given."""
    data = ReportData.of(data)
    style = files("nearer.report").joinpath("style.css").read_text(encoding="utf-8")
    view = {
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(SCRIPT),  # noqa: S704 - our own constant
        "script_hash": base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
        "run": text(data.run, 80),
        "glossary": GLOSSARY,
        "level": c.level(data.decision),
        "primary": c.primary(data.decision),
        "verdict": verdict(data.decision),
        "checklist": [
            {key: text(row.get(key), 600) for key in ("question", "answer", "evidence")} for row in maps(data.decision.get("checklist"))
        ],
        "candidates": candidates(data.decision, data.evaluation),
        "slices": slices(data.decision),
        "margins": margins(data.margins),
        "training": training(data),
        "guardrails": guardrails(data.decision),
        "examples": examples(data.examples, data.decision),
        "data": findings(data.check),
        "cost": c.facts(data.decision.get("cost")),
        "repeat": repeat(data),
    }
    return _environment().get_template("report.html.j2").render(view)


def known(rows: Any, *keys: str) -> list[Json]:
    """Rows of data with exactly these keys, so that the template meets None and never a missing name."""
    return [{key: row.get(key) for key in keys} for row in maps(rows)]


def verdict(decision: Json) -> Json:
    """The sentence, the badge, the reasons, and the figures that stand beside them."""
    word, tone = c.VERDICTS.get(str(decision.get("verdict")), ("No verdict", "none"))
    head = c.headline(decision)
    shown = text(head.get("candidate")) or text(decision.get("recommended"))
    measure = text(head.get("measure"), 40) or c.primary(decision)
    now = num(c.mean(c.candidate(decision, name=text(head.get("baseline"))) or c.candidate(decision, role="today"), measure))
    then = num(c.mean(c.candidate(decision, name=shown), measure))
    figures: list[tuple[str, str, str]] = []
    if now is not None and then is not None and head:
        figures.append((f"{c.fixed(now)} → {c.fixed(then)}", f"{measure}, today → {text(shown, 80)}", ""))
    elif then is not None:
        figures.append((c.fixed(then), f"{measure}, {text(shown, 80)}", ""))
    if head:
        interval, note = pair(head.get("ci")), f"minimum useful gain {c.fixed(decision.get('min_gain'))}"
        label = f"gain, {c.level(decision)}% interval {c.signed(interval[0])} to {c.signed(interval[1])}" if interval else "gain"
        figures.append((c.signed(head.get("delta")), label, note if num(decision.get("min_gain")) is not None else ""))
        if num(head.get("wins")) is not None:
            counts = " · ".join(c.whole(head.get(key)) for key in ("wins", "ties", "losses"))
            figures.append(
                (counts, "queries better · same · worse", f"p {c.p_value(head.get('p'))}" if num(head.get("p")) is not None else "")
            )
    rails = [str(row.get("status")) for row in maps(decision.get("guardrails"))]
    if rails:
        figures.append((f"{rails.count('pass')} of {len(rails)}", "guardrails passed", ""))
    sign_off = decision.get("sign_off")
    return {
        "word": word,
        "tone": tone,
        "sentence": text(decision.get("sentence"), 600) or (f"{word}." if tone != "none" else "This run has not been decided yet."),
        "reasons": [text(reason, 800) for reason in decision.get("reasons") or () if text(reason)]
        if isinstance(decision.get("reasons"), list | tuple)
        else [],
        "figures": figures,
        "n_queries": num(decision.get("n_queries")),
        "test_looks": num(decision.get("test_looks")),
        "seeds": num(decision.get("seeds")),
        "sign_off": " · ".join(f"{label}: {value}" for label, value in c.facts(sign_off))
        if isinstance(sign_off, Mapping)
        else text(sign_off),
    }


def _both(draw: Any, marks: Sequence[charts.Mark], **options: Any) -> Markup:
    """A chart drawn twice, for wide and for narrow windows; the style sheet shows one."""
    return Markup("").join(chart for width in (charts.WIDE, charts.NARROW) if (chart := draw(marks, width=width, **options)))


def candidates(decision: Json, evaluation: Json) -> Json:
    rows, measure, names = maps(decision.get("candidates")), c.primary(decision), c.measure_names(decision)
    recommended = text(decision.get("recommended"))
    marks, table = [], []
    today = c.mean(c.candidate(decision, role="today"), measure)
    for row in rows:
        name, value = text(row.get("name"), 80), c.mean(row, measure)
        tone = "accent" if recommended and text(row.get("name")) == recommended else "today" if row.get("role") == "today" else "plain"
        interval = pair(obj(obj(row.get("measures")).get(measure)).get("ci"))
        if value is not None:
            low, high = interval or (None, None)
            note = c.fixed(value) + (f" [{c.fixed(low)}, {c.fixed(high)}]" if interval else "")
            marks.append(charts.Mark(name, value, low, high, note, tone))
        cells = []
        for each in names:
            ci = pair(obj(obj(row.get("measures")).get(each)).get("ci"))
            cells.append((c.fixed(c.mean(row, each)), f"{c.fixed(ci[0])} – {c.fixed(ci[1])}" if ci else ""))
        latency, cost = obj(row.get("latency")), obj(row.get("cost"))
        table.append(
            {
                "name": name,
                "tone": tone,
                "recommended": bool(recommended) and text(row.get("name")) == recommended,
                "today": row.get("role") == "today",
                "model": text(row.get("model"), 120).rstrip("/").rsplit("/", 1)[-1],
                "cells": cells,
                "latency": f"{c.fixed(latency.get('p50_ms'), 1)} / {c.fixed(latency.get('p95_ms'), 1)}" if latency else c.DASH,
                "index": c.size(cost.get("index_bytes")),
                "build": c.duration(cost.get("build_seconds")) if num(cost.get("build_seconds")) is not None else "",
            }
        )
    marks.sort(key=lambda mark: -mark.value)
    chart = _both(
        charts.whiskers,
        marks,
        title=f"{measure} of every candidate on the test queries",
        reference=today,
        reference_label="today" if today else "",
    )
    systems = maps(evaluation.get("systems"))
    on_dev = [name for name in names if any(c.mean(row, name) is not None for row in systems)]
    dev = [{"name": text(row.get("name"), 80), "cells": [c.fixed(c.mean(row, m)) for m in on_dev]} for row in systems]
    return {
        "chart": chart,
        "measures": names,
        "rows": table,
        "comparisons": [
            row
            for row in known(decision.get("comparisons"), "candidate", "baseline", "measure", "delta", "ci", "p", "wins", "ties", "losses")
            if num(row["delta"]) is not None
        ],
        "dev": dev,
        "dev_measures": on_dev,
        "dev_n": num(evaluation.get("n_queries")),
    }


def slices(decision: Json) -> Json:
    """Slices by gain, largest first; the chart keeps the ends, the table everything."""
    keys = ("slice", "n", "baseline", "candidate", "delta", "ci", "p", "p_holm")
    rows = c.by_number(known(decision.get("slices"), *keys), "delta")

    widest = max((len(c.whole(row.get("n"))) for row in [*rows, c.tuned(decision)]), default=1)

    def mark(label: str, row: Json, tone: str = "") -> charts.Mark:
        interval = pair(row.get("ci"))
        low, high = interval or (None, None)
        verdict = "plain" if low is None or high is None else "good" if low > 0 else "bad" if high < 0 else "plain"
        size = f"n {c.whole(row.get('n')):\u2007>{widest}}" if num(row.get("n")) is not None else ""  # figure spaces: n stands in a column
        return charts.Mark(
            label, num(row.get("delta")) or 0.0, low, high, "  ".join(filter(None, (c.signed(row.get("delta")), size))), tone or verdict
        )

    half, head = MAX_SLICES // 2, c.tuned(decision)
    shown = rows if len(rows) <= MAX_SLICES else [*rows[:half], *rows[-half:]]
    marks = [mark(text(row.get("slice"), 80), row) for row in shown]
    if head and marks:
        marks.insert(0, mark(c.ALL_QUERIES, head, "total"))
    title = f"Change of {c.primary(decision)} from today's system to the candidate, per slice"
    chart = _both(charts.whiskers, marks, title=title, reference=0.0, reference_label="no change", sign=True)
    return {"chart": chart, "rows": rows, "hidden": len(rows) - len(shown), "candidate": text(head.get("candidate"), 80)}


def guardrails(decision: Json) -> list[Json]:
    """Rows of the table; latency is a ratio with a ceiling, all others are changes with an allowed drop."""
    rows: list[Json] = []
    for row in known(decision.get("guardrails"), "name", "status", "delta", "lower_bound", "margin", "n", "queries_needed"):
        ratio = text(row["name"]).startswith("latency")
        rows.append(
            {
                **row,
                "delta": f"× {c.fixed(row['delta'], 2)}" if ratio else c.signed(row["delta"]),
                "margin": f"× {c.fixed(row['margin'], 2)} at most"
                if ratio
                else f"−{c.fixed(row['margin'])}"
                if num(row["margin"])
                else c.fixed(row["margin"]),
                "lower_bound": c.signed(row["lower_bound"]),
            }
        )
    return rows


def margins(data: Json) -> Json | None:
    """The two histograms with shares and means, or None without usable counts."""

    def numbers(key: str) -> list[float]:
        value = data.get(key)
        return [number for item in value if (number := num(item)) is not None] if isinstance(value, list | tuple) else []

    edges, before, after = numbers("bins"), numbers("before"), numbers("after")
    means = num(data.get("before_mean")), num(data.get("after_mean"))
    drawn = [charts.margins(edges, before, after, means, width=width) for width in (charts.WIDE, charts.NARROW)]
    if None in drawn:
        return None
    shares = num(data.get("share_positive_before")), num(data.get("share_positive_after"))
    places = 2 if edges[1] - edges[0] >= 0.02 else 3
    spans = [f"{c.signed(a, places)} to {c.signed(b, places)}" for a, b in pairwise(edges)]
    table = {**data, "bins": None, "before": None, "after": None}
    return {
        "chart": Markup("").join(chart for chart in drawn if chart),
        "shares": [f"{share:.0%}" for share in shares if share is not None and 0 <= share <= 1],
        "rows": [row for row in zip(spans, before, after, strict=True) if row[1] or row[2]],
        "facts": c.facts({key: value for key, value in table.items() if num(value) is not None}),
    }


def training(data: ReportData) -> Json | None:
    """Curves of the loss and of the dev measure, what came of it, and where the examples came from."""
    if not (data.history or data.training or data.mining):
        return None
    keys = dict.fromkeys(str(key) for line in data.history for key in line if "@" in str(key) or key in ("AP", "RR"))
    wanted = c.primary(data.decision)
    measure = wanted if wanted in keys else next(iter(keys), "")

    def points(key: str) -> list[charts.Point]:
        pairs = ((num(line.get("step")), num(line.get(key))) for line in data.history)
        return [(step, value) for step, value in pairs if step is not None and value is not None]

    summary = {key: value for key, value in data.training.items() if key not in ("settings", "dev")}
    dev = obj(data.training.get("dev"))
    if num(dev.get("before")) is not None and num(dev.get("after")) is not None:
        summary[f"{measure or 'measure'} on dev"] = f"{c.fixed(dev['before'])} → {c.fixed(dev['after'])}"
    if num(dev.get("documents")) is not None:
        summary["documents searched on dev"] = dev["documents"]  # a pool, where the whole corpus would take too long
    rest = {key: value for key, value in data.mining.items() if key != "dropped"}
    return {
        "loss": charts.curve(points("loss"), title="Training loss by step", smooth=True) or "",
        "dev": charts.curve(points(measure), title=f"{measure} on dev by step", best=num(data.training.get("best_step")), base=True) or "",
        "measure": measure,
        "table": [(int(step), c.fixed(value)) for step, value in points(measure)][:60],
        "facts": c.facts(summary),
        "mining": c.facts(rest),
        "dropped": [
            (c.words(str(key)), c.whole(value)) for key, value in obj(data.mining.get("dropped")).items() if num(value) is not None
        ],
    }


def examples(data: Json, decision: Json) -> Json | None:
    """Wins and losses with their ranked lists, and the queries that the candidate no longer answers."""
    groups = []
    for key, title in (("wins", "Wins"), ("losses", "Losses")):
        rows = maps(data.get(key))
        groups.append(
            {"key": key, "title": title, "rows": [_example(row) for row in rows[:MAX_EXAMPLES]], "more": max(0, len(rows) - MAX_EXAMPLES)}
        )
    flips = [(text(row.get("query_id"), 120), text(row.get("text"), 300)) for row in maps(decision.get("negative_flips"))]
    if not flips and not any(group["rows"] for group in groups):
        return None
    return {"groups": groups, "flips": flips[:50], "n_flips": len(flips)}


def _example(row: Json) -> Json:
    relevant = {text(doc.get("id"), 200): text(doc.get("title"), 200) for doc in maps(row.get("relevant"))}
    tops = [maps(row.get(key))[:MAX_RANKED] for key in ("before_top", "after_top")]
    ranks = [{text(doc.get("id"), 200): rank for rank, doc in enumerate(top, start=1)} for top in tops]

    def place(which: int, doc: str) -> str:
        return str(ranks[which][doc]) if doc in ranks[which] else f"beyond {len(tops[which])}" if tops[which] else "not found"

    def entry(which: int, rank: int, doc: Json) -> Json:
        name = text(doc.get("id"), 200)
        other, hit = ranks[1 - which].get(name), doc.get("relevant") is True or name in relevant
        if which == 0:
            change = ("gone", "gone") if other is None else ("", "")
        else:
            moved = 0 if other is None else other - rank
            change = (
                ("new", "new") if other is None else ("up", f"▲ {moved}") if moved > 0 else ("down", f"▼ {-moved}") if moved else ("", "=")
            )
        return {
            "rank": rank,
            "id": name,
            "title": text(doc.get("title"), 200),
            "relevant": hit,
            "tone": change[0] if hit else "",  # an irrelevant document that moves down is no loss
            "change": change[1],
        }

    columns = [
        ("Before", [entry(0, i, doc) for i, doc in enumerate(tops[0], 1)]),
        ("After", [entry(1, i, doc) for i, doc in enumerate(tops[1], 1)]),
    ]
    return {
        "id": text(row.get("query_id"), 120),
        "text": text(row.get("text"), 600) or "(no text)",
        "before": c.fixed(row.get("before")),
        "after": c.fixed(row.get("after")),
        "relevant": [
            {"id": doc, "title": title, "before": place(0, doc), "after": place(1, doc)} for doc, title in list(relevant.items())[:8]
        ],
        "columns": columns,
    }


def findings(check: Json) -> Json | None:
    """What `check` found, fatal findings first."""
    if not check:
        return None
    rows = []
    for row in sorted(maps(check.get("findings")), key=lambda row: row.get("fatal") is not True):
        shown = row.get("examples")
        rows.append(
            {
                "code": text(row.get("code"), 60),
                "message": text(row.get("message"), 600),
                "fatal": row.get("fatal") is True,
                "count": num(row.get("count")),
                "where": text(row.get("where"), 300),
                "next": text(row.get("next"), 300),
                "examples": [text(item, 300) for item in shown[:10]] if isinstance(shown, list | tuple) else [],
            }
        )
    parts = [
        (title, c.facts(check.get(key)))
        for title, key in (("Counts", "counts"), ("Lengths", "lengths"), ("Power", "power"), ("Split", "split"))
    ]
    return {"rows": rows, "parts": [(title, rows) for title, rows in parts if rows]}


def repeat(data: ReportData) -> Json:
    """Commands, versions, seeds, settings and hashes."""
    steps = []
    for name, record in data.steps.items():
        hashes: list[tuple[str, str]] = []

        def walk(node: Json, path: str, found: list[tuple[str, str]]) -> None:
            for key, value in node.items():
                here = f"{path}{text(key, 120)}"
                if isinstance(value, Mapping):
                    walk(value, f"{here} / ", found)
                else:
                    found.append((here, c.blank(text(value, 120))))

        walk(obj(obj(record).get("inputs")), "", hashes)
        steps.append(
            {
                "name": text(name, 40),
                "version": text(obj(record).get("version"), 20) or c.DASH,
                "finished": text(obj(record).get("finished"), 40) or c.DASH,
                "seconds": c.duration(obj(record).get("seconds")),
                "fingerprint": text(obj(record).get("fingerprint"), 80),
                "inputs": hashes[:40],
            }
        )
    return {
        "command": command(data),
        "versions": [(text(key, 60), text(value, 60)) for key, value in data.versions.items()],
        "seeds": list(c.seeds(data).items()),
        "settings": c.settings(data.steps),
        "steps": steps,
    }


def command(data: ReportData) -> str:
    """What to type to do it all again."""
    return f"nearer run --run {text(data.run, 80)}" if data.run and data.run != "default" else "nearer run"
