"""The dashboard in a real browser: it reads, follows what happens, and moves generations for token holders only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from generations_kit import World
from nearer.live.monitor.series import Row, Series
from nearer.live.web.service import Service, Tokens
from test_serve import ask, made, models, serving, world  # noqa: F401 - fixtures

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    path = next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )
    assert path, "this test needs a browser: apt-get install chromium"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=FLAGS) as browser,
    ):
        yield browser.new_page()


@pytest.mark.long
def test_it_reads_and_moves_generations(
    world: World, models: tuple[Path, Path], page: Page
) -> None:
    old, new = str(world.generations.pointer().id), made(world, models[1])
    hostile = "<script>document.title = 'taken'</script>"
    series = Series(world.root / "monitor" / "series.db")
    today = world.generations.history()[-1]["time"][:10]
    alert = {
        "condition": "score_drift",
        "since": today,
        "slice": "all",
        "what": hostile,
        "do": "look",
        "examples": [hostile],
    }
    series.append(
        today,
        [Row(today, "quality nDCG@10", 0.5), Row(today, "quality nDCG@10", 0.4, 0.3, 0.5, "short")],
        [alert],
        ["score_drift"],
    )
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    with serving(Service(world.generations, Tokens("admin-secret"))) as address:
        page.goto(f"{address}/dashboard")
        assert page.title().startswith(old)
        text = page.inner_text("body")
        for expected in (
            f"{old} answers",
            "the first generation",
            hostile,
            "quality nDCG@10",
            "short",
            new,
        ):
            assert expected in text
        assert page.locator("svg.chart").count() == 1

        page.click(f"button[data-generation='{new}']")
        page.fill("input[name=token]", "wrong")
        page.click("dialog button.strong")
        expect(page.locator("dialog output")).to_contain_text("a token is needed")
        assert world.generations.pointer().id == old
        page.fill("input[name=token]", "admin-secret")
        page.click("dialog button.strong")
        expect(page.locator("dialog output")).to_contain_text("no decision")
        assert world.generations.pointer().id == old
        page.fill("input[name=why]", "tried by hand")
        page.click("dialog button.strong")
        page.wait_for_selector(f"text={new} answers")
        assert world.generations.pointer().id == new
        assert "tried by hand" in page.inner_text("#active")

        page.wait_for_selector("dialog", state="hidden")
        page.click("button[data-action=rollback]")
        page.fill("input[name=token]", "admin-secret")
        page.click("dialog button.strong")
        page.wait_for_selector(f"text={old} answers")
        page.wait_for_selector("dialog", state="hidden")
        world.generations.cutover(new, override="from elsewhere")  # the page follows by itself
        page.wait_for_selector(f"text={new} answers", timeout=15_000)
        assert [one for one in problems if "401" not in one and "409" not in one] == []

        page.set_viewport_size({"width": 375, "height": 720})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_selector(
        "#stale:not([hidden])", timeout=15_000
    )  # it says so when the service is gone


def test_nothing_is_loaded_from_elsewhere(world: World, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serving(Service(world.generations, Tokens())) as address:
        page.goto(f"{address}/dashboard")
        page.wait_for_timeout(300)
        assert all(url.startswith(address) for url in asked), json.dumps(asked)
