"""The JSON API of SearXNG (https://docs.searxng.org/dev/search_api.html)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from mullama.tools.search.base import Hit
from mullama.tools.search.fields import records, text_of
from mullama.tools.search.web_requests import engine_json
from mullama.weights.located import Credential

_NAME = "the SearXNG server"
_NO_JSON = "add json to search.formats in the settings of the SearXNG server"


class SearxngEngine:
    """Implements `SearchEngine`. url: of the server, with or without `/search`. key: sent as a bearer token."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = f"{url.rstrip('/').removesuffix('/search')}/search"
        self._credential = Credential({"Authorization": f"Bearer {key}"} if key else {})

    async def search(self, query: str, count: int, *, seconds: float) -> tuple[Hit, ...]:
        tree = await engine_json(
            _NAME, f"{self._url}?{urlencode({'q': query, 'format': 'json'})}",
            headers={}, credential=self._credential, seconds=seconds, refused=_NO_JSON,
        )  # fmt: skip
        return hits_of(tree)[:count]


def hits_of(tree: Any) -> tuple[Hit, ...]:
    """Return the pages of an answer; results without an address, such as those of a calculator, are left out."""
    return tuple(
        Hit(
            url=text_of(one, "url"),
            title=text_of(one, "title"),
            snippet=text_of(one, "content"),
            date=text_of(one, "publishedDate"),
        )
        for one in records(tree, "results", name=_NAME)
        if text_of(one, "url")
    )
