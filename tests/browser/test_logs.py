"""The log of a real server in the page."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.browser.test_page import HOSTILE, opened
from tests.e2e.stack import Stack


def ask(stack: Stack, model: str = "tiny") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()


def test_the_log_is_followed_paused_and_followed_again(page: Any, stack: Stack) -> None:
    ask(stack)
    opened(page, stack, "logs")
    log = page.get_by_role("listbox", name="Lines of the log")
    log.get_by_role("option").filter(has_text="200 POST /v1/chat/completions").first.wait_for()
    page.get_by_role("button", name="Pause").click()
    ask(stack)
    page.get_by_text(re.compile("paused, .* new line")).wait_for()
    page.get_by_role("button", name="Follow").click()
    page.get_by_text("following", exact=True).wait_for()


def test_lines_are_filtered_by_model_level_and_text_and_one_is_shown_in_full(page: Any, stack: Stack) -> None:
    ask(stack)
    opened(page, stack, "logs/tiny")
    lines = page.get_by_role("listbox", name="Lines of the log").get_by_role("option")
    lines.filter(has_text="200 POST /v1/chat/completions").last.click()
    page.get_by_label("The chosen line").get_by_text("completion_tokens=1").wait_for()
    page.get_by_label("Text", exact=True).fill("no such text")
    page.get_by_text("No line matches").wait_for()
    page.get_by_label("Text", exact=True).fill("")
    page.get_by_label("Lowest level").select_option("error")
    page.get_by_text("No line matches").wait_for()


def test_ten_thousand_hostile_lines_are_a_few_elements_without_power(page: Any, stack: Stack) -> None:
    text = f"\x1b[31mred\x1b[0m \u202e{HOSTILE}"
    line = {"level": "warning", "part": "workers", "models": [], "when": 1.0}
    lines = [{**line, "id": number, "text": f"{number} {text}"} for number in range(1, 10_000)]
    lines.append({**line, "id": 10_000, "text": "x" * 1_000_000})
    answer = {"format": "mullama.logs/1", "last": 10_000, "lines": lines}
    page.route(re.compile("api/v1/logs\\?"), lambda route: route.fulfill(json=answer))
    opened(page, stack, "logs")
    page.get_by_text("10,000 lines").wait_for()
    log = page.get_by_role("listbox", name="Lines of the log")
    options = log.get_by_role("option")
    assert options.count() < 200
    log.focus()
    page.keyboard.press("Home")
    page.get_by_label("The chosen line").get_by_text("1 ").first.wait_for()
    first = options.first.inner_text()
    assert "␛[31mred" in first
    assert "\\u202e" in first
    assert page.evaluate("window.stolen") is None
    assert page.locator(".log-list img, .log-list script, .log-list a").count() == 0
    page.keyboard.press("End")
    page.get_by_label("The chosen line").get_by_text("xxxx").wait_for()


def test_events_lead_to_their_model_and_revision(page: Any, stack: Stack) -> None:
    opened(page, stack, "logs/tiny")
    events = page.get_by_role("region", name="Events of tiny")
    events.get_by_role("link", name="revision").first.wait_for()
    events.get_by_role("link", name="tiny", exact=True).first.click()
    page.get_by_role("heading", name="tiny", exact=True).wait_for()


def test_the_log_of_a_key_without_the_role_is_refused_in_its_place(page: Any, stack: Stack) -> None:
    refused = {"error": {"kind": "denied", "message": "no role admin", "hint": "use another key"}}
    page.route(re.compile("api/v1/logs"), lambda route: route.fulfill(status=403, json=refused))
    opened(page, stack, "logs")
    page.get_by_role("alert").get_by_text("no role admin").wait_for()


@pytest.mark.parametrize("width", [360, 900, 1280])
def test_the_field_for_a_text_has_room_at_every_width(page: Any, stack: Stack, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, stack, "logs")
    field = page.get_by_label("Text", exact=True).bounding_box()
    panel = page.get_by_role("region", name="Log", exact=True).bounding_box()
    assert field["width"] >= 120
    assert field["x"] + field["width"] <= panel["x"] + panel["width"]
