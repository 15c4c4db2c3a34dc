"""Downloads a file from neighbours, the servers of this manifest that share their files, before its source.

A neighbour is asked by the digest of the file, so it can send no other bytes: the file is hashed while it is written.
One that lacks the file, sends wrong bytes, ends early or is slow is left for the next one, and the last place is the
source of the file. Bytes that arrived are kept from one place to the next.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from typing import Final

from mullama.errors import Denied, MullamaError, NotFound, Refused, TransferFailed, Unavailable
from mullama.sources.base import BlobStore, Cancelled, DownloadProgress, Report
from mullama.sources.http_client import TooSlow, Web
from mullama.sources.settings import Neighbour, RetryPolicy, Settings, Timeouts
from mullama.sources.transfer import fetch
from mullama.struct import replace
from mullama.weights.located import LocatedFile

BLOBS: Final = "/api/v1/blobs"
"""The path of stored files on a server, before their digest."""
QUICK: Final = Timeouts(connect=5.0, headers=10.0, idle=15.0, slow_bytes=10 * 1024**2, slow_seconds=10.0)
"""The time limits for a neighbour: one that sends less than 1 MiB/s is left while there are other places."""
PATIENCE: Final = RetryPolicy(tries=2, first=0.5, longest=2.0, longest_asked=2.0, mismatches=0)
"""The tries at one neighbour, which continue each other."""


def fetch_near(
    file: LocatedFile, blobs: BlobStore, settings: Settings, report: Report, cancelled: Cancelled,
    from_source: Callable[[], str],
) -> str:  # fmt: skip
    """Download a file of known digest from the first neighbour that delivers it, else from its source.

    A neighbour that was left because it is slow is asked again, without this limit, when the source fails.
    from_source: downloads from the source, see `transfer.fetch`.

    Raises what `from_source` raises, and `Refused` where the disk is too small.
    """
    slow: list[Neighbour] = []

    def tried(neighbours: Sequence[Neighbour], waits: Timeouts) -> str | None:
        for neighbour in neighbours:
            try:
                return _from(neighbour, file, blobs, settings, report, cancelled, waits)
            except MullamaError as error:
                if cancelled() or isinstance(error, Refused):
                    raise
                slow.extend([neighbour] if isinstance(error.__cause__, TooSlow) else [])
                report(_left(neighbour, file, error))
        return None

    digest = tried(ordered(settings.neighbours, file.digest or "", platform.node()), QUICK)
    if digest is not None:
        return digest
    try:
        return from_source()
    except (Denied, NotFound, TransferFailed, Unavailable):
        if cancelled() or not slow:
            raise
        again, slow = tuple(slow), []
        digest = tried(again, replace(settings.waits, connect=QUICK.connect))
        if digest is None:
            raise
        return digest


def ordered(neighbours: Sequence[Neighbour], digest: str, host: str) -> tuple[Neighbour, ...]:
    """Return the neighbours in an order of this file and this host, so that many hosts do not ask one and the same.

    host: the name of this machine. Source: Thaler, Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996.
    """

    def weight(neighbour: Neighbour) -> bytes:
        return hashlib.sha256(f"{digest}\n{host}\n{neighbour.name}".encode()).digest()

    return tuple(sorted(neighbours, key=weight))


def _from(
    neighbour: Neighbour, file: LocatedFile, blobs: BlobStore, settings: Settings, report: Report,
    cancelled: Cancelled, waits: Timeouts,
) -> str:  # fmt: skip
    if neighbour.problem:
        raise Denied(neighbour.problem)
    there = replace(file, url=f"{neighbour.url}{BLOBS}/{file.digest}", credential=neighbour.credential)
    # Bytes that arrived before may be the wrong ones, so this neighbour gets a second chance from the first byte.
    patience = replace(PATIENCE, mismatches=1) if blobs.fetched(file.identity) else PATIENCE
    limits = replace(waits, connect=min(waits.connect, neighbour.connect))
    with Web(
        waits=limits, direct_read=settings.direct_read, cancelled=cancelled, direct=True, ca_file=neighbour.ca_file
    ) as web:
        return fetch(there, blobs, web, report, patience, origin=f"peer {neighbour.name}", mixed=True)


def _left(neighbour: Neighbour, file: LocatedFile, error: MullamaError) -> DownloadProgress:
    lacks = isinstance(error, NotFound)
    reason = "it does not have the file" if lacks else error.message
    return DownloadProgress(
        file=file.name, phase="retrying", total=file.size, digest=file.digest,
        message=f"peer {neighbour.name} is left: {reason}", origin=f"peer {neighbour.name}",
    )  # fmt: skip
