"""The screens of the page over a real server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from mullama.web import build
from tests.browser.pages import opened
from tests.e2e.stack import Stack

HOSTILE = """<script>window.stolen = 1</script><img src=x onerror="window.stolen = 1">
[link](javascript:window.stolen=1) <a href="javascript:window.stolen=1">b</a> ![p](https://example.org/p.png)
"""


def test_the_overview_shows_each_model_and_follows_the_server(page: Any, stack: Stack) -> None:
    opened(page, stack)
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="spare"))
    row.get_by_text("idle").wait_for()
    page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="tiny")).get_by_text("ready").wait_for()
    httpx.post(f"{stack.url}/api/models/load", json={"name": "spare"}, timeout=60).raise_for_status()
    row.get_by_text("ready").wait_for()
    httpx.post(f"{stack.url}/api/models/spare/unload", json={}, timeout=60).raise_for_status()
    row.get_by_text("idle").wait_for()


def test_a_long_name_of_a_model_stays_in_its_column(page: Any, stack: Stack) -> None:
    opened(page, stack)
    header = page.get_by_role("rowheader", name="spare")
    header.get_by_role("link").evaluate("link => { link.textContent = 'org/' + 'a-long-name-'.repeat(6); }")
    assert page.locator("th.model").nth(1).evaluate("cell => cell.scrollWidth <= cell.clientWidth")


def test_the_first_screen_loads_at_most_its_budget(page: Any, stack: Stack) -> None:
    opened(page, stack)
    page.get_by_role("rowheader", name="tiny").wait_for()
    files = page.evaluate(
        """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
        .filter((one) => one.name.includes("/ui/"))
        .map((one) => [one.name, one.encodedBodySize, one.decodedBodySize])"""
    )
    assert sum(size for _, size, _ in files) <= build.FIRST_SCREEN
    assert all(size < decoded for name, size, decoded in files if name.endswith((".js", ".css")))  # compressed


def test_a_conversation_has_branches_and_survives_a_reload(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Message", exact=True).fill("What is the capital of France?")
    page.get_by_role("button", name="Send").click()
    page.locator(".markdown").get_by_text("Paris").first.wait_for()
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2 of 2").wait_for()
    page.get_by_role("button", name="Earlier version").click()
    page.get_by_text("1 of 2").wait_for()
    page.reload()
    page.get_by_text("1 of 2").wait_for()
    page.locator(".markdown").get_by_text("Paris").first.wait_for()


def test_a_request_is_shown_with_its_prompt_and_answer(page: Any, stack: Stack) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": HOSTILE}], "max_tokens": 3}
    httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    opened(page, stack, "requests")
    page.get_by_role("row").nth(1).get_by_role("link").first.click()
    page.get_by_text("<script>window.stolen = 1</script>").first.wait_for()
    assert page.evaluate("window.stolen") is None


@pytest.mark.parametrize("source", [HOSTILE, f"```html\n{HOSTILE}\n```", f"# {HOSTILE}", f"- {HOSTILE}"])
def test_no_text_of_a_model_runs_or_loads_anything(page: Any, stack: Stack, source: str) -> None:
    wanted: list[str] = []
    page.on("request", lambda request: wanted.append(request.url))
    line = {"message": {"role": "assistant", "content": source}, "done": True, "eval_count": 1, "eval_duration": 1}
    page.route("**/api/models/chat", lambda route: route.fulfill(json=line, content_type="application/x-ndjson"))
    opened(page, stack, "playground")
    page.get_by_label("Message", exact=True).fill("Attack")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="Regenerate").wait_for()
    assert page.evaluate("window.stolen") is None
    assert page.locator(".markdown a[href^='javascript']").count() == 0
    assert page.locator(".markdown img, .markdown script").count() == 0
    assert all(url.startswith(stack.url) for url in wanted)
