"""Reads the headers of remote weights by ranges, so their memory is known before a download."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.errors import TransferFailed, Unavailable
from mullama.sources.base import Cancelled
from mullama.sources.http_client import METADATA_RETRIES, RETRY_STATUS, TransientError, Web, backoff, open_web
from mullama.sources.settings import Settings
from mullama.weights.facts import WeightFacts
from mullama.weights.gguf import Read
from mullama.weights.inspect import inspect
from mullama.weights.located import LocatedFile


def remote_facts(files: Sequence[LocatedFile], settings: Settings, cancelled: Cancelled) -> WeightFacts:
    """Return the facts of files with an address and a known size. Requests a few MiB of each.

    Raises `BadWeights`, `TransferFailed` for an answer that cannot be used, `Unavailable` for a host that does not
    answer.
    """
    with open_web(settings, cancelled) as web:
        return inspect([(_reader(web, file), file.size or 0) for file in files])


def _reader(web: Web, file: LocatedFile) -> Read:
    def read(offset: int, length: int) -> bytes:
        for attempt in range(1, METADATA_RETRIES.tries + 1):
            try:
                return _read(web, file, offset, length)
            except TransientError as error:
                if attempt == METADATA_RETRIES.tries:
                    raise Unavailable(f"the header of {file.name} could not be read: {error}") from error
                web.pause(backoff(METADATA_RETRIES, attempt))
        raise AssertionError("the last try returns or raises")

    return read


def _read(web: Web, file: LocatedFile, offset: int, length: int) -> bytes:
    """Return a range. From a host without ranges, read the file up to the end of the range."""
    wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
    with web.get(file.url or "", wanted, file.credential) as answer:
        if answer.status == 206:
            return answer.body(limit=length)
        if answer.status in RETRY_STATUS:
            raise TransientError(f"{answer.host} answered {answer.status}")
        if answer.status != 200:
            raise TransferFailed(f"{answer.host} answered {answer.status} to a range of {file.name}")
        found = bytearray()
        for chunk in answer.chunks():
            found += chunk
            if len(found) >= offset + length:
                break
        return bytes(found[offset : offset + length])
