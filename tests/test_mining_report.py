"""The report shows how hard negatives were chosen, what was rejected, and what looks wrong."""

from __future__ import annotations

from typing import Any

import pytest

from nearer.report import page
from nearer.report.data import ReportData
from nearer.report.sections import mining

SUMMARY: dict[str, Any] = {
    "examples": 2,
    "warnings": ["no hard negatives: the model learns little"],
    "candidates": {
        "considered": 40,
        "rejected": {"candidate scores too close to the positive": {"count": 10, "share": 0.25}},
    },
    "similarities": {
        "bins": [0.0, 0.5, 1.0],
        "positives": [1, 3],
        "negatives": [4, 0],
        "positives_mean": 0.7,
        "negatives_mean": 0.2,
    },
    "noise": {"action": "weighted down", "judged": {"pairs": 4, "share": 0.3}},
}
MINED = [
    {
        "query": "which <b>one</b>",
        "positive": {"doc_id": "d", "text": "a right text", "source": "judged"},
        "negatives": [{"doc_id": "e", "text": "a hard text", "source": "dense#4"}],
    }
]


def test_warnings_rules_histogram_and_examples_are_on_the_page() -> None:
    html = page.render(ReportData(mining=SUMMARY, mined=MINED))
    assert "no hard negatives: the model learns little" in html
    assert "candidate scores too close to the positive" in html
    assert "25.0%" in html
    assert "4 hard negatives, mean +0.200; 4 positives, mean +0.700." in html
    assert "a right text" in html
    assert "dense#4" in html
    assert "which &lt;b&gt;one&lt;/b&gt;" in html
    assert "weighted down" in html


def test_each_figure_stands_once() -> None:
    html = page.render(ReportData(mining=SUMMARY, mined=MINED))
    assert "candidates · considered" not in html


@pytest.mark.parametrize(
    "summary",
    [
        {},
        {"candidates": 3, "similarities": [], "noise": 7, "warnings": "x"},
        {"candidates": {"rejected": {"a": 3}}, "similarities": {"bins": [1], "positives": ["x"]}},
        {"similarities": {"bins": [0, 1, 2], "positives": [1, 1], "negatives": [1]}},
    ],
)
def test_a_damaged_summary_leaves_gaps(summary: dict[str, Any]) -> None:
    data = ReportData(mining=summary, mined=[{"positive": 3, "negatives": "x"}])
    assert "</html>" in page.render(data)
    section = mining(data)
    assert section is None or section["similarities"] is None
