"""Downloads one file into the store: resumed by ranges, hashed while it arrives, repeated after failures.

A partial file is resumed only with a strong validator or a known digest, and only by a 206 with exactly the requested
range. After any other answer the download begins again. A complete file with a wrong digest is discarded and downloaded
again, twice; then the error names both digests.
"""

from __future__ import annotations

import re
import time
from typing import Final
from urllib.parse import urlsplit

from mullama.errors import Denied, MullamaError, NotFound, TransferFailed, Unavailable
from mullama.sources.base import BlobStore, DownloadProgress, Phase, Receiver, Report
from mullama.sources.http_client import RETRY_STATUS, HttpResponse, TransientError, Web, backoff, place_of
from mullama.sources.network import Cancellation
from mullama.sources.settings import RetryPolicy
from mullama.units import size
from mullama.weights.located import LocatedFile

_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_PROGRESS_EVERY: Final = 0.1
_PROGRESS_BYTES: Final = 1024**2


class _RetryLater(Exception):
    """The host answered with a status that may pass. seconds: the wait that it asks for, None for none."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Mismatch(Exception):
    """The download is complete, but its size or digest is wrong."""


def fetch(
    file: LocatedFile, blobs: BlobStore, web: Web, report: Report, patience: RetryPolicy | None = None, *,
    origin: str = "", mixed: bool = False,
) -> str:  # fmt: skip
    """Download a file into the store and return its digest.

    origin: the name of its place in the progress; "" for the host of its address. mixed: the partial file may have
    bytes from another place, so it is continued whatever validator that place gave; the digest decides.

    Raises `TransferFailed`, `Denied`, `NotFound`, and `Refused` where the disk is too small.
    """
    try:
        with blobs.using():
            transfer = _Transfer(file, blobs, web, report, patience or RetryPolicy())
            transfer.origin, transfer.mixed = origin or place_of(file.url or ""), mixed and file.digest is not None
            return transfer.run()
    except Cancellation:
        raise TransferFailed(f"the download of {file.name} was cancelled", hint="the downloaded part is kept") from None


class _Transfer:
    """One download. Blob store and web are used by one thread. origin, mixed: see `fetch`."""

    origin = ""
    mixed = False

    def __init__(self, file: LocatedFile, blobs: BlobStore, web: Web, report: Report, patience: RetryPolicy) -> None:
        self._file, self._blobs, self._web, self._report, self._patience = file, blobs, web, report, patience
        self._resumed = 0
        self._total = file.size
        self._reported = 0.0
        self._without_range = False  # request without a range, because the last answer to one was unusable

    def run(self) -> str:
        file = self._file
        with self._blobs.only_one(file.identity, self._web.cancelled, lambda: self._progress("waiting", 0)):
            if self._web.cancelled():
                raise Cancellation
            if file.digest and self._blobs.has(file.digest):
                self._progress("found", file.size or 0)
                return file.digest
            if file.size is not None:
                self._blobs.check_room(file.size - self._blobs.fetched(file.identity))
            with self._blobs.receive(file.identity) as receiver:
                if self.mixed and receiver.validator:
                    receiver.remember("", -1 if file.size is None else file.size)
                return self._download(receiver)

    def _download(self, receiver: Receiver) -> str:
        wrong = 0
        while True:
            try:
                self._receive(receiver)
                self._wait_for_hash(receiver)
                self._compare(receiver)
            except _Mismatch as error:
                wrong += 1
                receiver.restart()
                if wrong > self._patience.mismatches:
                    raise TransferFailed(str(error), hint=self._moved_hint()) from None
                self._progress("retrying", 0, message=str(error))
                continue
            digest = receiver.promote()
            self._progress("done", receiver.offset)
            return digest

    def _wait_for_hash(self, receiver: Receiver) -> None:
        """Wait for the hash, which may be far behind after a resumed download."""
        while not receiver.settled(_PROGRESS_EVERY):
            if self._web.cancelled():
                raise Cancellation
            self._progress("verifying", receiver.hashed)
        self._progress("verifying", receiver.offset)

    def _compare(self, receiver: Receiver) -> None:
        file, digest = self._file, receiver.digest()
        self._check_size(receiver.offset)
        if file.digest and digest != file.digest:
            if file.pinned:
                raise _Mismatch(f"{file.name} changed from {file.digest} to {digest}")
            raise _Mismatch(f"{file.name} has the digest {digest}, expected {file.digest}")

    def _check_size(self, size: int) -> None:
        file = self._file
        if file.size is None or size == file.size:
            return
        if file.pinned:
            raise _Mismatch(f"{file.name} changed: it has {size} bytes, but {file.size} with {file.digest} are pinned")
        raise _Mismatch(f"{file.name} has {size} bytes, but {file.size} were announced")

    def _moved_hint(self) -> str:
        if self._file.pinned:
            return "the file is pinned: update the lock or the digest in the manifest if the change is expected"
        return "the source sends different bytes than it announced: try again later or use another source"

    def _receive(self, receiver: Receiver) -> None:
        """Repeat until all bytes are received. Progress between two failures resets their count."""
        failures, reached = 0, receiver.offset
        while True:
            try:
                self._attempt(receiver)
                return
            except (TransientError, _RetryLater) as error:
                if receiver.offset >= reached + _PROGRESS_BYTES:
                    failures = 0
                failures, reached = failures + 1, receiver.offset
                if failures >= self._patience.tries:
                    raise self._final_error(error, receiver.offset) from error
                self._rest(error, failures, receiver.offset)

    def _final_error(self, error: Exception, offset: int) -> MullamaError:
        kept = f"{size(offset)} are kept for the next try" if offset else "nothing was downloaded"
        message = f"{self._file.name} could not be downloaded after {self._patience.tries} tries: {error}"
        if offset == 0 and isinstance(error, TransientError):
            return Unavailable(message, hint=kept)
        return TransferFailed(message, hint=kept)

    def _rest(self, error: Exception, failures: int, offset: int) -> None:
        asked = error.seconds if isinstance(error, _RetryLater) else None
        usable = asked is not None and asked <= self._patience.longest_asked
        left = asked if usable and asked is not None else backoff(self._patience, failures)
        while left > 0:
            if self._web.cancelled():
                raise Cancellation
            self._progress("retrying", offset, message=str(error), wait=left)
            part = min(1.0, left)
            self._web.pause(part)
            left -= part

    def _attempt(self, receiver: Receiver) -> None:
        """Send one request, which resumes the previous one."""
        if self._file.size is not None and receiver.offset >= self._file.size:
            return  # a process was killed between the last byte and the rename
        headers = self._range(receiver)
        if "Range" not in headers and receiver.offset:
            receiver.restart()
        with self._web.get(self._file.url or "", headers, self._file.credential) as response:
            self._check_status(response)
            self._begin(response, receiver, "Range" in headers)
            for chunk in response.chunks():
                receiver.write(chunk)
                self._tick(receiver.offset)
        if self._total is not None and receiver.offset < self._total:
            raise TransientError(f"{response.host} closed the connection at {receiver.offset} of {self._total} bytes")

    def _range(self, receiver: Receiver) -> dict[str, str]:
        resumable = receiver.offset and (receiver.validator or self._file.digest) and not self._without_range
        if not resumable:
            return {}
        headers = {"Range": f"bytes={receiver.offset}-"}
        if receiver.validator:
            headers["If-Range"] = receiver.validator
        return headers

    def _begin(self, response: HttpResponse, receiver: Receiver, ranged: bool) -> None:
        """Prepare the receiver for the body, by the headers, and report the phase."""
        self._without_range = False
        if response.encoded:
            self._restart(receiver, f"{response.host} sent the file encoded")
        if response.status == 206:
            self._resume(response, receiver, ranged)
        else:
            if receiver.offset:
                receiver.restart()
            if response.length is not None:
                self._check_size(response.length)
            self._total = self._file.size if response.length is None else response.length
            receiver.remember(response.validator, -1 if self._total is None else self._total)
            if self._file.size is None and self._total is not None:
                self._blobs.check_room(self._total)
        self._resumed = receiver.offset
        self._progress("resuming" if receiver.offset else "downloading", receiver.offset)

    def _resume(self, response: HttpResponse, receiver: Receiver, ranged: bool) -> None:
        match = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
        first, last, total = (int(number) for number in match.groups()) if match else (-1, -1, -1)
        valid = ranged and first == receiver.offset and last == total - 1
        if self._file.size is not None and total != self._file.size:
            valid = False
        if receiver.validator and response.validator and response.validator != receiver.validator:
            valid = False
        if not valid:
            self._restart(receiver, f"{response.host} answered a range with {response.headers.get('content-range')!r}")
        self._total = total

    def _restart(self, receiver: Receiver, reason: str) -> None:
        receiver.restart()
        self._without_range = True
        raise TransientError(reason)

    def _check_status(self, response: HttpResponse) -> None:
        status, name, host = response.status, self._file.name, response.host
        if status in (200, 206):
            return
        if status == 416:
            self._without_range = True
            raise TransientError(f"{host} cannot continue the partial file of {name}")
        if status in RETRY_STATUS:
            raise _RetryLater(f"{host} answered {status}", response.retry_after)
        if status in (401, 403):
            raise Denied(
                f"{host} answered {status} for {name}", hint=f"a token was looked for in {self._file.credential.looked}"
            )
        if status in (404, 410):
            raise NotFound(f"{host} has no {name} ({status})", name=name, hint=f"the URL is {_shown(self._file.url)}")
        raise TransferFailed(f"{host} answered {status} for {name}", hint=f"the URL is {_shown(self._file.url)}")

    def _tick(self, offset: int) -> None:
        if self._web.cancelled():
            raise Cancellation
        now = time.monotonic()
        if now - self._reported >= _PROGRESS_EVERY:
            self._reported = now
            self._progress("downloading", offset)

    def _progress(self, phase: Phase, completed: int, *, message: str = "", wait: float = 0.0) -> None:
        self._report(
            DownloadProgress(
                file=self._file.name, phase=phase, completed=completed, total=self._total, resumed=self._resumed,
                digest=self._file.digest, message=message, wait=wait, origin=self.origin,
            )
        )  # fmt: skip


def _shown(url: str | None) -> str:
    """Return an address without its query, which may contain a signature."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]
