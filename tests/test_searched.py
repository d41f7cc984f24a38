"""The report on a training: the settings that a search tried."""

from __future__ import annotations

from typing import Any

from nearer.report import markdown, page
from nearer.report.data import ReportData
from nearer.report.sections.searched import searched

CURVE = [
    {"weight": 1.0, "nDCG@10": 0.55, "general": 0.79},
    {"weight": 0.9, "nDCG@10": 0.545, "general": 0.796},
    {"weight": 0.8, "nDCG@10": 0.53, "general": 0.803},
]


def summary(**more: Any) -> dict[str, Any]:
    return {
        "dev": {"measure": "nDCG@10", "before": 0.3, "after": 0.53},
        "forgetting": {"measure": "nDCG@10", "before": 0.81, "after": 0.803},
        "merge": {"weight": 0.8, "curve": CURVE},
        "settings": {"forget": 0.01},
        **more,
    }


def trial(number: int, arm: int, dev: float | None, stopped: str = "at the end") -> dict[str, Any]:
    label = f"full, learning rate {arm}e-4"
    return {
        "round": number,
        "arm": arm,
        "label": label,
        "seconds": 12.0,
        "steps": 30,
        "stopped": stopped,
        "dev": dev,
    }


SEARCH = {
    "budget": 600.0,
    "seconds": 540.0,
    "arms": 3,
    "trials": [trial(0, 1, 0.41), trial(0, 2, 0.52), trial(0, 3, None, "failed: not finite")],
    "chosen": {"arm": 2, "label": "full, learning rate 2e-4", "changes": {}},
    "reason": "its trial was not cut short",
}


def test_trials_stand_by_round_the_best_first_and_failures_say_why() -> None:
    section = searched(summary(search=SEARCH))
    assert section is not None
    assert [row[4] for row in section["rows"]] == ["0.520", "0.410", "failed: not finite"]
    assert [row[5] for row in section["rows"]] == [True, False, False]
    assert searched(summary()) is None


def test_page_and_markdown_hold_them() -> None:
    data = ReportData(training=summary(search=SEARCH))
    html = page.render(data)
    assert "The settings that were tried" in html
    text = markdown.render(data)
    assert "| **full, learning rate 2e-4** | 1 | 12.0 s | 30 | 0.520 |" in text
    assert "9 min 00 s" in html


def test_markdown_stays_short_with_many_trials_and_nonsense_is_a_gap() -> None:
    many = {**SEARCH, "trials": [trial(0, arm, 0.1) for arm in range(300)]}
    assert len(markdown.render(ReportData(training=summary(search=many))).splitlines()) < 60
    for key in ("dev", "merge", "forgetting", "settings", "search"):
        for value in (None, 3, "x", [], {"curve": [1]}, {"curve": [{"weight": "x"}]}):
            data = ReportData(training=summary(search=SEARCH) | {key: value})
            assert "</html>" in page.render(data)
            assert markdown.render(data)
