"""Fetches the images and sounds that a request names by address."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from mullama.chat import types as chat
from mullama.chat.media.formats import KINDS, format_of
from mullama.chat.media.limits import check_count
from mullama.chat.media_marks import media_of
from mullama.chat.prompt import check_kinds
from mullama.errors import Invalid, MullamaError, Refused, TooLarge, Unsupported
from mullama.manifest.spec import Manifest
from mullama.manifest.spec.web_origins import canonical_host, host_pattern
from mullama.runtime.snapshot import Deployment
from mullama.struct import replace

_R = TypeVar("_R", bound="chat.TextRequest")
_MOST_FETCHES = 16
Fetch = Callable[[str, Callable[[str], bool], int, Callable[[], bool], Callable[[int], None]], bytes]
"""See `sources.media.fetch_medium`."""


def names_addresses(request: chat.TextRequest) -> bool:
    """Return True if a request names a medium by its address."""
    return any(map(_is_address, _parts(request)))


async def with_fetched(
    request: _R,
    deployment: Deployment,
    manifest: Manifest,
    take: Callable[[int], None] = lambda count: None,
    fetch: Fetch | None = None,
) -> _R:
    """Return the request with the files of its addresses.

    take: reserves their bytes as they arrive, and may raise `Unavailable`; see `runtime.base.MemoryShare`.

    Raises `Unsupported` for a model that does not read them, for a manifest that allows no host, and for a host that
    it does not allow, `TooLarge` for too many media and for a file that is too large, and `Invalid` for a file that
    cannot be fetched.
    """
    parts = tuple(_parts(request))
    linked = tuple(filter(_is_address, parts))
    if not linked:
        return request
    check_kinds(parts, deployment.settings)
    if not manifest.server.fetch_media:
        raise Unsupported(
            f"{linked[0].place or 'the request'} names an address, and this server fetches none",
            hint="send the file itself as a data: URI, or list its host in server.fetch_media of the manifest",
            field=linked[0].place or "messages",
        )
    limits = deployment.settings.media_limits
    check_count(len(parts), limits)
    patterns = [host_pattern(text) for text in manifest.server.fetch_media]

    def permits(host: str) -> bool:
        return any(pattern.fullmatch(canonical_host(host)) for pattern in patterns)

    get, loop, over = fetch or _fetcher(), asyncio.get_running_loop(), threading.Event()
    files: dict[str, bytes] = {}
    refusals: list[MullamaError] = []

    def reserve(count: int) -> None:
        try:
            take(count)
        except MullamaError as error:
            refusals.append(error)
            raise

    try:
        for part in linked:
            url, most = part.url or "", limits.bytes(part.kind)
            if url not in files:
                try:
                    files[url] = await loop.run_in_executor(_threads(), get, url, permits, most, over.is_set, reserve)
                except TooLarge:
                    raise
                except MullamaError as error:
                    if error in refusals:
                        raise
                    kind = Unsupported if isinstance(error, Refused) else Invalid
                    raise kind(f"{part.place}: {error.message}", hint=error.hint, field=part.place) from error
    finally:
        over.set()  # the client may be gone: its fetch ends, and with it the wait of the process at its exit
    return _filled(request, files)


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads for fetches alone: slow hosts would else use all those that prepare prompts."""
    return ThreadPoolExecutor(_MOST_FETCHES, thread_name_prefix="media")


def _fetcher() -> Fetch:
    from mullama.sources.media import fetch_medium  # with an HTTP client, which few requests need

    return fetch_medium


def _is_address(part: chat.MediaPart) -> bool:
    return part.data is None and part.url is not None


def _parts(request: chat.TextRequest) -> Iterable[chat.MediaPart]:
    if isinstance(request, chat.ChatRequest):
        return media_of(request.messages)
    return request.media if isinstance(request, chat.CompletionRequest) else ()


def _filled(request: _R, files: dict[str, bytes]) -> _R:
    def filled(part: chat.Part) -> chat.Part:
        data = files.get(part.url or "") if isinstance(part, chat.MediaPart) and part.data is None else None
        if data is None or not isinstance(part, chat.MediaPart):
            return part
        name = format_of(data)
        return replace(part, data=data, kind=KINDS[name] if name else part.kind)

    if isinstance(request, chat.ChatRequest):
        messages = tuple(replace(m, content=tuple(map(filled, m.content))) for m in request.messages)
        return replace(request, messages=messages)
    return replace(request, media=tuple(map(filled, request.media)))  # type: ignore[attr-defined]
