"""report.html: one file, no network, no script needed, everything from data escaped.

`render` turns the parsed files of a run into a page.  A section whose file is missing is left out
or says so in one line.  The look is in style.css, the order of things in report.html.j2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup, escape

from nearer.report import charts
from nearer.report import content as c
from nearer.report.content import Json, ReportData, listed, maps, num, obj, pair, text

MAX_SLICES, MAX_EXAMPLES, MAX_RANKED = 24, 20, 10

# Details are opened before printing where the browser cannot do it by style alone; nothing else needs script.
SCRIPT = (
    "addEventListener('beforeprint',()=>document.querySelectorAll('details:not([open])').forEach(d=>{d.open=true;d.dataset.p=1}));"
    "addEventListener('afterprint',()=>document.querySelectorAll('details[data-p]').forEach(d=>{d.open=false;delete d.dataset.p}));"
)
# What the training section leaves out: shown elsewhere, or of no use to its readers.
_UNSHOWN = (
    "settings",
    "dev",
    "base_model",
    "seeds",
    "planned_steps",
    "fingerprint",
    "base_fingerprint",
)


@cache
def _environment() -> Environment:
    def shown(value: Any) -> Any:
        """Whatever the template prints, cut and without control characters; it is escaped afterwards."""
        return value if isinstance(value, Markup) else text(value, 800)

    env = Environment(
        loader=PackageLoader("nearer", "report"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=shown,
    )
    env.trim_blocks = env.lstrip_blocks = True
    env.filters |= {
        "fixed": c.fixed,
        "signed": c.signed,
        "pv": c.p_value,
        "whole": c.whole,
        "t": text,
        "size": c.size,
    }
    env.filters |= {"duration": c.duration, "listed": listed, "maps": maps, "model": c.model_name}
    env.filters |= {
        "words": c.words,
        "counted": c.counted,
        "share": lambda value: c.figure("share", value),
    }
    env.globals |= {
        "status": lambda value: c.STATUS.get(str(value), "none"),
        "change": lambda ci: c.span(ci, c.signed),
        "span": c.span,
    }
    return env


def render(data: ReportData) -> str:
    """The whole page as one string of HTML."""
    decision, check = data.decision, data.check
    style = files("nearer.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = [
        (title, c.facts(check.get(title.lower())))
        for title in ("Counts", "Lengths", "Power", "Split")
    ]
    steps = [
        {"name": name, **obj(record), "inputs": c.facts(c.blank(obj(record).get("inputs")), 40)}
        for name, record in data.steps.items()
    ]
    view = {
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(SCRIPT),  # noqa: S704 - our own constant
        "script_hash": base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
        "run": text(data.run, 80),
        "decision": decision,
        "level": c.level(decision),
        "primary": c.primary(decision),
        "verdict": verdict(decision),
        "diagnosis": data.diagnosis,
        "failures": failures(data.diagnosis),
        "fixes": fixes(data),
        "candidates": candidates(decision, data.evaluation),
        "slices": slices(decision),
        "margins": margins(data.margins),
        "training": training(data),
        "guardrails": guardrails(decision),
        "examples": examples(data.examples, decision),
        "check": check,
        "findings": sorted(
            maps(check.get("findings")), key=lambda row: row.get("fatal") is not True
        ),
        "parts": [(title, rows) for title, rows in parts if rows],
        "cost": c.facts(decision.get("cost")),
        "command": data.command,
        "versions": list(data.versions.items()),
        "seeds": list(c.seeds(data).items()),
        "steps": steps,
        "settings": escape(
            text(c.settings(data.steps), 100_000)
        ),  # Markup, so that it is not cut further
    }
    return _environment().get_template("report.html.j2").render(view)


def verdict(decision: Json) -> Json:
    """The sentence, the badge, and the figures that stand beside them."""
    word, tone = c.VERDICTS.get(str(decision.get("verdict")), ("No verdict", "none"))
    head, measure, recommended = (
        c.headline(decision),
        c.primary(decision),
        decision.get("recommended"),
    )
    figures: list[tuple[str, str, str]] = []
    if head:
        ends = (
            c.fixed(c.mean(c.candidate(decision, head[key]), measure))
            for key in ("baseline", "candidate")
        )
        figures.append((" → ".join(ends), f"{measure}, today → {text(head['candidate'], 80)}", ""))
        least = f"minimum useful gain {c.fixed(decision.get('min_gain'))}"
        figures.append(
            (
                c.signed(head["delta"]),
                f"gain, {c.level(decision)}% interval {c.span(head.get('ci'), c.signed)}",
                least,
            )
        )
        counts = " · ".join(c.whole(head.get(key)) for key in ("wins", "ties", "losses"))
        figures.append((counts, "queries better · same · worse", f"p {c.p_value(head.get('p'))}"))
    elif (value := c.mean(c.candidate(decision, recommended), measure)) is not None:
        figures.append((c.fixed(value), f"{measure}, {text(recommended, 80)}", ""))
    if rails := maps(decision.get("guardrails")):
        figures.append(
            (
                f"{sum(row.get('status') == 'pass' for row in rails)} of {len(rails)}",
                "guardrails passed",
                "",
            )
        )
    sign_off = decision.get("sign_off")
    signed = (
        " · ".join(f"{label}: {value}" for label, value in c.facts(sign_off))
        if isinstance(sign_off, Mapping)
        else text(sign_off)
    )
    return {
        "word": word,
        "tone": tone,
        "sentence": decision.get("sentence")
        or (f"{word}." if tone != "none" else "This run has not been decided yet."),
        "figures": figures,
        "sign_off": signed,
        **{key: num(decision.get(key)) for key in ("n_queries", "test_looks", "seeds")},
    }


def _both(draw: Any, *given: Any, **options: Any) -> Markup:
    """A chart drawn twice, for wide and for narrow windows; the style sheet shows one."""
    return Markup("").join(
        draw(*given, width=width, **options) or "" for width in (charts.WIDE, charts.NARROW)
    )


def _mark(label: Any, value: float, ci: Any, tone: str, show: Any = c.fixed) -> charts.Mark:
    low, high = pair(ci) or (None, None)
    note = show(value) + (f" [{show(low)}, {show(high)}]" if low is not None else "")
    return charts.Mark(text(label, 80), value, low, high, note, tone)


def failures(diagnosis: Json) -> Json | None:
    """The waterfall and its table."""
    rows, ceiling, tones = (
        c.causes(diagnosis),
        obj(diagnosis.get("fine_tuning_ceiling")),
        {"semantic": "accent", "unknown": "unknown"},
    )
    if not rows and num(diagnosis.get("n_failing_queries")) is None:
        return None
    whole, measure = sum(row["failures"] for row in rows), text(ceiling.get("measure"), 40)
    marks = [
        charts.Mark(
            "All failures", whole, note=f"today {c.fixed(ceiling.get('today'))}", tone="today"
        )
    ]
    marks += [
        charts.Mark(
            row["name"],
            row["failures"],
            note=c.fixed(row.get("measure")),
            tone=tones.get(row["cause"], ""),
        )
        for row in rows
    ]
    chart = _both(
        charts.waterfall,
        marks,
        title="Failures, and what each repair takes off them",
        heading=f"{measure} once repaired",
    )
    return {"lead": c.failing(diagnosis), "chart": chart, "measure": measure, "rows": rows}


def fixes(data: ReportData) -> Json | None:
    """The ladder's chart and rungs, and every trial."""
    ladder, rows, trials = data.fixes, c.rungs(data.fixes), maps(data.trials)
    lead, delta, causes = (
        c.climbed(ladder, c.level(data.decision)),
        obj(ladder.get("delta")),
        obj(ladder.get("failures_repaired")),
    )
    if not (lead or trials):
        return None
    tones = {"kept": "good", "not kept": "plain"}
    marks = [
        _mark(row["name"], row["gain"], row["ci"], tones[row["kept"]], c.signed)
        for row in rows
        if row["gain"] is not None
    ]
    if (gain := num(delta.get("mean"))) is not None and any(row["kept"] == "kept" for row in rows):
        marks.append(_mark("All that were kept", gain, delta.get("ci"), "total", c.signed))
    return {
        "lead": lead,
        "chart": _both(
            charts.whiskers,
            marks,
            title="Gain of each simpler fix",
            reference=0.0,
            reference_label="no change",
            sign=True,
        ),
        "measure": text(ladder.get("measure"), 40) or c.primary(data.decision),
        "rows": rows,
        "causes": [
            f"{c.words(name)} {c.whole(ends[0])} of {c.whole(ends[1])}"
            for name, n in causes.items()
            if (ends := pair(n))
        ],
        "trials": trials,
    }


def candidates(decision: Json, evaluation: Json) -> Json:
    """The chart, and for the tables: rows with their tone, the measures on test and on dev."""
    measure, names, recommended = (
        c.primary(decision),
        c.measure_names(decision),
        decision.get("recommended"),
    )
    rows = [
        {**row, "today": row.get("role") == "today"} for row in maps(decision.get("candidates"))
    ]
    stays = any(row["today"] and row.get("name") == recommended for row in rows)
    focus = obj(decision.get("compared")).get("candidate") if stays else recommended
    marks, reference = [], None
    for row in rows:
        row["tone"] = "today" if row["today"] else "accent" if row.get("name") == focus else "plain"
        if (value := c.mean(row, measure)) is None:
            continue
        marks.append(_mark(row.get("name"), value, row["measures"][measure].get("ci"), row["tone"]))
        reference = value if row["today"] else reference
    marks.sort(key=lambda mark: -mark.value)
    title = f"{measure} of every candidate on the test queries"
    systems = maps(evaluation.get("systems"))
    return {
        "chart": _both(
            charts.whiskers,
            marks,
            title=title,
            reference=reference,
            reference_label="today" if reference is not None else "",
        ),
        "measures": names,
        "rows": rows,
        "dev": systems,
        "dev_measures": [
            name for name in names if any(c.mean(row, name) is not None for row in systems)
        ],
        "dev_n": num(evaluation.get("n_queries")),
    }


def slices(decision: Json) -> Json:
    """Slices by gain, largest first; the chart keeps the ends, the table everything."""
    rows, head = c.by_number(maps(decision.get("slices")), "delta"), c.compared(decision)
    widest = max((len(c.whole(row.get("n"))) for row in [*rows, head]), default=1)

    def mark(label: str, row: Json, tone: str = "") -> charts.Mark:
        low, high = pair(row.get("ci")) or (None, None)
        tone = tone or (
            "good"
            if low is not None and low > 0
            else "bad"
            if high is not None and high < 0
            else "plain"
        )
        note = f"{c.signed(row['delta'])}  n {c.whole(row.get('n')):\u2007>{widest}}"  # figure spaces: n stands in a column
        return charts.Mark(text(label, 80), num(row["delta"]) or 0.0, low, high, note, tone)

    shown = (
        rows if len(rows) <= MAX_SLICES else [*rows[: MAX_SLICES // 2], *rows[-MAX_SLICES // 2 :]]
    )
    marks = [mark("All queries", head, "total")] if head and rows else []
    marks += [mark(row.get("slice", ""), row) for row in shown]
    title = f"Change of {c.primary(decision)} from today's system to the candidate, per slice"
    chart = _both(
        charts.whiskers, marks, title=title, reference=0.0, reference_label="no change", sign=True
    )
    return {
        "chart": chart,
        "rows": rows,
        "hidden": len(rows) - len(shown),
        "candidate": head.get("candidate"),
    }


def guardrails(decision: Json) -> list[Json]:
    """Rows of the table, what did not pass first; latency is a ratio with a ceiling, all others are changes with an allowed drop."""
    order = {"fail": 0, "inconclusive": 1}
    rows: list[Json] = []
    for row in sorted(
        maps(decision.get("guardrails")), key=lambda row: order.get(str(row.get("status")), 2)
    ):
        delta, margin = row.get("delta"), row.get("margin")
        if str(row.get("name")).startswith("latency"):
            shown = {"delta": f"× {c.fixed(delta, 2)}", "margin": f"× {c.fixed(margin, 2)} at most"}
        else:
            size = num(margin)
            shown = {
                "delta": c.signed(delta),
                "margin": c.signed(-size) if size else c.fixed(margin),
            }
        shown |= {
            "lower_bound": c.signed(row.get("lower_bound")),
            "needed": c.needed(row.get("queries_needed")),
        }
        rows.append(
            {"name": row.get("name"), "status": row.get("status"), "n": c.whole(row.get("n"))}
            | shown
        )
    return rows


def margins(data: Json) -> Json | None:
    """The two histograms with shares and means, or None without usable counts."""
    edges, before, after = (
        [n for v in listed(data.get(key)) if (n := num(v)) is not None]
        for key in ("bins", "before", "after")
    )
    chart = _both(
        charts.margins,
        edges,
        before,
        after,
        (num(data.get("before_mean")), num(data.get("after_mean"))),
    )
    if not chart:
        return None
    places = 2 if edges[1] - edges[0] >= 0.02 else 3
    spans = [f"{c.signed(a, places)} to {c.signed(b, places)}" for a, b in pairwise(edges)]
    shares = [
        share
        for which in ("before", "after")
        if (share := num(data.get(f"share_positive_{which}"))) is not None
    ]
    return {
        "chart": chart,
        "shares": [f"{share:.0%}" for share in shares],
        "rows": [row for row in zip(spans, before, after, strict=True) if row[1] or row[2]],
        "facts": c.facts({key: value for key, value in data.items() if num(value) is not None}),
    }


def training(data: ReportData) -> Json | None:
    """Curves of the loss and of the dev measure, what came of it, and where the examples came from."""
    if not (data.history or data.training or data.mining):
        return None
    dev, wanted = obj(data.training.get("dev")), c.primary(data.decision)
    keys = dict.fromkeys(
        key for line in data.history for key in line if "@" in key or key in ("AP", "RR")
    )
    measure = wanted if wanted in keys else next(iter(keys), "")

    def points(key: str) -> list[charts.Point]:
        pairs = ((num(line.get("step")), num(line.get(key))) for line in data.history)
        return [(step, value) for step, value in pairs if step is not None and value is not None]

    summary = {"base_model": c.model_name(data.training.get("base_model")) or None}
    if num(dev.get("before")) is not None and num(dev.get("after")) is not None:
        summary[f"{measure or 'measure'} on dev"] = (
            f"{c.fixed(dev['before'])} → {c.fixed(dev['after'])}"
        )
    summary |= {key: value for key, value in data.training.items() if key not in _UNSHOWN}
    dropped = {key: value for key, value in obj(data.mining.get("dropped")).items() if num(value)}
    best = num(data.training.get("best_step"))
    return {
        "loss": charts.curve(points("loss"), title="Training loss by step", smooth=True),
        "dev": charts.curve(
            points(measure), title=f"{measure} on dev by step", best=best, base=True
        ),
        "measure": measure,
        "pool": num(
            dev.get("documents")
        ),  # where searching the whole corpus at every evaluation would take too long
        "table": points(measure)[:60],
        "facts": c.facts(summary),
        "mining": c.facts({key: value for key, value in data.mining.items() if key != "dropped"}),
        "dropped": c.facts(dropped),
    }


def examples(data: Json, decision: Json) -> Json | None:
    """Wins and losses with their ranked lists, and the queries that the candidate no longer answers."""
    groups = []
    for key in ("wins", "losses"):
        rows = maps(data.get(key))
        groups.append(
            {
                "key": key,
                "rows": [_example(row) for row in rows[:MAX_EXAMPLES]],
                "more": max(0, len(rows) - MAX_EXAMPLES),
            }
        )
    flips = maps(decision.get("negative_flips"))
    return (
        {"groups": groups, "flips": flips}
        if flips or any(group["rows"] for group in groups)
        else None
    )


def _example(row: Json) -> Json:
    relevant = {str(doc.get("id")): doc.get("title") for doc in maps(row.get("relevant"))}
    tops = [maps(row.get(key))[:MAX_RANKED] for key in ("before_top", "after_top")]
    before, after = (
        {str(doc.get("id")): rank for rank, doc in enumerate(top, start=1)} for top in tops
    )

    def place(ranks: Mapping[str, int], doc: str) -> str:
        return str(ranks[doc]) if doc in ranks else f"beyond {len(ranks)}" if ranks else "not found"

    def entry(doc: Json, rank: int, moved: tuple[str, str]) -> Json:
        hit = doc.get("relevant") is True or str(doc.get("id")) in relevant
        # An irrelevant document that moves down is no loss.
        return {
            **doc,
            "rank": rank,
            "relevant": hit,
            "tone": moved[0] if hit else "",
            "change": moved[1],
        }

    def arrived(name: str, rank: int) -> tuple[str, str]:
        up = before[name] - rank if name in before else None
        return (
            ("new", "new")
            if up is None
            else ("up", f"▲ {up}")
            if up > 0
            else ("down", f"▼ {-up}")
            if up
            else ("", "=")
        )

    left = [
        entry(doc, rank, ("", "") if str(doc.get("id")) in after else ("gone", "gone"))
        for rank, doc in enumerate(tops[0], start=1)
    ]
    right = [
        entry(doc, rank, arrived(str(doc.get("id")), rank))
        for rank, doc in enumerate(tops[1], start=1)
    ]
    places = [
        {"id": doc, "title": title, "before": place(before, doc), "after": place(after, doc)}
        for doc, title in relevant.items()
    ]
    return {**row, "relevant": places[:8], "columns": [("Before", left), ("After", right)]}
