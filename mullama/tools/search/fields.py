"""Reads the fields of a search engine's JSON answer. Pure."""

from __future__ import annotations

import html
import re
from typing import Any, Final

from mullama.errors import ToolsUnavailable

_TAG = re.compile(r"</?(?:b|strong|em|i|mark|span|br|p)\b[^<>]{0,200}>", re.IGNORECASE)
_MOST: Final = 4000
"""Characters of one field."""


def record(tree: Any, key: str, *, name: str) -> dict[str, Any]:
    """Return an object of the answer; {} where it is absent. Raises `ToolsUnavailable` for another form."""
    if not isinstance(tree, dict) or not isinstance(tree.get(key) or {}, dict):
        raise ToolsUnavailable(f"{name} sent an answer of another form", hint="is search.url the address of its API?")
    return tree.get(key) or {}


def records(tree: Any, key: str, *, name: str) -> list[dict[str, Any]]:
    """Return the objects of a list of the answer; [] where it is absent. Raises as `record`."""
    if not isinstance(tree, dict) or not isinstance(tree.get(key) or [], list):
        raise ToolsUnavailable(f"{name} sent an answer of another form", hint="is search.url the address of its API?")
    return [one for one in tree.get(key) or [] if isinstance(one, dict)]


def text_of(one: dict[str, Any], key: str) -> str:
    """Return a text of a result without the marks around words of the question; "" for another type."""
    text = one.get(key)
    if not isinstance(text, str):
        return ""
    return " ".join(html.unescape(_TAG.sub("", text[:_MOST])).split())
