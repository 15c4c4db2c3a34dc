"""All peers of the manifest in force: their connections, their health, and the number of their requests.

Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from mullama.errors import Busy, Kind, MullamaError, NotFound, PeerLost, Unavailable
from mullama.manifest.spec import Manifest, Peer, SecretRef
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.reconcile.secrets import read_secret
from mullama.runtime.peers.health import PeerHealth, crowded
from mullama.runtime.peers.hops import HOPS, may_forward
from mullama.struct import Struct, field

if TYPE_CHECKING:
    from mullama.runtime.peers.client import PeerClient

_PROBE = "/v1/models"
_LAST_SECONDS = 3.0
_FAULTS = frozenset((Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.TRANSFER, Kind.INTERNAL))
"""The kinds of failures that are those of a server, not of a request."""

Note = Callable[[str, str, str], None]
"""Adds an event: kind, subject, message."""


class _Entry(Struct, kw_only=True):
    """One peer as the manifest declares it."""

    name: str
    peer: Peer
    health: PeerHealth = field(default_factory=PeerHealth)
    targets: dict[str, PeerHealth] = field(default_factory=dict)
    """The health of each `MODEL@PEER` whose last request failed at a server that answers."""
    running: int = 0
    """Requests that have no end yet."""
    client: PeerClient | None = None
    """None before the first request, and after one whose key was refused: the key may have changed."""
    key: str | None = None
    """The secret that the last client sent."""
    probe: asyncio.Task[None] | None = None

    def adopted(self, made: PeerClient) -> PeerClient:
        """Return the client for all requests: `made`, unless another request has made one before."""
        if self.client is None:
            self.client, self.key = made, made.key
        return self.client


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
        self._id = secrets.token_hex(8)
        """Of this server, in the header of the hops."""

    def has(self, target: str) -> bool:
        """Return True if a target of a route is a model of a declared peer."""
        return PEER_SIGN in target and target.rpartition(PEER_SIGN)[2] in self._manifest().peers

    def forwards(self, hops: tuple[str, ...]) -> bool:
        """Return True if a request that came by these servers may be sent to a peer."""
        return not hops or may_forward(hops, self._id)

    def usable(self, route: Sequence[tuple[str, int]]) -> Callable[[str], bool]:
        """Return a function that returns True if a request may be sent to a target now; it holds for one choice.

        route: the targets of the route with their weights. A peer with more than its share of the requests of all
        peers of the route is passed over, so that the conversations of one do not wait while others are idle.
        """
        shares: dict[str, int] | None = None
        running = weights = 0

        def usable(target: str) -> bool:
            nonlocal shares, running, weights
            entry = self._entry(target)
            if entry is None or not self.has_room(target):
                return False
            if shares is None:  # once for all targets: a route may have many
                shares = self._shares(route)
                running, weights = sum(self._entries[name].running for name in shares), sum(shares.values())
            if entry.name not in shares or len(shares) < 2:  # a fallback, or no other peer
                return True
            return not crowded(entry.running, running, shares[entry.name] / weights)

        return usable

    def has_room(self, target: str) -> bool:
        """Return True if a target may get one more request now, whatever its share of them is."""
        entry = self._entry(target)
        return entry is not None and not self._passed_over(entry, target) and not self._full(entry)

    def _shares(self, route: Sequence[tuple[str, int]]) -> dict[str, int]:
        """Return the weight of each peer of a route that is not passed over."""
        shares: dict[str, int] = {}
        for name, weight in route:
            if weight and (entry := self._entry(name)) is not None and not self._passed_over(entry, name):
                shares[entry.name] = shares.get(entry.name, 0) + weight
        return shares

    def _passed_over(self, entry: _Entry, target: str) -> bool:
        """Return True for a peer that is ejected, and for a model of it that failed several times in a row.

        Such a model gets requests again after a while, or where the route has no other: a probe cannot ask it.
        """
        health = entry.targets.get(target)
        return entry.health.ejected or (health is not None and health.until > self._clock())

    @staticmethod
    def _full(entry: _Entry) -> bool:
        most = entry.peer.concurrency
        return most is not None and entry.running >= most

    def _entry(self, target: str) -> _Entry | None:
        """Return the peer of a target; None for a model of this server, and for a peer that is not declared."""
        _, sign, name = target.rpartition(PEER_SIGN)
        peer = self._manifest().peers.get(name) if sign else None
        entry = self._entries.get(name) if sign else None
        if entry is not None and entry.peer is not peer and entry.peer != peer:
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
        self._retire(entry)

    def _retire(self, entry: _Entry) -> None:
        """Take no new request with the client of a peer; it ends with its present ones."""
        if entry.client is not None:
            task = asyncio.ensure_future(entry.client.retire())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            entry.client = None

    async def close(self) -> None:
        """Close all connections and end the probes. A request that does not end delays the stop for seconds only."""
        for entry in list(self._entries.values()):
            self._drop(entry)
        if self._closing:
            await asyncio.wait(self._closing, timeout=_LAST_SECONDS)

    @asynccontextmanager
    async def stream(
        self, target: str, path: str, body: dict[str, Any], hops: tuple[str, ...]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request to the peer of a target, and yield the pieces of its answer. See `PeerClient.stream`.

        hops: the servers that forwarded it to this one.
        """
        with self._running(target) as entry:
            client = await self._client(entry)
            async with client.stream(path, body, self._headers(hops)) as pieces:
                self._answered(entry)
                yield pieces

    def _headers(self, hops: tuple[str, ...]) -> dict[str, str]:
        return {HOPS: ", ".join((*hops, self._id))}

    async def ask(self, target: str, path: str, body: dict[str, Any], hops: tuple[str, ...]) -> Any:
        """Send a request to the peer of a target, and return the JSON of its answer. hops: as for `stream`."""
        with self._running(target) as entry:
            answer = await (await self._client(entry)).ask(path, body, self._headers(hops))
            self._answered(entry)
            return answer

    async def read(self, name: str, path: str) -> Any:
        """Return the JSON of a path of a peer. It is no request of a client: it counts nowhere, and ejects nothing.

        Raises `NotFound` for a peer that the manifest does not have, and the error of its answer.
        """
        entry = self._entry(f"{PEER_SIGN}{name}")
        if entry is None:
            raise NotFound(f"the manifest has no peer '{name}'", name=name)
        return await self._read(entry, path)

    async def _read(self, entry: _Entry, path: str) -> Any:
        try:
            return await (await self._client(entry)).ask(path)
        except MullamaError as error:
            _hide_key(entry, error)
            self._retire(entry)  # the next request reads the secret again
            raise

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
            self._failed(entry, target, error)
            raise
        else:
            if (health := entry.targets.pop(target, None)) is not None and health.ejected:
                self._note("peer-recovered", target, f"{target} answers again")
        finally:
            entry.running -= 1
            if entry.running == 0 and self._entries.get(entry.name) is not entry:
                self._retire(entry)

    async def _client(self, entry: _Entry) -> PeerClient:
        if entry.client is None:
            made = await asyncio.to_thread(self._connected, entry.name, entry.peer)
            return entry.adopted(made)
        return entry.client

    def _connected(self, name: str, peer: Peer) -> PeerClient:
        """Return a client with the secret as it is now. A missing secret or certificate makes the peer unavailable."""
        from mullama.runtime.peers.client import PeerClient

        try:
            return PeerClient(name, peer, self._secret(name, peer.key))
        except PeerLost:
            raise
        except (MullamaError, OSError) as error:
            raise PeerLost(f"peer {name} cannot be used: {error}") from error

    def _secret(self, name: str, reference: SecretRef | None) -> str | None:
        return read_secret(reference, f"peers.{name}.key", self._env) if reference is not None else None

    def _answered(self, entry: _Entry) -> None:
        if entry.health.succeeded():
            self._note("peer-recovered", entry.name, f"peer {entry.name} answers again")

    def _failed(self, entry: _Entry, target: str, error: MullamaError) -> None:
        """Note a failure against the peer if it is lost, else against its model: the others may be well."""
        _hide_key(entry, error)
        if isinstance(error, PeerLost):
            self._retire(entry)  # the next request reads the secret again
        if error.kind not in _FAULTS or self._entries.get(entry.name) is not entry:
            return
        if not isinstance(error, PeerLost):
            if entry.targets.setdefault(target, PeerHealth()).failed(self._clock(), error.message):
                self._note("peer-ejected", target, f"{target} is passed over for now: {error.message}")
            return
        if entry.health.failed(self._clock(), error.message):
            self._note("peer-ejected", entry.name, f"peer {entry.name} gets no requests for now: {error.message}")
            entry.probe = asyncio.ensure_future(self._probe(entry))

    async def _probe(self, entry: _Entry) -> None:
        """Ask an ejected peer for its models until it answers."""
        while entry.health.ejected:
            await self._pause(max(0.0, entry.health.until - self._clock()))
            if self._manifest().peers.get(entry.name) != entry.peer:
                entry.probe = None
                self._drop(entry)  # it is removed, or changed and not used since
                return
            try:
                await self._read(entry, _PROBE)
            except MullamaError as error:
                entry.health.failed(self._clock(), error.message)
            else:
                self._answered(entry)

    def status(self) -> list[dict[str, Any]]:
        """Return one entry for each declared peer, by name."""
        found = []
        for name, peer in sorted(self._manifest().peers.items()):
            entry = self._entries.get(name)
            known = entry if entry is not None and entry.peer == peer else None
            health, targets = (known.health, known.targets) if known is not None else (PeerHealth(), {})
            found.append({
                "name": name, "url": peer.url, "state": "ejected" if health.ejected else "ready",
                "running": entry.running if entry is not None else 0,
                "failures": health.failures, "reason": health.reason,
                "passed_over": sorted(one for one in targets if targets[one].until > self._clock()),
            })  # fmt: skip
        return found


def _hide_key(entry: _Entry, error: MullamaError) -> None:
    """Replace the key in the message of a failure: some servers repeat it, and the message reaches clients."""
    if entry.key and entry.key in error.message:
        error.message = error.message.replace(entry.key, "***")
