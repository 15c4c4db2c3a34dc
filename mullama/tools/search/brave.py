"""The web search of Brave (https://api-dashboard.search.brave.com/api-reference/web/search/get)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from mullama.tools.search.base import Hit
from mullama.tools.search.fields import record, records, text_of
from mullama.tools.search.web_requests import engine_json
from mullama.weights.located import Credential

ADDRESS: Final = "https://api.search.brave.com/res/v1/web/search"
_NAME = "Brave Search"
_MOST_RESULTS, _MOST_CHARACTERS, _MOST_WORDS = 20, 400, 50
"""Limits of the API."""


class BraveEngine:
    """Implements `SearchEngine`."""

    def __init__(self, key: str, url: str = ADDRESS) -> None:
        self._url, self._credential = url, Credential({"X-Subscription-Token": key})

    async def search(self, query: str, count: int, *, seconds: float) -> tuple[Hit, ...]:
        short = " ".join(query.split()[:_MOST_WORDS])[:_MOST_CHARACTERS]
        asked = {"q": short, "count": min(count, _MOST_RESULTS), "text_decorations": "false", "result_filter": "web"}
        tree = await engine_json(
            _NAME, f"{self._url}?{urlencode(asked)}",
            headers={}, credential=self._credential, seconds=seconds, refused="check search.key and its plan",
        )  # fmt: skip
        return hits_of(tree)[:count]


def hits_of(tree: Any) -> tuple[Hit, ...]:
    """Return the pages of an answer; one without pages has no part `web`."""
    found = records(record(tree, "web", name=_NAME), "results", name=_NAME)
    return tuple(
        Hit(
            url=text_of(one, "url"),
            title=text_of(one, "title"),
            snippet="\n".join((text_of(one, "description"), *_extra(one))).strip(),
            date=text_of(one, "page_age") or text_of(one, "age"),
        )
        for one in found
        if text_of(one, "url")
    )


def _extra(one: dict[str, Any]) -> list[str]:
    extra = one.get("extra_snippets")
    return [text for text in extra if isinstance(text, str)] if isinstance(extra, list) else []
