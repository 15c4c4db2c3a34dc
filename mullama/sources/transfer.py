"""Fetches one file into the store: resumed by range, hashed while it comes, tried again, and never believed.

A partial file is continued only under a strong validator, or when the digest of the whole is known, and only by
a 206 with exactly the range that was asked for. Whatever else comes begins again from zero. What arrived whole
but with another digest is thrown away and fetched anew, twice; then both digests are told.
"""

from __future__ import annotations

import re
import time
from typing import Final
from urllib.parse import urlsplit

from mullama.errors import Denied, MullamaError, NotFound, TransferFailed, Unavailable
from mullama.sources.base import BlobStore, DownloadProgress, Phase, Receiver, Report
from mullama.sources.network import Cancellation
from mullama.sources.settings import RetryPolicy
from mullama.sources.web import RETRY_STATUS, HttpResponse, TransientError, Web, backoff
from mullama.units import size
from mullama.weights.located import LocatedFile

_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_PROGRESS_EVERY: Final = 0.1
_ENOUGH_PROGRESS: Final = 1024**2


class _Later(Exception):
    """The host asked to come back; `seconds` is its wish, None if it said nothing."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Wrong(Exception):
    """All bytes came, but they are not the file."""


def fetch(file: LocatedFile, blobs: BlobStore, web: Web, report: Report, patience: RetryPolicy | None = None) -> str:
    """Have `file` in the store; its digest. Raises `TransferFailed`, `Denied`, `NotFound`, `Refused` (no room)."""
    try:
        with blobs.using():
            return _Transfer(file, blobs, web, report, patience or RetryPolicy()).run()
    except Cancellation:
        raise TransferFailed(f"the download of {file.name} was cancelled", hint="what was fetched is kept") from None


class _Transfer:
    def __init__(self, file: LocatedFile, blobs: BlobStore, web: Web, report: Report, patience: RetryPolicy) -> None:
        self._file, self._blobs, self._web, self._report, self._patience = file, blobs, web, report, patience
        self._resumed = 0
        self._total = file.size
        self._told = 0.0
        self._plain = False  # ask without a range: the last answer to one was unusable

    def run(self) -> str:
        file = self._file
        with self._blobs.only_one(file.identity, self._web.cancelled, lambda: self._say("waiting", 0)):
            if self._web.cancelled():
                raise Cancellation
            if file.digest and self._blobs.has(file.digest):
                self._say("found", file.size or 0)
                return file.digest
            if file.size is not None:
                self._blobs.check_room(file.size - self._blobs.fetched(file.identity))
            with self._blobs.receive(file.identity) as receiver:
                return self._until_right(receiver)

    def _until_right(self, receiver: Receiver) -> str:
        wrong = 0
        while True:
            try:
                self._until_whole(receiver)
                self._settle(receiver)
                self._compare(receiver)
            except _Wrong as error:
                wrong += 1
                receiver.restart()
                if wrong > self._patience.mismatches:
                    raise TransferFailed(str(error), hint=self._moved_hint()) from None
                self._say("retrying", 0, message=str(error))
                continue
            digest = receiver.promote()
            self._say("done", receiver.offset)
            return digest

    def _settle(self, receiver: Receiver) -> None:
        """Wait for the hash, which after a resumed download may be far behind."""
        while not receiver.settled(_PROGRESS_EVERY):
            if self._web.cancelled():
                raise Cancellation
            self._say("verifying", receiver.hashed)
        self._say("verifying", receiver.offset)

    def _compare(self, receiver: Receiver) -> None:
        file, digest = self._file, receiver.digest()
        self._check_size(receiver.offset)
        if file.digest and digest != file.digest:
            if file.pinned:
                raise _Wrong(f"{file.name} moved from {file.digest} to {digest}")
            raise _Wrong(f"{file.name} has the digest {digest}, expected {file.digest}")

    def _check_size(self, size: int) -> None:
        file = self._file
        if file.size is None or size == file.size:
            return
        if file.pinned:
            raise _Wrong(f"{file.name} moved: it has {size} bytes, {file.size} with {file.digest} are pinned")
        raise _Wrong(f"{file.name} has {size} bytes, {file.size} were announced")

    def _moved_hint(self) -> str:
        if self._file.pinned:
            return "the file is pinned: update the lock or the digest in the manifest if the change is right"
        return "the source sends something else than it announces: try again later or use another source"

    def _until_whole(self, receiver: Receiver) -> None:
        """Try until all announced bytes are there; failures with progress between them count from one again."""
        failures, reached = 0, receiver.offset
        while True:
            try:
                self._attempt(receiver)
                return
            except (TransientError, _Later) as error:
                if receiver.offset >= reached + _ENOUGH_PROGRESS:
                    failures = 0
                failures, reached = failures + 1, receiver.offset
                if failures >= self._patience.tries:
                    raise self._gave_up(error, receiver.offset) from error
                self._rest(error, failures, receiver.offset)

    def _gave_up(self, error: Exception, offset: int) -> MullamaError:
        kept = f"{size(offset)} are kept for the next try" if offset else "nothing was fetched"
        message = f"{self._file.name} could not be fetched after {self._patience.tries} tries: {error}"
        if offset == 0 and isinstance(error, TransientError):
            return Unavailable(message, hint=kept)
        return TransferFailed(message, hint=kept)

    def _rest(self, error: Exception, failures: int, offset: int) -> None:
        asked = error.seconds if isinstance(error, _Later) else None
        usable = asked is not None and asked <= self._patience.longest_asked
        left = asked if usable and asked is not None else backoff(self._patience, failures)
        while left > 0:
            if self._web.cancelled():
                raise Cancellation
            self._say("retrying", offset, message=str(error), wait=left)
            part = min(1.0, left)
            self._web.pause(part)
            left -= part

    def _attempt(self, receiver: Receiver) -> None:
        """One request, from where the last one stopped."""
        if self._file.size is not None and receiver.offset >= self._file.size:
            return  # a killed process had it all but not its name
        headers = self._range(receiver)
        if "Range" not in headers and receiver.offset:
            receiver.restart()
        with self._web.get(self._file.url or "", headers, self._file.credential) as answer:
            self._check_status(answer)
            self._begin(answer, receiver, "Range" in headers)
            for chunk in answer.chunks():
                receiver.write(chunk)
                self._tick(receiver.offset)
        if self._total is not None and receiver.offset < self._total:
            raise TransientError(f"{answer.host} closed the connection at {receiver.offset} of {self._total} bytes")

    def _range(self, receiver: Receiver) -> dict[str, str]:
        resumable = receiver.offset and (receiver.validator or self._file.digest) and not self._plain
        if not resumable:
            return {}
        headers = {"Range": f"bytes={receiver.offset}-"}
        if receiver.validator:
            headers["If-Range"] = receiver.validator
        return headers

    def _begin(self, answer: HttpResponse, receiver: Receiver, ranged: bool) -> None:
        """Settle where the body belongs, and say so."""
        self._plain = False
        if answer.encoded:
            self._unusable(receiver, f"{answer.host} sent the file encoded")
        if answer.status == 206:
            self._continue(answer, receiver, ranged)
        else:
            if receiver.offset:
                receiver.restart()
            if answer.length is not None:
                self._check_size(answer.length)
            self._total = self._file.size if answer.length is None else answer.length
            receiver.remember(answer.validator, -1 if self._total is None else self._total)
            if self._file.size is None and self._total is not None:
                self._blobs.check_room(self._total)
        self._resumed = receiver.offset
        self._say("resuming" if receiver.offset else "downloading", receiver.offset)

    def _continue(self, answer: HttpResponse, receiver: Receiver, ranged: bool) -> None:
        match = _RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        first, last, total = (int(number) for number in match.groups()) if match else (-1, -1, -1)
        right = ranged and first == receiver.offset and last == total - 1
        if self._file.size is not None and total != self._file.size:
            right = False
        if receiver.validator and answer.validator and answer.validator != receiver.validator:
            right = False
        if not right:
            self._unusable(receiver, f"{answer.host} answered a range with {answer.headers.get('content-range')!r}")
        self._total = total

    def _unusable(self, receiver: Receiver, reason: str) -> None:
        receiver.restart()
        self._plain = True
        raise TransientError(reason)

    def _check_status(self, answer: HttpResponse) -> None:
        status, name, host = answer.status, self._file.name, answer.host
        if status in (200, 206):
            return
        if status == 416:
            self._plain = True
            raise TransientError(f"{host} has no bytes where {name} was to be continued")
        if status in RETRY_STATUS:
            raise _Later(f"{host} answered {status}", answer.retry_after)
        if status in (401, 403):
            raise Denied(
                f"{host} answered {status} for {name}", hint=f"a token was looked for in {self._file.credential.looked}"
            )
        if status in (404, 410):
            raise NotFound(f"{host} has no {name} ({status})", name=name, hint=f"asked for {_short(self._file.url)}")
        raise TransferFailed(f"{host} answered {status} for {name}", hint=f"asked for {_short(self._file.url)}")

    def _tick(self, offset: int) -> None:
        if self._web.cancelled():
            raise Cancellation
        now = time.monotonic()
        if now - self._told >= _PROGRESS_EVERY:
            self._told = now
            self._say("downloading", offset)

    def _say(self, phase: Phase, completed: int, *, message: str = "", wait: float = 0.0) -> None:
        self._report(
            DownloadProgress(
                file=self._file.name, phase=phase, completed=completed, total=self._total, resumed=self._resumed,
                digest=self._file.digest, message=message, wait=wait,
            )
        )  # fmt: skip


def _short(url: str | None) -> str:
    """An address without its query, which may hold a signature."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"[:200]
