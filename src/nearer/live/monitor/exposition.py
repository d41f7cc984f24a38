"""The latest report in the text format of Prometheus."""

from __future__ import annotations

from nearer.live.monitor.conditions import Report

_RUN = "nearer_monitor_last_run_timestamp_seconds"
_ALERT = "nearer_monitor_alert"
_VALUE = "nearer_monitor_value"


def metrics(report: Report, now: float) -> str:
    """The latest report as Prometheus reads it; `now` in seconds since 1970."""
    firing = {str(alert["condition"]) for alert in report.alerts}
    lines = _head(_RUN, "When the monitor last looked.")
    lines.append(f"{_RUN} {now:.0f}")
    lines += _head(_ALERT, "1 where a condition fires.")
    for name in report.conditions:
        lines.append(f'{_ALERT}{{condition="{name}"}} {int(name in firing)}')
    lines += _head(_VALUE, "Latest value of a series.")
    for row in report.series:
        labels = f'name="{row.name}",slice="{_label(row.slice)}"'
        lines.append(f"{_VALUE}{{{labels}}} {row.value}")
    return "\n".join(lines) + "\n"


def _head(name: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", " ")
