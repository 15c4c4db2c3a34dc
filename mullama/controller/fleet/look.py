"""Looks at the other hosts of the fleet of this server: their status, and a newer record of the rollout.

Only hosts that the applied manifest has as peers are asked, with the keys that it refers to, so a browser needs the key
of this server alone. All are asked at the same time, within a few seconds, and the answers serve for a few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from mullama.codec import from_tree
from mullama.controller.fleet.rollout_book import RolloutBook
from mullama.controller.fleet.view import FleetFacts, FleetMembership, HostLook, HostStatus, fleet_view
from mullama.errors import MullamaError, TimedOut
from mullama.manifest.spec import Manifest
from mullama.runtime.fleet import RolloutRecord
from mullama.struct import Struct, field
from mullama.units import duration_literal

LOOK_SECONDS = 3.0
"""The longest time for all answers of one host."""

KEPT_SECONDS = 3.0
"""The time for which the answers of the hosts serve."""

_AT_ONCE = 32
_ASK = "`mullama status` with the manifest of the fleet asks every host"

ReadPeer = Callable[[str, str], Awaitable[Any]]
"""Returns the JSON of an answer. Takes the name of a peer and a path."""


class _Looks(Struct, frozen=True, kw_only=True):
    """The answers of the other hosts at one time."""

    when: float
    """Unix seconds."""
    record: RolloutRecord | None = None
    """The newest one."""
    others: Mapping[str, HostLook] = field(default_factory=dict)


class FleetLook:
    """The fleet as this server sees it. Belongs to the event loop.

    manifest: returns the manifest in force. status: returns the status of this server, lease its lease, both in their
    published form. read: see `PeerBook.read`. within: the seconds for each answer. clock: seconds of a monotonic clock.
    """

    def __init__(
        self, *, manifest: Callable[[], Manifest], status: Callable[[], Mapping[str, Any]],
        lease: Callable[[], Mapping[str, Any]], book: RolloutBook, read: ReadPeer,
        within: float = LOOK_SECONDS, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._manifest, self._status, self._lease, self._book = manifest, status, lease, book
        self._read, self._within, self._clock = read, within, clock
        self._kept: tuple[float, Manifest, _Looks] | None = None
        self._lock = asyncio.Lock()

    async def view(self) -> dict[str, Any]:
        """Return `{"format": "mullama.fleet-view/1", …}`: never an error of another host, which is a part of it."""
        part = self._own().fleet
        looks = await self._looks(part) if part is not None else _Looks(when=time.time())
        lease = self._lease()["lease"]
        facts = FleetFacts(
            when=looks.when, status=self._own(), lease=lease, record=looks.record, others=looks.others
        )  # fmt: skip
        return fleet_view(facts)

    def _own(self) -> HostStatus:
        return from_tree(HostStatus, self._status(), "the status")

    async def _looks(self, part: FleetMembership) -> _Looks:
        """Return the kept answers while they are fresh, and else new ones. Callers at the same time share them."""
        async with self._lock:
            manifest, own = self._manifest(), self._book.record
            if self._kept is not None:
                until, asked, looks = self._kept
                newer = own is not None and (looks.record is None or looks.record.order < own.order)
                if self._clock() < until and asked is manifest and not newer:
                    return looks
            own = own if own is not None and own.fleet == part.name else None
            looks = await self._new_looks(own, part.host, manifest)
            self._kept = (self._clock() + KEPT_SECONDS, manifest, looks)
            return looks

    async def _new_looks(self, record: RolloutRecord | None, own: str | None, manifest: Manifest) -> _Looks:
        if record is None:
            return _Looks(when=time.time())
        others = await self._ask_hosts(record, manifest, without={own})
        newer = await self._newer(record, others)
        if newer is not None:
            record = newer
            others |= await self._ask_hosts(record, manifest, without={own, *others})
        return _Looks(when=time.time(), record=record, others=others)

    async def _ask_hosts(
        self, record: RolloutRecord, manifest: Manifest, without: Collection[str | None]
    ) -> dict[str, HostLook]:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def look(name: str, url: str) -> HostLook:
            async with limit:
                return await self._look(name, url, manifest)

        hosts = {name: host.url for name, host in record.hosts.items() if name not in without}
        return dict(zip(hosts, await asyncio.gather(*(look(name, url) for name, url in hosts.items())), strict=True))

    async def _look(self, name: str, url: str, manifest: Manifest) -> HostLook:
        peer = manifest.peers.get(name)
        if peer is None or peer.url != url:
            address = f"has no peer {name}" if peer is None else f"has another address of its peer {name}"
            return HostLook(asked=False, reason=f"this server {address}, so it sends no requests there", hint=_ASK)
        try:
            tree = await self._answer(name, "/api/v1/status")
            return HostLook(status=from_tree(HostStatus, tree, f"the status of {name}"))
        except MullamaError as error:
            return HostLook(reason=error.message, hint=error.hint)

    async def _newer(self, record: RolloutRecord, others: Mapping[str, HostLook]) -> RolloutRecord | None:
        """Return the newest record of a host that has a newer one: this server may have been away since."""
        parts = {name: look.status.fleet for name, look in others.items() if look.status is not None}
        orders = {
            name: (part.fence, part.number)
            for name, part in parts.items()
            if part is not None and part.name == record.fleet and part.number
        }
        name = max(orders, key=lambda one: orders[one], default=None)
        if name is None or orders[name] <= record.order:
            return None
        try:
            tree = (await self._answer(name, "/api/v1/fleet/rollout"))["rollout"]
            return from_tree(RolloutRecord, tree, f"the record of {name}")
        except (MullamaError, KeyError, TypeError):
            return None  # the present one is shown: it is an older truth, with its time

    async def _answer(self, name: str, path: str) -> Any:
        """Return the JSON of an answer."""
        try:
            async with asyncio.timeout(self._within):
                return await self._read(name, path)
        except TimeoutError as error:
            raise TimedOut(f"{name} did not answer within {duration_literal(self._within)}") from error
