"""The report with every section at once: one id each, the same facts in all three files, text as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nearer.decision.record import DecisionRecord
from nearer.decision.showing import decision_blocks
from nearer.report import charts, markdown, page, repeat, values
from nearer.report.charts.scatter import Spot
from nearer.report.data import ReportData
from nearer.report.facts import facts
from nearer.tasks.cluster.odd_one_out import groups_digest
from test_report import HOSTILE, Outline, _replace_strings, decision, diagnosis, ladder, trials

#: Field of the report's data → what the sections beside those of `test_report` read.
TERMS = {
    "documents": 900,
    "compared": 40,
    "kinds": {"acronym": 2},
    "rows": [
        {
            "term": "CVE",
            "kind": "acronym",
            "expansions": ["common vulnerabilities"],
            "frequency": 12,
            "queries": 5,
            "failing_queries": 3,
            "reached_by": {"rewriting": 2},
        }
    ],
}
TASK = {
    "task": "cluster",
    "measures": {"tuned": {"V-measure": 0.844}},
    "sheets": [
        {
            "title": "How documents group",
            "lead": "Two models.",
            "columns": ["measure", "words", "tuned"],
            "rows": [["V-measure", 0.7, 0.844], ["Stability", None, 0.91]],
        }
    ],
    "notes": ["A map shows two of many dimensions."],
    "points": [
        [0.1 * place, -0.2 * place, place % 3 - 1, f"text {place} · label · name {place % 3 - 1}"]
        for place in range(12)
    ],
}
MATTER = {
    "named_queries": [
        {
            "query_id": "q7",
            "text": "crash on boot",
            "group": "must_pass",
            "split": "test",
            "candidate": "fine-tuned",
            "before": 1.0,
            "after": 0.0,
            "fate": "lost",
        }
    ],
    "clusters": {"unit": "template", "n": 40, "queries": 88, "largest": 9},
    "pays": {
        "answer": "yes",
        "why": "It pays.",
        "changes": ["a new index"],
        "rollback": "cut over",
    },
}
MISTAKES = [
    {"mistake": "no baseline", "answer": "made", "evidence": "none was run", "next": "nearer run"}
]
#: What people say of one grouping.
SEEN = {
    "grouping": "fine-tuned",
    "answers": 45,
    "cannot_tell": 2,
    "share": 0.62,
    "ci": [0.47, 0.75],
    "more": 0,
    "against_chance": "above chance",
    "sentence": "fine-tuned: the odd one was picked in 62% of 45 answers",
}
REVIEWS = {
    "summary": {
        "agreement": {"alpha": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 40}},
        "origins": {
            "pools": [{"name": "<first>", "source": "9 requests", "judged": 30, "test_queries": 7}],
            "of_no_pool": 5,
        },
        "judge": {
            "judge": "m at <host>",
            "agreement": {"value": 0.61, "low": 0.4, "high": 0.75, "n": 60},
        },
    },
    "history": [{"verdict": "ship", "decision": "x", "sentence": "It was good."}],
    "decision": "y",
    "odd_one_out": {"groups": groups_digest({}), "groupings": [SEEN] * 20},
}


@pytest.fixture
def everything() -> ReportData:
    return ReportData(
        run="default",
        decision=decision() | MATTER,
        diagnosis=diagnosis() | {"terms": TERMS},
        fixes=ladder(),
        trials=trials(),
        task=TASK,
        mistakes=MISTAKES,
        reviews=REVIEWS,
        check={"reviewed": {"held_out": 12, "splits": {"test": 12}}},
        queries={
            "measure": "nDCG@10",
            "documents": [["d1", "title", "body"]],
            "queries": [{"id": "q1", "text": "one", "split": "test", "before": 0, "after": 1}],
            "n": 1,
        },
    )


def test_no_two_elements_share_an_id_and_every_link_has_one_target(everything: ReportData) -> None:
    outline = Outline(page.render(everything))
    ids = [attrs["id"] for _, attrs in outline.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] or "" for tag, attrs in outline.tags if tag == "a"]
    assert {link[1:] for link in links} <= set(ids)
    assert len(links[1:]) == len(set(links[1:]))  # the first one skips to the verdict
    assert {"terms", "task", "queries", "every-query", "reviewed", "mistakes", "cost"} <= set(ids)


def test_on_paper_the_browser_alone_is_left_out() -> None:
    style = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
    printed = style[style.index("@media print") :]
    hidden = re.search(r"([^{}]*)\{ display: none; \}", printed)
    assert hidden
    assert "#every-query" in hidden[1]
    assert "#queries" not in hidden[1]


def test_dots_of_the_map_and_of_neighbourhoods_have_styles_of_their_own() -> None:
    style = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
    assert len(re.findall(r"(?m)^\.spot \{|[ }]\.spot \{", style)) == 1
    assert ".leaf {" in style


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_the_other_sections_stays_text(everything: ReportData, text: str) -> None:
    fields = ("decision", "diagnosis", "task", "mistakes", "reviews", "check", "queries")
    hostile = {name: _replace_strings(getattr(everything, name), text) for name in fields}
    hostile["task"]["points"] = [[place, place, 0, f"{text} · {text}"] for place in range(4)]
    html = page.render(ReportData(run=text, **hostile))
    outline = Outline(html)
    assert outline.open == []
    assert outline.count("script") == 2
    assert outline.count("img") == 0
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]
    shown = markdown.render(ReportData(run=text, **hostile))
    assert not re.search(r"<[A-Za-z/!]", re.sub(r"`[^`]*`", "", shown))  # code spans are text
    shown.encode("utf-8")


def test_the_map_names_its_colours_and_leaves_out_what_is_no_point(everything: ReportData) -> None:
    broken = dict(TASK) | {"points": [*TASK["points"], ["x", 1, 0, "bad"], 3, [1, 2]]}  # type: ignore[misc]
    html = page.render(ReportData(decision=everything.decision, task=broken))
    assert html.count('class="leaf ') == 2 * 12  # in two widths
    legend = re.search(r'<ul class="clusters".*?</ul>', html, flags=re.DOTALL)
    assert legend
    assert re.findall(r"<bdi>(.*?)</bdi>", legend[0]) == [
        "name 0",
        "name 1",
        "smaller clusters, or none",
    ]


def test_the_values_for_programs_hold_what_the_page_says(everything: ReportData) -> None:
    told = facts(everything)
    assert told["task"]["measures"] == {"tuned": {"V-measure": 0.844}}
    assert told["task"]["on"] == "test"
    assert told["task"]["odd_one_out"][0]["ci"] == [0.47, 0.75]
    assert told["terms"]["rows"][0]["term"] == "CVE"
    assert told["queries_that_matter"]["named_queries"][0]["fate"] == "lost"
    assert told["mistakes"][0]["answer"] == "made"
    assert told["pays"]["answer"] == "yes"
    assert told["reviewed"]["verdicts"][-1]["verdict"] == "ship"
    assert "30 judged pairs are of the pool <first> (of 9 requests)" in told["reviewed"]["pools"][0]
    assert "5 judged pairs are of no pool" in told["reviewed"]["pools"][1]
    assert "kappa 0.610 (0.400 to 0.750) on 60 shared pairs" in told["reviewed"]["judge"]
    assert "V-measure" in markdown.render(everything)
    assert "agrees with people by kappa 0.610" in markdown.render(everything)
    shown = page.render(everything)
    assert "of the pool &lt;first&gt;" in shown
    assert "m at &lt;host&gt;" in shown


def test_the_values_for_programs_are_json_and_utf8_whatever_the_files_hold() -> None:
    record = decision() | {"sentence": "lone \ud800", "rag": {"share": float("nan"), "a": [1e999]}}
    told = facts(ReportData(decision=record))
    json.dumps(told, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert told["language_model"]["share"] is None


def test_markdown_stays_short_with_every_section(everything: ReportData) -> None:
    many: dict[str, Any] = decision() | MATTER
    for key in ("candidates", "comparisons", "slices", "guardrails", "reasons", "named_queries"):
        many[key] = many[key] * 200
    sheet: dict[str, Any] = dict(TASK["sheets"][0])  # type: ignore[index]
    sheet["rows"] = sheet["rows"] * 100
    why = diagnosis() | {"terms": TERMS | {"rows": TERMS["rows"] * 100}}  # type: ignore[operator]
    why["steps"] = why["steps"] * 200
    data = ReportData(
        decision=many,
        diagnosis=why,
        fixes=ladder() | {"rungs": ladder()["rungs"] * 200},
        trials=trials() * 200,
        task=TASK | {"sheets": [sheet]},
        mistakes=MISTAKES * 9,
        reviews=REVIEWS,
        check=everything.check,
        queries=everything.queries,
        training={"search": {"trials": [{"round": 0, "label": "a", "dev": 0.5}] * 40}},
    )
    assert len(markdown.render(data).splitlines()) < 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [("one\r\ntwo", "one\ntwo"), ("page\x0cnext", "page\nnext"), ("bell\x07", "bell�")],
)
def test_line_ends_of_other_systems_are_line_ends(text: str, shown: str) -> None:
    assert values.as_text(text) == shown


@pytest.mark.parametrize("other", [0.3, 0.1 + 0.2, 1e-300, 1e300, -1e300, 1e16 + 2, 5e-324])
@pytest.mark.parametrize("value", [0.3, 0.0, 1e16, -1e-12])
def test_charts_take_equal_tiny_and_huge_values(value: float, other: float) -> None:
    spots = [Spot(value, other, 1, "a"), Spot(other, value, 2, "b"), Spot(0.5, 0.5, 3, "c")]
    drawn = [
        charts.curve([(0, value), (5, other)], title="t", base=True),
        charts.timeline([("2026-01-01", value), ("2026-01-02", other)], title="t"),
        charts.whiskers([charts.Mark("l", value, value, other)], width=832, title="t"),
        charts.document_map([(value, other, 0, "x")] * 3, title="t", width=832),
        charts.margins([value, other], [1], [2], (value, other), width=832),
    ]
    for ratio in (False, True):
        axes = charts.Axes("x", "y", str, ratio=ratio)
        drawn.append(charts.scatter(spots, width=832, title="t", axes=axes, lines=[[0, 1, 2]]))
    for chart in drawn:
        assert chart is None or not re.search(r"\b(nan|inf)\b", chart)


def test_rounding_is_no_difference_on_an_axis() -> None:
    chart = charts.curve([(0, 0.3), (5, 0.1 + 0.2)], title="t")
    assert chart
    assert len(set(re.findall(r'class="tick" text-anchor="end">([^<]*)<', chart))) > 1


def test_answers_with_references_that_are_no_list_are_drawn() -> None:
    lines = [
        {"query_id": "q", "system": name, "TokenF1": value, "references": 7}
        for name, value in (("today", 0.1), ("fine-tuned", 0.9))
    ]
    record = decision() | {"rag": {"about": "fine-tuned"}}
    assert "</html>" in page.render(ReportData(decision=record, answers=lines))


@pytest.mark.parametrize(
    "key", ["token", "X-Api-Key", "access_key", "credentials", "private-key", "db_password"]
)
def test_keys_of_every_usual_name_are_blanked(key: str) -> None:
    blanked = repeat.settings({"a": {"settings": {"index": {key: "hush", "k": 3}}}})
    assert "hush" not in blanked
    assert "k: 3" in blanked


def test_the_map_of_clusters_can_be_read_without_pointing_at_a_dot() -> None:
    """Every document of the map stands in a list, below the name of its cluster."""
    points = [
        [0.1, 0.2, 1, "a pump · hydraulics · pump, oil"],
        [0.3, 0.1, 0, "a lamp <b> · light · lamp"],
    ]
    points += [
        [0.5, 0.5, -1, "a stray · other · no cluster"],
        [0.2, 0.2, 0, "a bulb · light · lamp"],
    ]
    html = page.render(ReportData(decision=decision(), task=TASK | {"points": points}))
    start = html.index("The documents of the map, by cluster")
    listed = html[start : html.index("</details></details>", start)]
    lamp, pump, stray = (
        listed.index(f"<bdi>{name}</bdi>") for name in ("lamp", "pump, oil", "no cluster")
    )
    assert lamp < listed.index("a lamp &lt;b&gt; · light") < listed.index("a bulb") < pump
    assert pump < listed.index("a pump · hydraulics") < stray < listed.index("a stray")
    assert "</bdi>: 2</summary>" in listed[lamp:pump]


UNMEASURED = [
    {"name": "general ability", "status": "pass", "delta": 0.0, "margin": 0.03},
    {"name": "memory", "status": "pass", "delta": 2.0, "margin": 3.0},
    {"name": "tasks", "status": "does not apply", "delta": None, "reason": "nothing is set"},
    {"name": "latency", "status": "not measured", "delta": None, "reason": "takes no time"},
]


def test_every_guardrail_is_told_with_its_status_wherever_a_decision_is(
    everything: ReportData,
) -> None:
    data = ReportData(decision=dict(everything.decision) | {"guardrails": UNMEASURED})
    html, text = page.render(data), markdown.render(data)
    assert "2 of 3" in html
    assert "1 not measured" in html
    assert "takes no time" in html
    assert "× 2.00" in html  # the size of the index is a ratio
    assert "not measured: takes no time" in text
    assert "does not apply: nothing is set" in text
    shown = "\n".join(str(block) for block in decision_blocks(DecisionRecord.of(data.decision)))
    told = "guardrails: not measured: latency; pass: general ability, memory; does not apply: tasks"
    assert told in shown


def test_a_guardrail_says_why_it_did_not_pass(everything: ReportData) -> None:
    rows = [
        {"name": "tasks", "status": "inconclusive", "reason": "cannot say: no <label>"},
        {"name": "recommend: Bias@10", "status": "fail", "sentence": "Bias@10 goes up: broken"},
    ]
    html = page.render(ReportData(decision=dict(everything.decision) | {"guardrails": rows}))
    assert "cannot say: no &lt;label&gt;" in html
    assert "Bias@10 goes up: broken" in html
