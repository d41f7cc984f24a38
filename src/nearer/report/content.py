"""What the report says, before it is laid out: values made safe, figures made readable.

Everything here is tolerant on purpose.  The files of a run may be missing, older than this
version, or written by somebody else; a report that fails is worse than one with a gap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
STATUS = {"pass": "good", "fail": "bad", "inconclusive": "warn", "yes": "good", "no": "bad"}
DASH = "–"
ALL_QUERIES = "All queries"


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
    steps: Mapping[str, Json] = field(default_factory=dict)  # stage → its step.json
    versions: Mapping[str, str] = field(default_factory=dict)  # package → version

    @classmethod
    def of(cls, value: ReportData | Json) -> ReportData:
        """The same from a mapping with these keys; others are ignored, wrong types become empty."""
        if isinstance(value, ReportData):
            return value
        known: dict[str, Any] = {f.name: obj(value.get(f.name)) for f in fields(cls) if f.name not in ("run", "history")}
        return cls(run=text(value.get("run")), history=tuple(maps(value.get("history"))), **known)


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


def maps(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def pair(value: Any) -> tuple[float, float] | None:
    """The two ends of an interval, or None."""
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = num(value[0]), num(value[1])
        if low is not None and high is not None:
            return low, high
    return None


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def text(value: Any, limit: int = 400) -> str:
    """Text that can be shown: no control characters or lone surrogates, cut at `limit` characters."""
    if value is None:
        return ""
    shown = _CONTROL.sub("�", value if isinstance(value, str) else str(value)).strip()
    return shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


# -- figures for people ----------------------------------------------------------------------------


def fixed(value: Any, places: int = 3) -> str:
    number = num(value)
    return DASH if number is None else f"{number:.{places}f}".replace("-", "−")


def signed(value: Any, places: int = 3) -> str:
    number = num(value)
    if number is None:
        return DASH
    shown = f"{number:+.{places}f}".replace("-", "−")
    return shown[1:] if float(f"{number:.{places}f}") == 0 else shown


def p_value(value: Any) -> str:
    number = num(value)
    if number is None:
        return DASH
    return "< 0.001" if number < 0.001 else f"{number:.3f}"


def whole(value: Any) -> str:
    number = num(value)
    return DASH if number is None else f"{number:,.0f}"


def duration(value: Any) -> str:
    """Seconds as `0.4 s`, `2 min 05 s`, `3 h 20 min`."""
    seconds = num(value)
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s" if seconds < 3600 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: Any) -> str:
    number = num(value)
    if number is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def words(key: str) -> str:
    return text(key, 60).replace("_", " ")


def figure(key: str, value: Any) -> str:
    """A value shown by what its key says: seconds, bytes, shares, counts."""
    number = num(value)
    if number is None:
        return ("yes" if value else "no") if isinstance(value, bool) else text(value, 160) or DASH
    for ending, shown in (("bytes", size), ("seconds", duration), ("_ms", lambda v: f"{v:,.1f} ms"), ("hours", lambda v: f"{v:,.2f} h")):
        if key.endswith(ending):
            return shown(number)
    if "share" in key and 0 <= number <= 1:
        return f"{number:.1%}"
    if number == int(number) and abs(number) < 1e15:
        return whole(number)
    return fixed(number, 3) if 0.001 <= abs(number) < 1 else f"{number:,.4g}".replace("-", "−")


def facts(value: Any, limit: int = 60) -> list[tuple[str, str]]:
    """(label, figure) of every scalar in nested JSON; long lists are left out."""
    found: list[tuple[str, str]] = []

    def walk(node: Json, path: tuple[str, ...]) -> None:
        for key, item in node.items():
            here = (*path, words(str(key)))
            if isinstance(item, Mapping):
                walk(item, here)
            elif isinstance(item, list | tuple):
                if 0 < len(item) <= 8 and not any(isinstance(part, Mapping | list) for part in item):
                    found.append((" · ".join(here), ", ".join(figure(str(key), part) for part in item)))
            elif item is not None:
                found.append((" · ".join(here), figure(str(key), item)))

    walk(obj(value), ())
    return found[:limit]


# -- what both the page and the pull request say ----------------------------------------------------


def by_number(rows: Iterable[Json], key: str) -> list[Json]:
    """Rows with a number under `key`, the largest first, equal ones in their own order."""
    return sorted((row for row in rows if num(row.get(key)) is not None), key=lambda row: -(num(row.get(key)) or 0.0))


def primary(decision: Json) -> str:
    return text(decision.get("primary"), 40) or "nDCG@10"


def level(decision: Json) -> int:
    """Confidence level in percent: 95 for alpha .05."""
    alpha = num(decision.get("alpha"))
    return round(100 * (1 - alpha)) if alpha is not None and 0 < alpha < 1 else 95


def candidate(decision: Json, *, name: str | None = None, role: str | None = None) -> Json:
    """The first candidate of that name or role, or an empty mapping."""
    for row in maps(decision.get("candidates")):
        if (name is not None and text(row.get("name")) == name) or (role is not None and row.get("role") == role):
            return row
    return {}


def mean(row: Json, measure: str) -> float | None:
    return num(obj(obj(row.get("measures")).get(measure)).get("mean"))


def headline(decision: Json) -> Json:
    """The comparison with today's system that carries the verdict, on the primary measure.

    That of the recommended system; where today's is recommended, that of the candidate turned down.
    """
    recommended, today = text(decision.get("recommended")), text(candidate(decision, role="today").get("name"))
    if recommended and recommended != today:
        return _compared(decision, today, [recommended])
    return tuned(decision)


def tuned(decision: Json) -> Json:
    """The comparison of a fine-tuned system with today's: what slices, margins and examples are about."""
    names = [text(row.get("name")) for row in maps(decision.get("candidates")) if row.get("role") == "candidate"]
    return _compared(decision, text(candidate(decision, role="today").get("name")), names)


def _compared(decision: Json, baseline: str, names: Sequence[str]) -> Json:
    """The first comparison of one of `names` with the baseline, or an empty mapping: another system's gain would mislead."""
    for row in maps(decision.get("comparisons")):
        fits = text(row.get("candidate")) in names and (not baseline or text(row.get("baseline")) == baseline)
        if fits and text(row.get("measure")) == primary(decision) and num(row.get("delta")) is not None:
            return row
    return {}


def measure_names(decision: Json) -> list[str]:
    """Measures that any candidate has, the primary first."""
    names = dict.fromkeys([primary(decision)])
    for row in maps(decision.get("candidates")):
        names |= dict.fromkeys(str(name) for name in obj(row.get("measures")))
    return [name for name in names if any(mean(row, name) is not None for row in maps(decision.get("candidates")))]


_SECRET_KEY = re.compile(r"(?i)(secret|token|password|api_?key|authorization)$")
_SECRET_URL = re.compile(r"(?i)(://)[^/\s@]+@|([?&][^=&\s]*(?:key|token|secret|password|sig)[^=&\s]*=)[^&\s'\"]+")


def settings(steps: Mapping[str, Json]) -> str:
    """The settings of all steps as YAML that can be pasted into nearer.yaml; secrets in addresses blanked."""
    merged: dict[str, Any] = {}
    for record in steps.values():
        for name, section in obj(obj(record).get("settings")).items():
            merged[str(name)] = section["value"] if isinstance(section, Mapping) and set(section) == {"value"} else section
    if not merged:
        return ""
    try:
        return yaml.safe_dump(_blanked(merged), sort_keys=False, allow_unicode=True, width=110).rstrip()
    except yaml.YAMLError:
        return ""


def blank(value: str) -> str:
    """Text with user names, passwords and keys in addresses blanked: reports travel further than their authors think."""
    return _SECRET_URL.sub(lambda hit: f"{hit[1]}…@" if hit[1] else f"{hit[2]}…", value)


def _blanked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): "…" if item and _SECRET_KEY.search(str(key)) else _blanked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_blanked(item) for item in value]
    return blank(text(value, 2000)) if isinstance(value, str) else value


def seeds(data: ReportData) -> dict[str, str]:
    """Every seed that the run used, by where it was used."""
    found = {}
    for record in data.steps.values():
        for name, section in obj(obj(record).get("settings")).items():
            value = section.get("value") if name == "seed" and isinstance(section, Mapping) else obj(section).get("seed")
            if num(value) is not None:
                found["run" if name == "seed" else text(name, 40)] = text(value)
    if num(data.training.get("seed")) is not None:
        found["train"] = text(data.training.get("seed"))
    return found
