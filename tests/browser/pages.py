"""What the tests of several screens do with the page."""

from __future__ import annotations

import json
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


def kept_conversation(messages: int) -> str:
    """An exported conversation of questions and answers."""
    tree = {}
    for number in range(messages):
        role = "assistant" if number % 2 else "user"
        text = f"Text **{number}** with `code`.\n\n```python\nx = {number}\n```\n\n" + "More words. " * 3
        tree[f"m{number}"] = {"role": role, "content": text, "parent": f"m{number - 1}" if number else None}
    conversation = {"title": "Long", "model": "words", "messages": tree, "leaf": f"m{messages - 1}"}
    return json.dumps({"format": "mullama.conversations/1", "conversations": [conversation]})
