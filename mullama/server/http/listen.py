"""The HTTP server of one process: listeners that come and go over connections that stay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal, Protocol, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from mullama.errors import MullamaError, Unavailable
from mullama.manifest.addresses import Address, TcpAddress, UnixAddress, parse_address
from mullama.server.http.addresses import BACKLOG, Bound, PortInUse, bind
from mullama.server.http.asgi import Receive, Scope, Send
from mullama.server.http.descriptors import allow_descriptors
from mullama.server.http.exchange import Listener
from mullama.server.http.limits import DEFAULT, Bounds
from mullama.server.http.protocol import BoundedProtocol


class Application(Protocol):
    """An ASGI application whose requests in progress can be ended with an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def interrupt(self, error: MullamaError) -> None: ...


@dataclass(slots=True, kw_only=True)
class _Open:
    """One address that is listened on. `text` is how it was asked for."""

    text: str
    bound: Bound
    listener: Listener
    servers: list[asyncio.Server] = field(default_factory=list)


class HttpServer:
    """Serves one application on any number of addresses; signals belong to whoever owns the process."""

    def __init__(self, bounds: Bounds = DEFAULT) -> None:
        self._bounds = bounds
        self._state = ServerState()
        self._open: list[_Open] = []
        self._control: _Open | None = None
        self._clock: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    @property
    def listening(self) -> tuple[str, ...]:
        """The addresses as they really are, ports included; without the control socket."""
        return tuple(str(opened.bound.address) for opened in self._open)

    async def start(
        self, app: Application, addresses: Sequence[str], control_path: str | None = None
    ) -> tuple[str, ...]:
        """Listen on all addresses or none; gives what `listening` gives.

        Raises `PortInUse`, `Refused` or `Invalid`. Requests over the control socket have all rights.
        """
        allow_descriptors(2 * self._bounds.connections)
        self._app = app
        self._config = _uvicorn_config(app, self._bounds)
        self._clock = asyncio.create_task(self._keep_date())
        try:
            if control_path is not None:
                self._control = await self._listen(f"unix:{control_path}", "control")
            for text in addresses:
                self._open.append(await self._listen(text))
        except BaseException:
            await self.stop(0)
            raise
        return self.listening

    async def listen_on(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Listen on exactly these addresses: new ones first, then the others are closed and drained.

        If a new one cannot be bound everything stays as it was, and the error is raised.
        """
        wanted = list(dict.fromkeys(addresses))
        leaving = [opened for opened in self._open if opened.text not in wanted]
        known = {opened.text for opened in self._open}
        added: list[_Open] = []
        try:
            for text in (text for text in wanted if text not in known):
                opened = await self._listen_over(text, leaving)
                added.append(opened)
        except BaseException:
            self._close(added)
            await self._reopen(leaving)
            raise
        self._close(leaving)
        staying = [opened for opened in self._open if opened not in leaving]
        self._open = sorted([*staying, *added], key=lambda opened: wanted.index(opened.text))
        return self.listening

    async def stop(self, drain_seconds: float) -> None:
        """Close all listeners and idle connections, let the others end, cut them after the time is up.

        What is cut gets the error event of its dialect first.
        """
        listeners = [*self._open, *([self._control] if self._control else [])]
        self._open, self._control = [], None
        self._close(listeners)
        for connection in list(self._state.connections):
            connection.shutdown()
        if not await self._all_done(drain_seconds):
            stopping = Unavailable("the server is stopping", hint="ask again later", retry_after=5.0)
            self._app.interrupt(stopping)
            if not await self._all_done(self._bounds.farewell):
                for task in list(self._state.tasks):
                    task.cancel()
                await self._all_done(self._bounds.farewell)
        await self._all_flushed()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._clock is not None:
            self._clock.cancel()
        await asyncio.sleep(0)  # for the aborted connections to be told

    async def _all_done(self, seconds: float) -> bool:
        """Whether every request that is running now ends within the time."""
        running = [task for task in self._state.tasks if not task.done()]
        if running:
            await asyncio.wait(running, timeout=seconds)
        return all(task.done() for task in running)

    async def _all_flushed(self) -> None:
        """Answers that are written but not sent yet get a last moment to leave."""
        if self._state.connections:
            self._lost.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self._bounds.farewell)

    def _connection_lost(self) -> None:
        if not self._state.connections:
            self._lost.set()

    async def _listen(self, text: str, kind: Literal["tcp", "control"] = "tcp") -> _Open:
        bound = bind(parse_address(text))
        unix = isinstance(bound.address, UnixAddress)
        listener = Listener(kind="unix" if unix and kind == "tcp" else kind, hosts=bound.hosts)
        opened = _Open(text=text, bound=bound, listener=listener)
        await self._accept(opened)
        return opened

    async def _accept(self, opened: _Open) -> None:
        def protocol() -> BoundedProtocol:
            state: dict[str, Any] = {"listener": opened.listener}
            return BoundedProtocol(self._config, self._state, state, self._bounds, self._connection_lost)

        loop = asyncio.get_running_loop()
        for each in opened.bound.sockets:  # listens once more, with a backlog of 100 if it is not told
            opened.servers.append(await loop.create_server(protocol, sock=each, backlog=BACKLOG))

    async def _listen_over(self, text: str, leaving: list[_Open]) -> _Open:
        """Listen there; if only a listener that is to go stands in the way, take its place."""
        try:
            return await self._listen(text)
        except PortInUse:
            address = parse_address(text)
            rivals = [opened for opened in leaving if _overlap(opened.bound.address, address)]
            if not rivals:
                raise
            self._stop_listening(rivals)
            return await self._listen(text)

    async def _reopen(self, leaving: Iterable[_Open]) -> None:
        """Put back the listeners that were closed for others that did not come."""
        for opened in leaving:
            if not opened.servers:
                opened.bound = bind(opened.bound.address)
                await self._accept(opened)

    def _stop_listening(self, listeners: Iterable[_Open]) -> None:
        for opened in listeners:
            opened.bound.unlink()
            for server in opened.servers:
                server.close()
            opened.servers = []

    def _close(self, listeners: Sequence[_Open]) -> None:
        """Take no new connection; end idle ones now and the others with their answer."""
        self._stop_listening(listeners)
        gone = [opened.listener for opened in listeners]
        for connection in list(self._state.connections):
            if any(connection.app_state.get("listener") is listener for listener in gone):
                connection.shutdown()

    async def _keep_date(self) -> None:
        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1.0)


def _overlap(one: Address, other: Address) -> bool:
    """Whether two addresses cannot be listened on at the same time, or may not be."""
    if isinstance(one, TcpAddress) and isinstance(other, TcpAddress):
        return one.port == other.port
    return one == other


def _uvicorn_config(app: Application, bounds: Bounds) -> Config:
    config = Config(
        cast(Any, app),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=cast(int, bounds.keep_alive),
    )
    config.load()
    return config
