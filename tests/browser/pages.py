"""What the tests of several screens do with the page."""

from __future__ import annotations

from typing import Any

from tests.e2e.stack import Stack


def opened(page: Any, stack: Stack, screen: str = "") -> Any:
    page.goto(f"{stack.url}/ui/#/{screen}")
    return page


def typed(page: Any, before: str, after: str) -> None:
    """Replace a text in the editor by a paste."""
    page.get_by_role("textbox", name="Text of the manifest").click()
    text = page.locator(".cm-content").inner_text().replace(before, after)
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+v")
