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
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("status").filter(has_text="applied").last.wait_for()
    applied = httpx.get(f"{stack.url}/api/v1/stack", timeout=30).json()
    assert applied["manifest"]["models"]["spare"]["residency"]["load"] == "on_demand"
    stack.manifest.write_text(before)
