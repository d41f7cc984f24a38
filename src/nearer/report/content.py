"""What the report says, before it is laid out: values made safe, figures made readable.

A missing file, section or figure leaves a gap and never stops the report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import yaml

Json = Mapping[str, Any]

# verdict → (words on the badge, tone)
VERDICTS = {
    "ship": ("Ship it", "good"),
    "use_simpler_fix": ("Use a simpler fix", "warn"),
    "do_not_ship": ("Do not ship", "bad"),
    "inconclusive": ("Inconclusive", "warn"),
}
STATUS = {
    "pass": "good",
    "fail": "bad",
    "inconclusive": "warn",
    "yes": "good",
    "no": "bad",
    "kept": "good",
}
DASH = "–"
MANY_QUERIES = 100_000  # nobody judges more than this: "needs more" is then all there is to say


@dataclass(frozen=True, slots=True)
class ReportData:
    """The parsed files of one run; every one but `decision` may be empty."""

    run: str = ""
    decision: Json = field(default_factory=dict)  # decide/decision.json
    examples: Json = field(default_factory=dict)  # decide/examples.json
    margins: Json = field(default_factory=dict)  # decide/margins.json
    history: Sequence[Json] = ()  # train/history.jsonl
    training: Json = field(default_factory=dict)  # train/summary.json
    mining: Json = field(default_factory=dict)  # mine/summary.json
    check: Json = field(default_factory=dict)  # check/findings.json
    evaluation: Json = field(default_factory=dict)  # evaluate/summary.json
    diagnosis: Json = field(default_factory=dict)  # diagnose/summary.json
    fixes: Json = field(default_factory=dict)  # fix/summary.json, the ladder
    trials: Sequence[Json] = ()  # fix/trials.jsonl
    steps: Mapping[str, Json] = field(default_factory=dict)  # stage → its step.json
    versions: Mapping[str, str] = field(default_factory=dict)  # package → version

    @property
    def command(self) -> str:
        """What to type to do it all again."""
        return (
            f"nearer run --run {text(self.run, 80)}"
            if self.run not in ("", "default")
            else "nearer run"
        )


# -- values out of JSON ----------------------------------------------------------------------------


def num(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an int beyond the range of floats
        return None


def obj(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def maps(value: Any) -> list[Json]:
    return [item for item in listed(value) if isinstance(item, Mapping)]


def pair(value: Any) -> tuple[float, float] | None:
    """The two ends of an interval, or None."""
    ends = [number for item in listed(value) if (number := num(item)) is not None]
    return (ends[0], ends[1]) if len(ends) == 2 else None


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def text(value: Any, limit: int = 400) -> str:
    """Text that can be shown: no control characters or lone surrogates, cut at `limit` characters."""
    shown = "" if value is None else _CONTROL.sub("�", str(value)).strip()
    return shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


# -- figures for people ----------------------------------------------------------------------------


def fixed(value: Any, places: int = 3, sign: str = "") -> str:
    number = num(value)
    return DASH if number is None else f"{number:{sign}.{places}f}".replace("-", "−")


def signed(value: Any, places: int = 3) -> str:
    shown = fixed(value, places, "+")
    return (
        shown if shown.strip("+−0.") else shown.lstrip("+−")
    )  # nothing is neither gained nor lost


def span(ci: Any, show: Any = fixed) -> str:
    """An interval as `0.315 to 0.379`."""
    ends = pair(ci)
    return f"{show(ends[0])} to {show(ends[1])}" if ends else DASH


def p_value(value: Any) -> str:
    number = num(value)
    return "< 0.001" if number is not None and number < 0.001 else fixed(number)


def whole(value: Any) -> str:
    number = num(value)
    return DASH if number is None else f"{number:,.0f}".replace("-", "−")


def needed(value: Any) -> str:
    """Number of queries that would settle a guardrail."""
    return f"over {whole(MANY_QUERIES)}" if (num(value) or 0) > MANY_QUERIES else whole(value)


def duration(value: Any) -> str:
    """Seconds as `0.4 s`, `2 min 05 s`, `3 h 20 min`."""
    seconds = num(value)
    if seconds is None or seconds < 60:
        return DASH if seconds is None else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return (
        f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
        if seconds < 3600
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def size(value: Any) -> str:
    number = num(value)
    if number is None or abs(number) < 1000:
        return DASH if number is None else f"{number:.0f} B"
    power = min(4, int(math.log10(abs(number)) // 3))
    return f"{number / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def words(key: str) -> str:
    return text(key, 60).replace("_", " ")


def model_name(path: Any) -> str:
    """The last telling part of a path or hub name."""
    parts = [part for part in re.split(r"[/\\]", text(path, 400)) if part]
    return next((part for part in reversed(parts) if part != "model"), "model" if parts else "")


def figure(key: str, value: Any) -> str:
    """A value shown by what its key says: seconds, bytes, shares, counts."""
    number = num(value)
    if number is None:
        return ("yes" if value else "no") if isinstance(value, bool) else text(value, 160) or DASH
    for ending, shown in (
        ("bytes", size),
        ("seconds", duration),
        ("_ms", lambda v: f"{v:,.1f} ms"),
        ("hours", lambda v: f"{v:,.2f} h"),
    ):
        if key.endswith(ending):
            return shown(number)
    if "share" in key and 0 <= number <= 1:
        return f"{number:.1%}"
    if number == int(number) and abs(number) < 1e15:
        return whole(number)
    return fixed(number) if 0.001 <= abs(number) < 1 else f"{number:,.4g}".replace("-", "−")


def facts(value: Any, limit: int = 60) -> list[tuple[str, str]]:
    """(label, figure) of every scalar in nested JSON; long lists are left out."""
    return list(islice(_walk(obj(value), ""), limit))


def _walk(node: Json, path: str) -> Iterator[tuple[str, str]]:
    for key, item in node.items():
        here = f"{path}{words(str(key))}"
        if isinstance(item, Mapping):
            yield from _walk(item, f"{here} · ")
        elif isinstance(item, list | tuple):
            if 0 < len(item) <= 8 and not any(isinstance(part, Mapping | list) for part in item):
                yield here, ", ".join(figure(str(key), part) for part in item)
        elif item is not None:
            yield here, figure(str(key), item)


# -- what both the page and the pull request say ----------------------------------------------------


def by_number(rows: Iterable[Json], key: str) -> list[Json]:
    """Rows with a number under `key`, the largest first, equal ones in their own order."""
    return sorted(
        (row for row in rows if num(row.get(key)) is not None),
        key=lambda row: -(num(row.get(key)) or 0.0),
    )


def primary(decision: Json) -> str:
    return text(decision.get("primary"), 40) or "nDCG@10"


def level(decision: Json) -> int:
    """Confidence level in percent: 95 for alpha .05."""
    alpha = num(decision.get("alpha"))
    return round(100 * (1 - alpha)) if alpha is not None and 0 < alpha < 1 else 95


def candidate(decision: Json, name: Any) -> Json:
    """The candidate of that name, or an empty mapping."""
    return next(
        (row for row in maps(decision.get("candidates")) if name and row.get("name") == name), {}
    )


def mean(row: Json, measure: str) -> float | None:
    return num(obj(obj(row.get("measures")).get(measure)).get("mean"))


def compared(decision: Json) -> Json:
    """The comparison that slices, margins and examples are about."""
    return _comparison(decision, obj(decision.get("compared")).get("candidate"))


def headline(decision: Json) -> Json:
    """The comparison with today's system that carries the verdict: of the recommended system, else of the one turned down."""
    recommended = decision.get("recommended")
    today = obj(decision.get("compared")).get("baseline")
    return (
        _comparison(decision, recommended)
        if recommended and recommended != today
        else compared(decision)
    )


def _comparison(decision: Json, name: Any) -> Json:
    """Its comparison with today's on the primary measure, or nothing: another system's gain would mislead."""
    wanted = {
        "candidate": name,
        "baseline": obj(decision.get("compared")).get("baseline"),
        "measure": primary(decision),
    }
    rows = (
        row
        for row in maps(decision.get("comparisons"))
        if name and {key: row.get(key) for key in wanted} == wanted
    )
    return next((row for row in rows if num(row.get("delta")) is not None), {})


def measure_names(decision: Json) -> list[str]:
    """Measures that any candidate has, the primary first."""
    rows = maps(decision.get("candidates"))
    names = [primary(decision), *(str(name) for row in rows for name in obj(row.get("measures")))]
    return [
        name for name in dict.fromkeys(names) if any(mean(row, name) is not None for row in rows)
    ]


def counted(counts: Any) -> list[str]:
    """What was counted, as `3 × reason`."""
    return [f"{whole(n)} × {text(name, 160)}" for name, n in islice(obj(counts).items(), 12)]


def causes(diagnosis: Json) -> list[Json]:
    """Steps of the waterfall that repair something, each with its failures, their share of all, and its kinds."""
    steps = [row for row in maps(diagnosis.get("steps")) if (num(row.get("failures")) or 0) > 0]
    total, kinds, rows = (
        sum(float(row["failures"]) for row in steps),
        obj(diagnosis.get("kinds")),
        list[Json](),
    )
    for row in steps:
        cause, count = text(row.get("cause"), 60), float(row["failures"])
        told = {
            "cause": cause,
            "name": words(cause),
            "failures": count,
            "share": count / total,
            "kinds": counted(kinds.get(cause)),
        }
        rows.append({**row, **told})
    return rows


def failing(diagnosis: Json) -> str:
    """How many queries fail, what share of the failures is semantic, and what fine-tuning can add at most."""
    failed, n, k = (whole(diagnosis.get(key)) for key in ("n_failing_queries", "n_queries", "k"))
    asked = " and ".join(text(name, 20) for name in listed(diagnosis.get("splits"))[:4])
    told = f"{failed} of {n} {asked} queries find no relevant document among the first {k}".replace(
        "  ", " "
    )
    if rows := causes(diagnosis):
        semantic = sum(row["share"] for row in rows if row["cause"] == "semantic")
        told += f", which leaves {whole(sum(row['failures'] for row in rows))} relevant documents unfound. {semantic:.0%} of these "
        told += "failures are semantic: every cheaper repair was tried on them, and none comes near"
    ceiling = obj(diagnosis.get("fine_tuning_ceiling"))
    today, reached, possible = (
        num(ceiling.get(key)) for key in ("today", "if_found", "if_unknown_were_semantic")
    )
    if rows and today is not None and reached is not None:
        told += f". Finding them first adds {signed(reached - today)} of {text(ceiling.get('measure'), 40)} "
        told += f"({fixed(today)} → {fixed(reached)}), the ceiling of fine-tuning"
        told += (
            f"; {signed(possible - today)} if the unknown ones were semantic too"
            if possible is not None and possible > reached
            else ""
        )
    return f"{told}.{_not_tried(diagnosis, 'probe')}"


def _not_tried(found: Json, key: str) -> str:
    """A sentence on what nobody tried, and what would try it; empty where there is nothing to say."""
    rows = maps(found.get("not_tried"))[:8]
    names = [
        f"{words(row.get(key, ''))} ({text(row.get('why'), 120)}; {text(row.get('next'), 120)})"
        for row in rows
    ]
    return f" Not tried: {', '.join(names)}." if names else ""


def rungs(ladder: Json) -> list[Json]:
    """Rungs of the ladder in order, with gain, kept or not, and the share of failures repaired.

    There is no gain where a fix was not tried or does not apply.
    """
    rows: list[Json] = []
    for row in maps(ladder.get("rungs")):
        delta = obj(row.get("delta"))
        told = {
            "name": words(row.get("fix", "")),
            "gain": num(delta.get("mean")),
            "ci": delta.get("ci"),
            "share": repaired(row),
        }
        rows.append(
            {
                **row,
                **told,
                "kept": "kept" if row.get("kept") is True else "not kept" if delta else "",
            }
        )
    return rows


def repaired(row: Json) -> str:
    """Share of the diagnosed failures that a rung, or the ladder, repairs."""
    counts = [ends for value in obj(row.get("failures_repaired")).values() if (ends := pair(value))]
    done, total = (sum(ends[side] for ends in counts) for side in (0, 1))
    return f"{done / total:.0%}" if total > 0 else DASH


def climbed(ladder: Json, level: int) -> str:
    """Where today stands, which fixes are kept, and where they lead; empty without a ladder."""
    if not (rows := rungs(ladder)):
        return f"Not measured: {text(ladder['skipped'], 200)}." if ladder.get("skipped") else ""
    told = f"Today's system ({text(ladder.get('today_label'), 120) or DASH}) has {text(ladder.get('measure'), 40)} "
    told += (
        f"{fixed(ladder.get('today'))} on the {whole(ladder.get('n_queries'))} development queries"
    )
    if not (kept := [row["name"] for row in rows if row["kept"] == "kept"]):
        tried = sum(bool(row["kept"]) for row in rows)
        told += f". None of the {tried} simpler fixes that were tried brings a real gain: none was kept."
        return told + _not_tried(ladder, "fix")
    delta, share = obj(ladder.get("delta")), repaired(ladder)
    told += f"; with {' + '.join(kept[:12])} it reaches {fixed(ladder.get('best_measure'))} ({signed(delta.get('mean'))}, {level}% interval"
    told += f" {span(delta.get('ci'), signed)})"
    if share != DASH:
        told += f" and repairs {share} of the failures diagnosed there"
    return f"{told}.{_not_tried(ladder, 'fix')}"


_SECRET_KEY = re.compile(r"(?i)(secret|token|password|api_?key|authorization)$")
_SECRET_URL = re.compile(
    r"(?i)(://)[^/\s@]+@|([?&][^=&\s]*(?:key|token|secret|password|sig)[^=&\s]*=)[^&\s'\"]+"
)


def blank(value: Any) -> Any:
    """JSON with passwords and keys blanked, in addresses too: reports travel further than their authors think."""
    if isinstance(value, Mapping):
        return {
            str(key): "…" if item and _SECRET_KEY.search(str(key)) else blank(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [blank(item) for item in value]
    return (
        _SECRET_URL.sub(lambda hit: f"{hit[1]}…@" if hit[1] else f"{hit[2]}…", text(value, 2000))
        if isinstance(value, str)
        else value
    )


def _sections(steps: Mapping[str, Json]) -> dict[str, Any]:
    """The settings of all steps in one; a setting outside all sections is recorded as `{"value": …}`."""
    found = {
        str(name): section
        for record in steps.values()
        for name, section in obj(obj(record).get("settings")).items()
    }
    return {
        name: section["value"]
        if isinstance(section, Mapping) and set(section) == {"value"}
        else section
        for name, section in found.items()
    }


def settings(steps: Mapping[str, Json]) -> str:
    """The settings of all steps as YAML that can be pasted into nearer.yaml."""
    sections = blank(_sections(steps))
    return (
        yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=110).rstrip()
        if sections
        else ""
    )


def seeds(data: ReportData) -> dict[str, str]:
    """Every seed that the run used, by where it was used."""
    found = {
        name: section if name == "seed" else obj(section).get("seed")
        for name, section in _sections(data.steps).items()
    }
    return {
        "run" if name == "seed" else text(name, 40): text(seed)
        for name, seed in found.items()
        if num(seed) is not None
    }
