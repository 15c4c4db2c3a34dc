"""Revisions compared, and undone with their plan first."""

from __future__ import annotations

from typing import Any

import httpx

from tests.browser.pages import opened
from tests.e2e.stack import Stack


def test_two_revisions_are_compared_and_the_older_one_is_applied_again(page: Any, stack: Stack) -> None:
    before = stack.manifest.read_text()
    stack.manifest.write_text(before.replace("on_demand", "at_start"))
    stack.apply()
    opened(page, stack, "history")
    page.get_by_label("Compare revision 2").check()
    page.get_by_label("Compare revision 1").check()
    region = page.get_by_role("region", name="Revision 1 against 2")
    region.get_by_text("residency.load").wait_for()
    region.get_by_role("button", name="Text").click()
    region.locator(".cm-deletedChunk").get_by_text("load: on_demand").wait_for()
    region.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Plan the undo").first.click()
    page.get_by_text("residency.load").wait_for()
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("heading", name="Keys", exact=True).wait_for()
    page.get_by_role("link", name="History", exact=True).click()
    page.get_by_role("heading", name="Back to revision 1").wait_for()
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("status").filter(has_text="applied").last.wait_for()
    page.get_by_role("cell", name="page (undo)").wait_for()
    applied = httpx.get(f"{stack.url}/api/v1/stack", timeout=30).json()
    assert applied["manifest"]["models"]["spare"]["residency"]["load"] == "on_demand"
    stack.manifest.write_text(before)


def test_the_address_of_a_revision_shows_its_changes(page: Any, stack: Stack) -> None:
    opened(page, stack, "history/2")
    page.get_by_role("region", name="Revision 1 against 2").get_by_text("residency.load").wait_for()
    assert page.locator("tr[aria-current]").get_by_role("rowheader").inner_text() == "2"
    page.get_by_role("link", name="Revision 1", exact=True).click()
    page.get_by_text("the oldest one that is kept").wait_for()
    opened(page, stack, "history/99")
    page.get_by_role("alert").get_by_text("Revision 99 is not kept").wait_for()


def test_a_history_that_could_not_be_read_is_read_again_after_a_lost_connection(page: Any, stack: Stack) -> None:
    page.route("**/api/v1/history", lambda route: route.abort())
    page.route("**/api/v1/live", lambda route: route.abort())
    opened(page, stack, "history")
    page.get_by_role("alert").get_by_text("the server does not answer").wait_for()
    page.unroute("**/api/v1/history")
    page.unroute("**/api/v1/live")
    page.get_by_role("link", name="Revision 1", exact=True).wait_for()
    page.get_by_role("alert").wait_for(state="detached")
