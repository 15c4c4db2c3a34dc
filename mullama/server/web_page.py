"""The web page at `/ui/`: the built files of `mullama.web`, with the headers that confine the page to this server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mullama.dialects.base import Reply
from mullama.errors import NotFound, Unavailable
from mullama.runtime.base import Service
from mullama.server.http.exchange import OPERATOR, Exchange
from mullama.server.route_table import HttpRoute, RouteSchema
from mullama.struct import Struct

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_INDEX = "index.html"
_FOREVER = "public, max-age=31536000, immutable"
"""For scripts and styles: their names hold a digest of their content after a hyphen."""


class _File(Struct, frozen=True, kw_only=True):
    """One file of the page."""

    content: bytes
    compressed: bytes | None
    """By gzip."""
    media_type: str


PAGE_ROUTES: Final = ("/ui", "/ui/", "/ui/{name}")
"""The routes of the page; an open of the page asks for some ten files."""


class WebPage:
    """Serves the files of one folder, where the manifest allows it. They are read with the first request.

    folder: `mullama.web.build.DIST`. A build replaces its files, and the page of the new build is served then.
    """

    def __init__(self, service: Service, folder: Path) -> None:
        self._service, self._folder = service, folder
        self._stamp = 0.0
        self._files: Mapping[str, _File] = {}

    def routes(self) -> list[HttpRoute]:
        """Return the routes of the page."""
        page = RouteSchema(summary="Get the web page, or a file of it", raw=False, response={"type": "string"})
        return [
            HttpRoute(
                method="GET", path=path, access="public", handler=handler, error_format=OPERATOR, schema=page,
                answers_early=True,
            )
            for path, handler in zip(PAGE_ROUTES, (self._redirect, self._page, self._file), strict=True)
        ]  # fmt: skip

    async def _redirect(self, exchange: Exchange, _: Mapping[str, str]) -> None:
        self._check_enabled(exchange.path)
        await exchange.reply(Reply(status=308, headers={"location": "ui/"}))  # relative, for a proxy with a prefix

    async def _page(self, exchange: Exchange, _: Mapping[str, str]) -> None:
        self._check_enabled(exchange.path)
        await self._send(exchange, _INDEX, "no-cache")

    async def _file(self, exchange: Exchange, params: Mapping[str, str]) -> None:
        self._check_enabled(exchange.path)
        name = params["name"]
        await self._send(exchange, name, _FOREVER if "-" in name else "no-cache")

    def _check_enabled(self, path: str) -> None:
        if not self._service.access().manifest.server.ui:
            raise NotFound(f"there is nothing at {path[:200]!r}", hint="the web page is switched off: see server.ui")

    async def _send(self, exchange: Exchange, name: str, cache: str) -> None:
        files = self._files if self._is_current() else await asyncio.to_thread(self._current)
        if not files:
            raise Unavailable(
                "the web page is not part of this installation",
                hint="build it with `make ui`, or `python -m mullama.web.build`; it needs Node",
            )
        file = files.get(name)
        if file is None:
            raise NotFound(f"there is nothing at {exchange.path[:200]!r}", hint="the page is at /ui/")
        headers = {**HEADERS, "cache-control": cache}
        exchange.extra["vary"] = "Origin, Accept-Encoding"
        content = file.content
        if file.compressed is not None and "gzip" in exchange.headers.get("accept-encoding", ""):
            content, headers["content-encoding"] = file.compressed, "gzip"
        await exchange.reply(Reply(headers=headers), encoded=(content, file.media_type))

    def _is_current(self) -> bool:
        """Return True if the files that were read are those of the folder, which one look at the disk shows."""
        return self._stamp == self._built()

    def _built(self) -> float:
        """Return when the page was built; 0 where it was not."""
        try:
            return (self._folder / _INDEX).stat().st_mtime
        except OSError:
            return 0.0

    def _current(self) -> Mapping[str, _File]:
        """Return the files by name, read again after a build; none where the page was not built."""
        stamp = self._built()
        self._files, self._stamp = self._read() if stamp else {}, stamp
        return self._files

    def _read(self) -> Mapping[str, _File]:
        found = {}
        for path in self._folder.iterdir():
            if media_type := _MEDIA_TYPES.get(path.suffix):
                packed = path.with_name(f"{path.name}.gz")
                compressed = packed.read_bytes() if packed.is_file() else None
                found[path.name] = _File(content=path.read_bytes(), compressed=compressed, media_type=media_type)
        return found
