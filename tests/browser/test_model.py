"""The page of a model over a real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.browser.test_page import opened
from tests.e2e.stack import Stack, stack_in

TEXT = """mullama: v1
server: {listen: ["127.0.0.1:0"]}
defaults: {context: {size: 1024}}
models:
  tiny: {from: builtin:tiny, system: You are short.}
  twin: {like: tiny, system: You are long., residency: {load: on_demand}}
  org/spare:q8: {like: tiny, context: {size: 512}, residency: {load: on_demand}}
routes: {default: tiny}
profiles:
  wide: {models: {tiny: {context: {size: 2048}}}}
observability: {captures: {size: 1MiB, bodies: all}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server whose models have values of several layers."""
    with stack_in(tmp_path_factory.mktemp("model")) as found:
        found.write_text(TEXT)
        found.start("serve", "-f", found.name, "--profile", "wide")
        found.ready()
        yield found


def test_each_value_shows_its_layer_and_line(page: Any, stack: Stack) -> None:
    opened(page, stack)
    page.get_by_role("rowheader", name="tiny").get_by_role("link").click()
    size = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="context.size"))
    size.get_by_text("2048").wait_for()
    size.get_by_text("profile wide").wait_for()
    size.get_by_text("mullama.yaml:10").wait_for()
    page.get_by_label("Filter the values").fill("keep.ram")
    page.get_by_role("row").filter(has_text="residency.keep.ram").get_by_text("built in").wait_for()


def test_a_model_is_loaded_and_unloaded_with_the_result_beside_the_buttons(page: Any, stack: Stack) -> None:
    opened(page, stack, "models/org%2Fspare%3Aq8")
    page.get_by_role("heading", name="org/spare:q8", exact=True).wait_for()
    page.get_by_role("button", name="Load", exact=True).click()
    page.get_by_text("ready after").wait_for()
    page.get_by_role("button", name="Unload").click()
    page.get_by_text("unloaded in").wait_for()
    page.route("**/api/models/load", lambda route: route.fulfill(status=422, json=REFUSED))
    page.get_by_role("button", name="Load", exact=True).click()
    page.get_by_role("alert").get_by_text("unload another model").wait_for()


def test_an_unload_of_a_shared_context_names_the_other_model(page: Any, stack: Stack) -> None:
    for _ in range(2):  # the second time right after the screen was opened
        opened(page, stack, "models/twin")
        page.get_by_role("button", name="Unload").click()
        page.get_by_text(re.compile("unloaded in .*, and with it tiny")).wait_for()
        page.get_by_role("button", name="Load", exact=True).click()
        page.get_by_text("ready after").wait_for()
        page.goto("about:blank")


def test_requests_that_an_unload_waits_for_keep_no_button_off(page: Any, stack: Stack) -> None:
    opened(page, stack, "models/twin")
    page.get_by_role("button", name="Unload").wait_for()
    unload = re.compile("/twin/unload")
    page.route(unload, lambda route: route.fulfill(json={"status": "unloading"}))  # as while a request runs
    page.get_by_role("button", name="Unload").click()
    page.get_by_text("unloading after its requests").wait_for()
    assert page.get_by_role("button", name="Reload").is_enabled()
    page.get_by_role("alert").get_by_text("loaded it again").wait_for()
    page.unroute(unload)
    page.get_by_role("button", name="Unload").click()
    page.get_by_text("unloaded in").wait_for()
    page.get_by_role("button", name="Load", exact=True).click()
    page.get_by_text("ready after").wait_for()


def test_a_look_at_a_model_loads_nothing(page: Any, stack: Stack) -> None:
    opened(page, stack, "models/org%2Fspare%3Aq8")
    page.get_by_label("offer a tool").check()
    page.get_by_label("Rendered prompt").get_by_text("get_weather").wait_for()
    models = httpx.get(f"{stack.url}/api/v1/status", timeout=30).json()["models"]
    assert next(one for one in models if one["name"] == "org/spare:q8")["state"] == "idle"


REFUSED = {"error": {"kind": "refused", "message": "no room", "hint": "unload another model"}}


def test_the_template_is_rendered_with_an_edited_conversation_and_a_tool(page: Any, stack: Stack) -> None:
    opened(page, stack, "models/tiny")
    prompt = page.get_by_label("Rendered prompt")
    prompt.get_by_text("And tomorrow?").wait_for()
    page.get_by_label("Text of message 4").fill("<script>window.stolen = 1</script>")
    page.get_by_label("offer a tool").check()
    prompt.get_by_text("get_weather").wait_for()
    prompt.get_by_text("<script>window.stolen = 1</script>").wait_for()
    page.get_by_role("button", name="Count the tokens").click()
    page.get_by_text(" tokens", exact=False).first.wait_for()
    assert page.evaluate("window.stolen") is None


def test_caches_requests_and_the_log_of_the_worker_are_shown(page: Any, stack: Stack) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    opened(page, stack, "models/default")
    page.get_by_text("conversation kept for its next turn").first.wait_for()
    page.get_by_role("region", name="Requests").get_by_role("link").first.wait_for()
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_label("Log of the worker").get_by_text("general.architecture").wait_for()


def test_an_unknown_model_is_named_with_similar_ones(page: Any, stack: Stack) -> None:
    opened(page, stack, "models/tyny")
    page.get_by_role("alert").get_by_text("model 'tyny' not found").wait_for()
