"""All peers of the manifest in force: their connections, their health, and the number of their requests.

Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from mullama.errors import Busy, Kind, MullamaError, NotFound, Unavailable
from mullama.manifest.spec import Manifest, Peer, SecretRef
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.reconcile.secrets import read_secret
from mullama.runtime.peers.health import PeerHealth, crowded
from mullama.struct import Struct, field

if TYPE_CHECKING:
    from mullama.runtime.peers.client import PeerClient

_PROBE = "/v1/models"
_FAULTS = frozenset((Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.TRANSFER, Kind.INTERNAL))
"""The kinds of failures that are those of a server, not of a request."""

Note = Callable[[str, str, str], None]
"""Adds an event: kind, subject, message."""


class _Entry(Struct, kw_only=True):
    """One peer as the manifest declares it."""

    name: str
    peer: Peer
    health: PeerHealth = field(default_factory=PeerHealth)
    running: int = 0
    """Requests that have no end yet."""
    client: PeerClient | None = None
    """None before the first request, and after one whose key was refused: the key may have changed."""
    probe: asyncio.Task[None] | None = None


class PeerBook:
    """The peers by name.

    manifest: returns the manifest in force. note: receives ejections and returns. pause: waits before a probe.
    """

    def __init__(
        self,
        manifest: Callable[[], Manifest],
        env: Mapping[str, str],
        note: Note,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._manifest, self._env, self._note = manifest, env, note
        self._clock, self._pause = clock, pause
        self._entries: dict[str, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def has(self, target: str) -> bool:
        """Return True if a target of a route is a model of a declared peer."""
        return PEER_SIGN in target and target.rpartition(PEER_SIGN)[2] in self._manifest().peers

    def usable(self, target: str, route: Sequence[tuple[str, int]]) -> bool:
        """Return True if a request may be sent to a peer now.

        route: the targets of the route with their weights. A peer with more than its share of the requests of all
        peers of the route is passed over, so that the conversations of one do not wait while others are idle.
        """
        entry = self._entry(target)
        if entry is None or entry.health.ejected or self._full(entry):
            return False
        shares: dict[str, int] = {}
        for name, weight in route:
            if weight and (other := self._entry(name)) is not None and not other.health.ejected:
                shares[other.name] = shares.get(other.name, 0) + weight
        if entry.name not in shares or len(shares) < 2:  # a fallback, or no other peer
            return True
        running = sum(self._entries[name].running for name in shares)
        return not crowded(entry.running, running, shares[entry.name] / sum(shares.values()))

    @staticmethod
    def _full(entry: _Entry) -> bool:
        most = entry.peer.concurrency
        return most is not None and entry.running >= most

    def _entry(self, target: str) -> _Entry | None:
        """Return the peer of a target; None for a model of this server, and for a peer that is not declared."""
        _, sign, name = target.rpartition(PEER_SIGN)
        peer = self._manifest().peers.get(name) if sign else None
        entry = self._entries.get(name) if sign else None
        if entry is not None and entry.peer != peer:
            self._drop(entry)
            entry = None
        if entry is None and peer is not None:
            entry = self._entries[name] = _Entry(name=name, peer=peer)
        return entry

    def _drop(self, entry: _Entry) -> None:
        """Forget a peer whose declaration changed. Its running requests end as they are."""
        del self._entries[entry.name]
        if entry.probe is not None:
            entry.probe.cancel()
        if entry.running == 0:
            self._close(entry)

    def _close(self, entry: _Entry) -> None:
        if entry.client is not None:
            task = asyncio.ensure_future(entry.client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            entry.client = None

    async def close(self) -> None:
        """Close all connections and end the probes."""
        for entry in list(self._entries.values()):
            self._drop(entry)
        if self._closing:
            await asyncio.wait(self._closing)

    @asynccontextmanager
    async def stream(self, target: str, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request to the peer of a target, and yield the pieces of its answer. See `PeerClient.stream`."""
        with self._running(target) as entry:
            client = await self._client(entry)
            async with client.stream(path, body) as pieces:
                self._answered(entry)
                yield pieces

    async def ask(self, target: str, path: str, body: dict[str, Any]) -> Any:
        """Send a request to the peer of a target, and return the JSON of its answer."""
        with self._running(target) as entry:
            answer = await (await self._client(entry)).ask(path, body)
            self._answered(entry)
            return answer

    @contextmanager
    def _running(self, target: str) -> Iterator[_Entry]:
        """Count a request; its failure counts against the peer if it is a fault of the server.

        Raises `Busy` for a peer with as many requests as it may have, and `Unavailable` for one that is ejected.
        """
        entry = self._entry(target)
        if entry is None:
            raise NotFound(f"the manifest has no peer for '{target}'", name=target)
        if entry.health.ejected:
            wait = max(1.0, entry.health.until - self._clock())
            raise Unavailable(f"peer {entry.name} gets no requests for now: {entry.health.reason}", retry_after=wait)
        if self._full(entry):
            raise Busy(
                f"peer {entry.name} has {entry.running} requests, as many as it may have",
                hint="peers.*.concurrency in the manifest bounds them",
            )
        entry.running += 1
        try:
            yield entry
        except MullamaError as error:
            self._failed(entry, error)
            raise
        finally:
            entry.running -= 1
            if entry.running == 0 and self._entries.get(entry.name) is not entry:
                self._close(entry)

    async def _client(self, entry: _Entry) -> PeerClient:
        if entry.client is None:
            entry.client = await asyncio.to_thread(self._connected, entry.name, entry.peer)
        return entry.client

    def _connected(self, name: str, peer: Peer) -> PeerClient:
        """Return a client with the secret as it is now. A missing secret or certificate makes the peer unavailable."""
        from mullama.runtime.peers.client import PeerClient

        try:
            return PeerClient(name, peer, self._secret(name, peer.key))
        except (MullamaError, OSError) as error:
            raise Unavailable(f"peer {name} cannot be used: {error}") from error

    def _secret(self, name: str, reference: SecretRef | None) -> str | None:
        return read_secret(reference, f"peers.{name}.key", self._env) if reference is not None else None

    def _answered(self, entry: _Entry) -> None:
        if entry.health.succeeded():
            self._note("peer-recovered", entry.name, f"peer {entry.name} answers again")

    def _failed(self, entry: _Entry, error: MullamaError) -> None:
        if "refuses the key" in error.message:
            self._close(entry)  # the next request reads the secret again
        if error.kind not in _FAULTS or self._entries.get(entry.name) is not entry:
            return
        if entry.health.failed(self._clock(), error.message):
            self._note("peer-ejected", entry.name, f"peer {entry.name} gets no requests for now: {error.message}")
            entry.probe = asyncio.ensure_future(self._probe(entry))

    async def _probe(self, entry: _Entry) -> None:
        """Ask an ejected peer for its models until it answers."""
        while entry.health.ejected:
            await self._pause(max(0.0, entry.health.until - self._clock()))
            try:
                await (await self._client(entry)).ask(_PROBE)
            except MullamaError as error:
                entry.health.failed(self._clock(), error.message)
            else:
                self._answered(entry)

    def status(self) -> list[dict[str, Any]]:
        """Return one entry for each declared peer, by name."""
        found = []
        for name, peer in sorted(self._manifest().peers.items()):
            entry = self._entries.get(name)
            health = entry.health if entry is not None and entry.peer == peer else PeerHealth()
            found.append({
                "name": name, "url": peer.url, "state": "ejected" if health.ejected else "ready",
                "running": entry.running if entry is not None else 0,
                "failures": health.failures, "reason": health.reason,
            })  # fmt: skip
        return found
