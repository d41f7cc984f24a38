"""The report in a real browser: readable for everybody, filtered by hand, silent towards the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

import report_kit
from nearer.report import page as report_page
from nearer.report.data import load
from test_dashboard import FLAGS
from test_report import write_run
from test_report_sections import MATTER, MISTAKES, REVIEWS, TASK, TERMS

MANY = 2000
HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>"
)
#: The rules of WCAG 2.1 A and AA, and what axe's authors advise besides.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """`queries.json` of 2,000 queries, one of them hostile."""
    queries = report_kit.queries(MANY, documents=1500)
    queries["queries"][0] |= {"text": HOSTILE, "before": 1.0, "after": 0.0}
    return queries


@pytest.fixture(scope="module")
def report(table: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "default")
    (run / "decide/queries.json").write_text(json.dumps(table))
    lines = report_kit.failures(table)
    (run / "diagnose/failures.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = run / "report.html"
    data = load("default", lambda name: run / name)
    more = {
        "decision": data.decision | MATTER,  # type: ignore[operator]
        "diagnosis": data.diagnosis | {"terms": TERMS},  # type: ignore[operator]
        "task": TASK,
        "mistakes": MISTAKES,
        "reviews": REVIEWS,
    }
    path.write_text(report_page.render(replace(data, **more)))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    assert path, "this test needs a browser: apt-get install chromium"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=FLAGS) as launched,
    ):
        yield launched


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Open]:
    """Opens the report; nothing it says on the console, and nothing it asks for, goes unnoticed."""
    contexts = []
    problems: list[str] = []
    asked: list[str] = []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert set(asked) == {report.as_uri()}


@pytest.mark.long
@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)], ids=str
)
def test_axe_finds_nothing(opened: Open, scheme: str, width: int) -> None:
    # Axe is put into the page as a script, which the page's own policy forbids.
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page.locator("#every-query button.row").first.click()
    page.locator("details.near summary").first.click()
    page.locator("#rag summary").click()
    found = Axe().run(page, options=RULES).response["violations"]
    told = [(each["id"], each["nodes"][0]["html"][:160]) for each in found]
    assert told == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_rows_are_drawn_on_demand(opened: Open, table: dict[str, Any]) -> None:
    page = opened()
    expect(page.locator("#without-script")).to_be_hidden()
    rows = page.locator("#every-query ol.rows > li")
    expect(rows).to_have_count(40)
    page.get_by_role("button", name="Show 40 more").click()
    expect(rows).to_have_count(80)
    focused = page.evaluate(
        "document.activeElement.closest('li') === document.querySelectorAll('ol.rows > li')[40]"
    )
    assert focused
    on_test = sum(row["split"] == "test" for row in table["queries"])
    expect(page.locator("#every-query output")).to_contain_text(f"{on_test:,} queries")


def test_filters_by_outcome_slice_cause_and_words(opened: Open, table: dict[str, Any]) -> None:
    page = opened()
    queries = table["queries"]
    output = page.locator("#every-query output")
    page.locator("#every-query select[name=outcome]").select_option("lost")
    lost = [row for row in queries if row["before"] > 0 and row["after"] == 0]
    on_test = [row for row in lost if row["split"] == "test"]
    expect(output).to_contain_text(f"{len(on_test):,} queries")
    page.locator("#every-query select[name=slice]").select_option(label="identifier")
    sliced = [row for row in on_test if 1 in row["slices"]]
    expect(output).to_contain_text(f"{len(sliced):,} queries")
    page.get_by_role("button", name="Clear").click()
    page.locator("#every-query select[name=split]").select_option("dev")
    page.locator("#every-query select[name=cause]").select_option(label="exact match")
    caused = [line for line in report_kit.failures(table) if line["cause"] == "exact_match"]
    expect(output).to_contain_text(f"{len(caused):,} queries")
    page.locator("#every-query input[name=words]").fill(caused[0]["query_id"])
    expect(output).to_contain_text("1 query,")
    assert 0 < len(caused) < len(lost) < MANY


def test_it_works_by_keyboard_and_shows_both_lists(opened: Open, table: dict[str, Any]) -> None:
    page = opened()
    page.locator("#every-query select[name=order]").select_option("gain")
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    button = page.locator("button.row[aria-expanded=true]")
    expect(button).to_have_count(1)
    best = max(
        (row for row in table["queries"] if row["split"] == "test"),
        key=lambda row: row["after"] - row["before"],
    )
    opened_row = page.locator("#every-query .opened")
    expect(opened_row.locator("h3")).to_have_text(["Before: today", "After: fine-tuned"])
    expect(opened_row.locator("ol li")).to_have_count(16)
    marked = opened_row.get_by_role("img", name="relevant")
    hits = [*best["before_top"], *best["after_top"]]
    expect(marked).to_have_count(hits.count(best["relevant"][0]))
    words = set(best["text"].lower().split())
    for word in opened_row.locator("mark").all_text_contents()[:5]:
        assert word.lower() in words
    page.keyboard.press("Enter")
    expect(page.locator("#every-query .opened")).to_have_count(0)


def test_texts_of_the_data_stay_texts(opened: Open) -> None:
    page = opened()
    title = page.title()
    page.locator("#every-query input[name=words]").fill("onerror")
    row = page.locator("#every-query button.row")
    expect(row).to_have_count(1)
    expect(row.locator(".query")).to_have_text(HOSTILE)
    row.click()
    assert page.locator("img").count() == 0
    assert page.title() == title


def test_an_opened_query_stands_out_in_the_picture(opened: Open) -> None:
    page = opened()
    page.locator("details.near summary").nth(1).click()
    wide = page.locator("svg.wide g.group")
    expect(
        wide.locator("xpath=self::*[@data-group='0'][not(contains(@class, 'faded'))]")
    ).to_have_count(0)
    expect(page.locator("svg.wide g.group[data-group='1'].faded")).to_have_count(0)
    page.locator("details.near summary").nth(1).click()
    expect(page.locator("svg.wide g.group.faded")).to_have_count(0)
    tooltip = page.locator("svg.wide g.group title").first
    assert "similarity" in (tooltip.text_content() or "")


def test_without_scripts_the_rest_is_there(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    expect(page.locator("#query-browser")).to_be_hidden()
    expect(page.locator("#without-script")).to_be_visible()
    expect(page.locator("#examples details.example").first).to_be_visible()
