"""The captured requests on the page of a real server."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.browser.pages import opened
from tests.e2e.stack import Stack

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def captured(stack: Stack, text: str, model: str = "tiny", **more: Any) -> int:
    """Send a request; return the id of its capture."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4, "seed": 1, **more}
    httpx.post(f"{stack.url}/v1/chat/completions?from=test", json=body, timeout=60).raise_for_status()
    number: int = httpx.get(f"{stack.url}/api/v1/requests", timeout=30).json()["requests"][0]["id"]
    return number


def test_the_list_is_live_and_filtered(page: Any, stack: Stack) -> None:
    captured(stack, "Hello")
    opened(page, stack, "requests")
    page.get_by_role("cell", name="tiny openai").first.wait_for()
    before = page.get_by_role("row").count()
    captured(stack, "Hello", model="default")
    page.get_by_text("asked for default").wait_for()
    assert page.get_by_role("row").count() == before + 1
    page.get_by_label("Name in the request").select_option("default")
    page.get_by_text(f"1 of {before}", exact=True).wait_for()
    page.get_by_label("Key").select_option("no key")
    assert page.get_by_role("row").count() == 2


def test_a_request_is_sent_again_and_compared(page: Any, stack: Stack) -> None:
    number = captured(stack, "What is the capital of France?", temperature=0)
    opened(page, stack, f"requests/{number}")
    page.get_by_role("region", name="Body of the request").get_by_text('"seed": 1').wait_for()
    page.get_by_text("/v1/chat/completions?from=test").wait_for()
    first = page.get_by_role("region", name="Answer", exact=True).locator("pre").inner_text()
    page.get_by_role("button", name="Send again").click()
    again = page.get_by_role("region", name="Answer when sent again").locator("pre")
    again.wait_for()
    assert again.inner_text() == first
    facts = page.get_by_role("region", name="Facts")
    facts.get_by_role("heading", name="Sent again").wait_for()
    assert facts.get_by_text(" cached").count() == 2
    assert facts.get_by_role("link", name="tiny").first.get_attribute("href") == "#/models/tiny"


def test_a_request_is_opened_in_the_playground(page: Any, stack: Stack) -> None:
    number = captured(stack, "Open me", tools=[{"type": "function", "function": {"name": "f"}}])
    opened(page, stack, f"requests/{number}")
    page.get_by_role("button", name="Open in the playground").click()
    page.get_by_role("region", name="Messages with tiny").get_by_text("Open me").wait_for()
    assert page.get_by_label("Seed").input_value() == "1"
    page.get_by_text("set", exact=True).wait_for()


def test_a_request_without_its_body_says_why_it_cannot_be_sent_again(page: Any, stack: Stack) -> None:
    number = captured(stack, "Hello")
    url = f"{stack.url}/api/v1/requests/{number}"
    capture = httpx.get(url, timeout=30).json()
    capture |= {"body": None, "path": None, "prompt": None, "answer": None, "omitted": "its body has 9 MiB"}
    page.route(url, lambda route: route.fulfill(json=capture))
    opened(page, stack, f"requests/{number}")
    page.get_by_text("It cannot be sent again: its body has 9 MiB.").wait_for()
    assert page.get_by_role("button", name="Send again").is_disabled()
    assert page.get_by_role("button", name="Open in the playground").is_disabled()
    assert page.get_by_text("Not kept").count() == 3


def test_large_and_binary_texts_are_shortened(page: Any, stack: Stack) -> None:
    number = captured(stack, "Hello")
    url = f"{stack.url}/api/v1/requests/{number}"
    capture = httpx.get(url, timeout=30).json()
    body = {"messages": [{"role": "user", "content": "see", "images": [PIXEL * 100]}]}
    capture |= {"body": json.dumps(body), "prompt": "\x00\x1b\u202e" + "p" * 3_000_000}
    page.route(url, lambda route: route.fulfill(json=capture))
    opened(page, stack, f"requests/{number}")
    page.get_by_text("… (9,600 characters)").wait_for()
    page.get_by_text("␀␛\\u202epp").wait_for()
    page.get_by_role("button", name="Show more; 2,900,003 characters are left").wait_for()
    assert page.evaluate("document.body.innerText.length") < 200_000


def test_a_capture_that_left_the_list_is_an_error_with_a_way_back(page: Any, stack: Stack) -> None:
    opened(page, stack, "requests/999999")
    page.get_by_role("alert").get_by_text("there is no capture 999999").wait_for()
    page.get_by_role("link", name="All requests").click()
    page.get_by_role("heading", name="Requests").wait_for()


def test_the_calls_of_tools_of_a_turn_are_shown(page: Any, stack: Stack) -> None:
    number = captured(stack, "Hello")
    url = f"{stack.url}/api/v1/requests/{number}"
    capture = httpx.get(url, timeout=30).json()
    assert (capture["turn"], capture["calls"]) == (0, [])
    call = {"server": "docs", "name": "read", "arguments": {"page": 1}, "is_error": False, "seconds": 0.25}
    capture |= {"turn": 1, "calls": [call | {"text": "page 1"}]}
    page.route(url, lambda route: route.fulfill(json=capture))
    opened(page, stack, f"requests/{number}")
    page.get_by_text("2 of its answer, after calls of tools").wait_for()
    page.get_by_text("docs/read", exact=True).wait_for()
    calls = page.get_by_role("region", name="Calls of tools")
    assert calls.locator("pre").inner_text() == 'docs/read {"page":1}, 250 ms\npage 1'
