"""The screen of models to fetch, over a server whose hub is a stub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests import ggufs
from tests.browser.pages import opened, typed
from tests.e2e.stack import Stack, serving
from tests.stub_hub import Status, StubHub

WEIGHTS = ggufs.model().bytes()


@pytest.fixture(scope="module")
def hub() -> Iterator[StubHub]:
    """A hub with one repository that fits, and one without weights."""
    with StubHub() as found:
        found.repo("org/small-GGUF", {"s-Q4_K_M.gguf": WEIGHTS, "s-Q8_0.gguf": WEIGHTS + bytes(4096)})
        found.repo("org/odd", {"odd.gguf": b"no weights"})
        yield found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, hub: StubHub) -> Iterator[Stack]:
    """A server that searches the stub."""
    folder = tmp_path_factory.mktemp("fetch")
    with serving(folder, {"tiny": "builtin:tiny"}, sources={"hf": {"endpoint": hub.url}}) as found:
        found.manifest.write_text(f"# mine\n{found.manifest.read_text()}")
        yield found


def test_a_model_is_found_rated_and_proposed_for_the_manifest(page: Any, stack: Stack) -> None:
    before = stack.manifest.read_text()
    opened(page, stack, "fetch")
    page.get_by_role("searchbox").fill("small")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="org/small-GGUF").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Q4_K_M"))
    row.get_by_text("recommended").wait_for()
    row.get_by_role("button", name="Add to the manifest").click()
    page.get_by_label("Name of the model").fill("tiny")
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_role("alert").get_by_text("declared already").wait_for()
    page.get_by_label("Name of the model").fill("fetched")
    page.get_by_label("Load it").select_option("on_demand")
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_text("edited", exact=True).wait_for()
    page.get_by_text("residency.load").wait_for()
    text = page.locator(".cm-content").inner_text()
    assert "# mine" in text
    assert "hf:org/small-GGUF:Q4_K_M" in text
    assert stack.manifest.read_text() == before
    page.evaluate("sessionStorage.clear()")


def test_the_hub_is_asked_for_the_size_of_a_step_that_the_plan_does_not_know(page: Any, stack: Stack) -> None:
    opened(page, stack, "plan")
    added = "tiny: builtin:tiny\n  more: hf:org/small-GGUF:Q4_K_M"
    typed(page, "tiny: builtin:tiny", added)
    page.get_by_role("button", name="Ask the hub").click()
    page.get_by_text(re.compile(r"about .+ to download")).wait_for()
    page.evaluate("sessionStorage.clear()")


def test_files_that_cannot_be_rated_are_listed_with_the_reason(page: Any, stack: Stack) -> None:
    opened(page, stack, "fetch/repository/org/odd")
    page.get_by_role("rowheader", name="odd.gguf").wait_for()
    page.get_by_role("alert").get_by_text("no quantization").wait_for()


@pytest.mark.parametrize("screen", ["fetch/search/small", "fetch/repository/org/small-GGUF"])
def test_a_hub_that_does_not_answer_is_shown_with_the_next_step(
    page: Any, stack: Stack, hub: StubHub, screen: str
) -> None:
    hub.script("/api/models", *[Status(503)] * 9)
    hub.script("/api/models/org/small-GGUF", *[Status(503)] * 9)
    opened(page, stack, screen)
    page.get_by_role("alert").get_by_text("try again later").wait_for()
    if "search" in screen:
        page.get_by_text("sources.hf.endpoint").wait_for()


def test_a_new_key_is_proposed_for_the_manifest(page: Any, stack: Stack) -> None:
    opened(page, stack, "keys")
    page.get_by_text("No key is declared").wait_for()
    page.get_by_label("Name", exact=True).fill("shop")
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_text("edited", exact=True).wait_for()
    assert "from_env: SHOP_KEY" in page.locator(".cm-content").inner_text()
