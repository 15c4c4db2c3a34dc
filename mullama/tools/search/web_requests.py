"""Requests of a search: the JSON of a search engine, and pages of the web.

A search engine is the operator's choice, and may be inside a network. A page is the choice of a model or of a stranger:
only public addresses are asked, also after a redirect, and only text is read.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final, TypeVar

from mullama.errors import (
    Busy,
    Denied,
    Invalid,
    MullamaError,
    Refused,
    TimedOut,
    ToolsUnavailable,
    TransferFailed,
    Unavailable,
    Unsupported,
)
from mullama.manifest.host_addresses import is_host
from mullama.sources.http_client import HttpResponse, TransientError, Web
from mullama.sources.network import Allowed, Cancellation, is_public
from mullama.sources.settings import Timeouts
from mullama.struct import Struct
from mullama.weights.located import Credential

T = TypeVar("T")
_MOST_ANSWER: Final = 4 * 1024**2
_MOST_REQUESTS: Final = 16
_LONGEST_PAUSE: Final = 3600.0
_MEDIA: Final = re.compile(r"\s*([\w.+-]+/[\w.+-]+)\s*(?:;.*?\bcharset\s*=\s*[\"']?([\w.:-]{1,40}))?", re.IGNORECASE)
_TEXTS: Final = re.compile(r"text/.*|application/(?:xhtml\+xml|json|[\w.-]+\+json|xml)")
_NO_TEXTS: Final = ("text/css", "text/javascript", "text/event-stream")


class FetchedPage(Struct, frozen=True, kw_only=True):
    """The first bytes of a page of the web."""

    url: str
    """After all redirects."""
    media: str
    """Media type, in lower case."""
    charset: str
    """Of the header; "" for none."""
    data: bytes
    cut: bool
    """The page continues."""


async def engine_json(
    name: str, url: str, *, headers: Mapping[str, str], credential: Credential, seconds: float, refused: str
) -> Any:
    """Return the JSON answer of a search engine. Errors: see `SearchEngine.search`.

    name: of the engine, for errors. refused: a hint for the status 403.
    """

    def ask(over: Callable[[], bool]) -> Any:
        with Web(waits=_waits(seconds), allowed=is_host, cancelled=over) as web:  # noqa: SIM117
            with web.get(url, {"Accept": "application/json", **headers}, credential) as response:
                if response.status != 200:
                    raise _refusal(name, response, refused)
                return json.loads(response.body(_MOST_ANSWER))

    try:
        return await _in_thread(ask, seconds)
    except Cancellation as error:
        raise TimedOut(f"{name} did not answer in {seconds:g} s", hint="search.timeout bounds it") from error
    except TransientError as error:
        raise ToolsUnavailable(f"{name} is not reachable: {error}", hint="check search.url") from error
    except (ValueError, RecursionError) as error:
        raise ToolsUnavailable(f"{name} sent an answer that is no JSON", hint=refused) from error
    except (Refused, TransferFailed, Invalid) as error:
        raise ToolsUnavailable(f"{name}: {error.message}", hint=error.hint) from error


def _refusal(name: str, response: HttpResponse, refused: str) -> MullamaError:
    match response.status:
        case 401:
            return Denied(f"{name} refuses the key", hint="check search.key", authenticated=True)
        case 403:
            return Denied(f"{name} refuses the request with status 403", hint=refused, authenticated=True)
        case 429:
            wait = min(response.retry_after or 1.0, _LONGEST_PAUSE)
            return Busy(f"{name} wants fewer requests", retry_after=wait, limited=True)
        case status:
            return ToolsUnavailable(f"{name} answered with status {status}")


async def fetch_page(
    url: str,
    permits: Callable[[str], bool],
    *,
    most: int,
    seconds: float,
    allowed: Allowed = is_public,
) -> FetchedPage:
    """Return the first `most` bytes of a page.

    permits: returns True for a host that may be asked. seconds: with all redirects; a page that sends without an end is
    cut then as if it had `most` bytes. allowed: decides on the addresses of a host.

    Raises `Refused` for a host or an address that is not allowed, `Unsupported` for a page that is no text, `TimedOut`,
    and `Unavailable` for a page that is not to be had.
    """

    def check(host: str) -> None:
        if not permits(host):
            raise Refused(
                f"{host or 'an address without a host'} is not a host that search.allow and search.deny permit"
            )

    def get(over: Callable[[], bool]) -> FetchedPage:
        with Web(waits=_waits(seconds), allowed=allowed, cancelled=over, each_host=check) as web:  # noqa: SIM117
            with web.get(url, {"Accept": "text/html, text/plain;q=0.9, */*;q=0.1"}) as response:
                return _page(response, most)

    try:
        return await _in_thread(get, seconds)
    except Cancellation as error:
        raise TimedOut(f"the page took longer than {seconds:g} s", hint="search.timeout bounds it") from error
    except Unsupported:
        raise
    except (TransientError, TransferFailed, Invalid) as error:
        raise Unavailable(f"the page cannot be fetched: {error}") from error


def _page(response: HttpResponse, most: int) -> FetchedPage:
    if response.status != 200:
        raise Unavailable(f"the page is not there: status {response.status}")
    found = _MEDIA.match(response.headers.get("content-type", "text/html"))
    media = found[1].lower() if found else ""
    if not _TEXTS.fullmatch(media) or media in _NO_TEXTS:
        raise Unsupported(f"the page is {media or 'of an unknown type'}, and only text is read")
    if response.encoded:
        raise Unavailable("the page is compressed, which was not asked for")
    data, cut = bytearray(), False
    try:
        for piece in response.chunks():
            data += piece
            if len(data) >= most:
                cut = response.length != most or len(data) > most
                break
    except Cancellation:
        if not data:
            raise
        cut = True
    charset = (found and found[2]) or ""
    return FetchedPage(url=response.url, media=media, charset=charset, data=bytes(data[:most]), cut=cut)


def _waits(seconds: float) -> Timeouts:
    return Timeouts(connect=seconds, headers=seconds, idle=seconds)


async def _in_thread(work: Callable[[Callable[[], bool]], T], seconds: float) -> T:
    """Return the result of the work, or raise `Cancellation` after the time.

    The argument of the work returns True once it must end.

    A look-up of a name cannot be ended; its thread continues without effect.
    """
    gone, end = threading.Event(), time.monotonic() + seconds
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds + 1):
            return await loop.run_in_executor(_threads(), work, lambda: gone.is_set() or time.monotonic() > end)
    except TimeoutError as error:
        raise Cancellation from error
    finally:
        gone.set()


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads for searches alone: slow hosts would else use all those that prepare prompts."""
    return ThreadPoolExecutor(_MOST_REQUESTS, thread_name_prefix="search")
