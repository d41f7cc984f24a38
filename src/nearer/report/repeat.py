"""What it takes to repeat a run: the command, the seeds, and the settings without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from nearer.report.data import ReportData
from nearer.report.values import Json, as_number, as_object, as_text

_SECRET_KEY = re.compile(
    r"(?i)(secret|token|password|passphrase|credentials?|(api|access|private)[-_]?key|authorization)$"
)
_SECRET_URL = re.compile(
    r"(?i)(://)[^/\s@]+@|([?&][^=&\s]*(?:key|token|secret|password|sig)[^=&\s]*=)[^&\s'\"]+"
)


def command(data: ReportData) -> str:
    """What to type to repeat the run."""
    if data.run in ("", "default"):
        return "nearer run"
    return f"nearer run --run {as_text(data.run, 80)}"


def blank(value: Any) -> Any:
    """JSON with passwords and keys blanked, also inside addresses: reports are passed on."""
    if isinstance(value, Mapping):
        return {str(key): _blank_entry(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [blank(item) for item in value]
    if isinstance(value, str):
        return _SECRET_URL.sub(_blank_match, as_text(value, 2000))
    return value


def _blank_entry(key: str, item: Any) -> Any:
    if item and _SECRET_KEY.search(key):
        return "…"
    return blank(item)


def _blank_match(match: re.Match[str]) -> str:
    if match[1]:
        return f"{match[1]}…@"
    return f"{match[2]}…"


def _sections(steps: Mapping[str, Json]) -> dict[str, Any]:
    """The settings of all steps in one; one outside all sections is recorded as `{"value": …}`."""
    sections: dict[str, Any] = {}
    for record in steps.values():
        settings_of_step = as_object(as_object(record).get("settings"))
        for name, section in settings_of_step.items():
            sections[str(name)] = section
            if isinstance(section, Mapping) and set(section) == {"value"}:
                sections[str(name)] = section["value"]
    return sections


def settings(steps: Mapping[str, Json]) -> str:
    """The settings of all steps as YAML that can be pasted into nearer.yaml."""
    sections = blank(_sections(steps))
    if not sections:
        return ""
    text: str = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=110)
    return text.rstrip()


def seeds(data: ReportData) -> dict[str, str]:
    """Every seed that the run used, by where it was used."""
    used: dict[str, str] = {}
    for name, section in _sections(data.steps).items():
        if name == "seed":
            label = "run"
            seed = section
        else:
            label = as_text(name, 40)
            seed = as_object(section).get("seed")
        if as_number(seed) is not None:
            used[label] = as_text(seed)
    return used
