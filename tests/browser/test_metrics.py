"""The screen of the metrics, over a real server and over a ring that a test has filled."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mullama.controller.telemetry.metrics_ring import INTERVAL, Mark, MetricsRing, ModelReading
from tests.browser.pages import opened
from tests.e2e.stack import Stack

SPANS = {"5m": 300.0, "15m": 900.0, "1h": 3600.0}
WALL = 1.7e9
CHARTS = (
    "Generated tokens", "Prompt tokens", "Time to first token", "Wait for a place", "Requests at once",
    "Ended requests", "Cache", "Memory",
)  # fmt: skip


def busy_hour() -> MetricsRing:
    """An hour in which two models answer a request in each interval, with one good and one bad change."""
    ring = MetricsRing(0.0)
    for number in range(1, 721):
        one = ModelReading(
            sums=(number, 0, 0, 100 * number, 40 * number, 50 * number), levels=(1, 2, 2**30, 4096, 1024),
            spreads=({-16: number}, {-24: number}),
        )  # fmt: skip
        ring.add(number * INTERVAL, {"small": one, "large": one}, available=2**33, devices={"CUDA0": 2**31})
    ring.mark(Mark(at=3500.0, kind="applied", message="2 models served", generation=7))
    ring.mark(Mark(at=3550.0, kind="invalid-manifest", message="line 3: no such field", generation=7))
    return ring


@pytest.fixture
def asked(page: Any) -> list[dict[str, list[str]]]:
    """Answer the requests for the history from a busy hour; the list has their queries."""
    ring, queries = busy_hour(), []

    def answer(route: Any) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        queries.append(query)
        since, model = SPANS[query["since"][0]], query.get("model", [None])[0]
        found = ring.read(3600.0, wall=WALL, since=3600.0 - since, model=model)
        route.fulfill(json={"format": "mullama.metrics/1", "now": WALL, "interval": INTERVAL, **found})

    page.route("**/api/v1/metrics/history*", answer)
    return queries


def test_the_charts_show_the_hour_with_the_changes_of_the_manifest(page: Any, stack: Stack, asked: list[Any]) -> None:
    opened(page, stack, "metrics")
    for title in CHARTS:
        page.get_by_role("region", name=title).locator("canvas").wait_for()
    page.get_by_role("img", name="Generated tokens. large: now 10 tok/s, at most 10 tok/s").wait_for()
    page.locator(".tile", has_text="From the cache").get_by_text("40 %").wait_for()
    page.get_by_text("no such field").wait_for()
    assert page.get_by_role("link", name="revision 7").get_attribute("href") == "#/history/7"
    assert page.locator(".chart").first.locator(".reload-mark").count() == 2
    page.get_by_role("link", name="1 hour").click()
    page.locator(".tile", has_text="Requests").get_by_text("1,440").wait_for()
    page.get_by_label("Model", exact=True).select_option("tiny")
    page.get_by_text("nothing in this time").first.wait_for()
    assert asked[0] == {"since": ["15m"]}
    assert {"since": ["1h"], "model": ["tiny"]} in asked


def test_the_cursor_is_in_all_charts_and_colours_follow_the_theme(page: Any, stack: Stack, asked: list[Any]) -> None:
    opened(page, stack, "metrics")
    page.locator(".u-over").first.hover(position={"x": 100, "y": 50})
    moved = "[...document.querySelectorAll('.u-cursor-x')].map(line => line.style.transform)"
    assert len(set(page.evaluate(moved))) == 1
    assert page.evaluate(moved)[0] not in ("", "translate(-10px, 0px)")
    drawn = "document.querySelector('.plot canvas').toDataURL()"
    before = page.evaluate(drawn)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => {drawn} !== before", arg=before)
    dark = page.evaluate(drawn)
    page.get_by_role("button", name="Theme").click()
    page.wait_for_function(f"before => {drawn} !== before", arg=dark)


def test_usage_is_shown_by_day_and_the_real_history_is_drawn(page: Any, stack: Stack) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    opened(page, stack, "metrics/usage")
    page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="tiny")).wait_for()
    page.get_by_role("list", name="Tokens by day").get_by_role("img").last.wait_for()
    page.get_by_role("button", name="Key", exact=True).click()
    page.get_by_role("rowheader", name="without a key").wait_for()
    page.get_by_role("link", name="Last hour").click()
    page.get_by_role("region", name="Memory").locator("canvas").wait_for()


def test_a_time_without_requests_names_the_setting(page: Any, stack: Stack) -> None:
    empty = {"format": "mullama.usage/1", "since": WALL, "until": WALL, "by": ["model"], "rows": []}
    page.route("**/api/v1/usage*", lambda route: route.fulfill(json=empty))
    opened(page, stack, "metrics/usage")
    page.get_by_text("observability.usage.keep").wait_for()


def test_a_failure_is_shown_with_its_hint_and_passes(page: Any, stack: Stack, asked: list[Any]) -> None:
    error = {"error": {"kind": "denied", "message": "the key may not read", "hint": "use one with the role read"}}
    page.route("**/api/v1/metrics/history*", lambda route: route.fulfill(status=403, json=error), times=1)
    opened(page, stack, "metrics")
    page.get_by_role("alert").get_by_text("use one with the role read").wait_for()
    page.get_by_role("link", name="5 min", exact=True).click()
    page.get_by_role("region", name="Memory").locator("canvas").wait_for()
    assert page.get_by_role("alert").count() == 0
