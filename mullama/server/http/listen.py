"""The HTTP server of one process: its listeners can change while connections stay open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mullama.errors import MullamaError, Unavailable
from mullama.manifest.addresses import Address, TcpAddress, UnixAddress, parse_address
from mullama.server.http.accepting import AcceptReports
from mullama.server.http.addresses import BACKLOG, Bound, PortInUse, bind
from mullama.server.http.connection_cap import ConnectionCap
from mullama.server.http.exchange import Listener, Receive, Scope, Send
from mullama.server.http.limits import DEFAULT, Bounds
from mullama.server.http.protocol import BoundedProtocol
from mullama.server.http.uvicorn_parts import Config, ServerState
from mullama.struct import Struct, field, replace

if TYPE_CHECKING:
    import ssl

_log = logging.getLogger(__name__)


class Application(Protocol):
    """An ASGI application whose requests in progress can be ended with an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    @property
    def followers(self) -> Collection[asyncio.Task[None]]:
        """The requests that have no end of their own."""
        ...

    def interrupt(self, error: MullamaError) -> None: ...


class _OpenListener(Struct, kw_only=True):
    """One open address."""

    text: str
    """The address as the manifest has it."""
    bound: Bound
    listener: Listener
    servers: list[asyncio.Server] = field(default_factory=list)
    tls: ssl.SSLContext | None = None


class HttpServer:
    """Serves one application on any number of addresses. It installs no signal handlers: the process owns those."""

    def __init__(self, bounds: Bounds = DEFAULT) -> None:
        self._bounds = bounds
        self._state = ServerState()
        self._cap = ConnectionCap[BoundedProtocol](bounds.connections)
        self._open: list[_OpenListener] = []
        self._control: _OpenListener | None = None
        self._tls: ssl.SSLContext | None = None
        self._clock: asyncio.Task[None] | None = None
        self._all_closed = asyncio.Event()

    @property
    def listening(self) -> tuple[str, ...]:
        """The open addresses with the ports that the system chose, without the control socket."""
        return tuple(str(opened.bound.address) for opened in self._open)

    async def start(
        self, app: Application, addresses: Sequence[str], control_path: str | None = None
    ) -> tuple[str, ...]:
        """Listen on all addresses, or on none and raise `PortInUse`, `Refused` or `Invalid`. Return `listening`.

        Requests over the control socket have all rights.
        """
        allow_descriptors(2 * self._bounds.connections)
        self._app = app
        self._config = Config(loaded_app=app, timeout_keep_alive=self._bounds.keep_alive)
        self._clock = asyncio.create_task(self._keep_date())
        asyncio.get_running_loop().set_exception_handler(AcceptReports())
        try:
            if control_path is not None:
                self._control = await self._listen(f"unix:{control_path}", "control")
            for text in addresses:
                self._open.append(await self._listen(text))
        except BaseException:
            await self.stop(0)
            raise
        return self.listening

    async def listen_on(self, addresses: Sequence[str], tls: ssl.SSLContext | None = None) -> tuple[str, ...]:
        """Listen on exactly these addresses: open the new ones, then close and drain the others.

        tls: of the TCP listeners; None for plain HTTP. If a new address cannot be bound, the old listeners stay and
        the error is raised.
        """
        before, self._tls = self._tls, tls
        try:
            await self._follow_addresses(addresses)
        except BaseException:
            self._tls = before
            raise
        if tls is not before:
            await self._accept_anew(drain=(tls is None) != (before is None))
        return self.listening

    async def renew(self, tls: ssl.SSLContext, *, drain: bool = False) -> None:
        """Use another context for new connections. drain: close idle connections, and others after their response."""
        self._tls = tls
        await self._accept_anew(drain=drain)

    async def _accept_anew(self, *, drain: bool) -> None:
        """Accept with the present context on the open TCP sockets, which are copied, so that no client is refused."""
        for opened in self._open:
            if opened.listener.kind != "tcp" or opened.tls is self._tls:
                continue
            before = replace(opened)
            opened.bound = replace(opened.bound, sockets=tuple(each.dup() for each in opened.bound.sockets))
            opened.listener, opened.servers = replace(opened.listener), []
            await self._accept(opened)
            if drain:
                await self._close([before])
            else:
                await self._stop_listening([before])

    async def _follow_addresses(self, addresses: Sequence[str]) -> None:
        wanted = list(dict.fromkeys(addresses))
        leaving = [opened for opened in self._open if opened.text not in wanted]
        known = {opened.text for opened in self._open}
        added: list[_OpenListener] = []
        try:
            for text in (text for text in wanted if text not in known):
                opened = await self._listen_over(text, leaving)
                added.append(opened)
        except BaseException:
            await self._close(added)
            await self._reopen(leaving)
            raise
        await self._close(leaving)
        staying = [opened for opened in self._open if opened not in leaving]
        self._open = sorted([*staying, *added], key=lambda opened: wanted.index(opened.text))

    async def stop(self, drain_seconds: float) -> None:
        """Close all listeners and idle connections, and wait for the requests in progress.

        After `drain_seconds` each request that still runs gets the error of its dialect and is ended.
        """
        listeners = [*self._open, *([self._control] if self._control else [])]
        self._open, self._control = [], None
        await self._close(listeners)
        for connection in list(self._state.connections):
            connection.shutdown()
            if isinstance(connection, BoundedProtocol):
                connection.leave()
        done = await self._all_done(drain_seconds, besides=self._app.followers)
        if not done or self._app.followers:
            stopping = Unavailable("the server is stopping", hint="try again later", retry_after=5.0)
            self._app.interrupt(stopping)
            if not await self._all_done(self._bounds.flush):
                for task in list(self._state.tasks):
                    task.cancel()
                await self._all_done(self._bounds.flush)
        await self._all_flushed()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._clock is not None:
            self._clock.cancel()
        await asyncio.sleep(0)  # the transports call connection_lost in the next turn

    async def _all_done(self, seconds: float, besides: Collection[asyncio.Task[None]] = ()) -> bool:
        """Return whether every request that runs now ends within the time. besides: requests that are not awaited."""
        running = [task for task in self._state.tasks if not task.done() and task not in besides]
        if running:
            await asyncio.wait(running, timeout=seconds)
        return all(task.done() for task in running)

    async def _all_flushed(self) -> None:
        """Wait a moment for responses in the send buffers, until all connections are closed."""
        if self._state.connections:
            self._all_closed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.flush):
                    await self._all_closed.wait()

    def _connection_lost(self) -> None:
        if not self._state.connections:
            self._all_closed.set()

    async def _listen(self, text: str, kind: Literal["tcp", "control"] = "tcp") -> _OpenListener:
        bound = bind(parse_address(text))
        unix = isinstance(bound.address, UnixAddress)
        listener = Listener(kind="unix" if unix and kind == "tcp" else kind, hosts=bound.hosts)
        opened = _OpenListener(text=text, bound=bound, listener=listener)
        await self._accept(opened)
        return opened

    async def _accept(self, opened: _OpenListener) -> None:
        def protocol() -> BoundedProtocol:
            state: dict[str, Any] = {"listener": opened.listener}
            cap = None if opened.listener.kind == "control" else self._cap
            return BoundedProtocol(self._config, self._state, state, self._bounds, cap, self._connection_lost)

        loop = asyncio.get_running_loop()
        opened.tls = self._tls if opened.listener.kind == "tcp" else None
        tls: Any = {}
        if opened.tls is not None:
            tls = {
                "ssl": opened.tls, "ssl_handshake_timeout": self._bounds.header_time,
                "ssl_shutdown_timeout": self._bounds.linger,
            }  # fmt: skip
        # create_server calls listen() again, and would lower the backlog to its default of 100.
        for each in opened.bound.sockets:
            opened.servers.append(await loop.create_server(protocol, sock=each, backlog=BACKLOG, **tls))

    async def _listen_over(self, text: str, leaving: list[_OpenListener]) -> _OpenListener:
        """Listen on an address; close a leaving listener first if it occupies the port."""
        try:
            return await self._listen(text)
        except PortInUse:
            address = parse_address(text)
            rivals = [opened for opened in leaving if _overlap(opened.bound.address, address)]
            if not rivals:
                raise
            await self._stop_listening(rivals)
            return await self._listen(text)

    async def _reopen(self, leaving: Iterable[_OpenListener]) -> None:
        """Open the leaving listeners that were closed for a new one which failed."""
        for opened in leaving:
            if not opened.servers:
                opened.bound = bind(opened.bound.address)
                await self._accept(opened)

    async def _stop_listening(self, listeners: Iterable[_OpenListener]) -> None:
        for opened in listeners:
            if opened.servers:
                await _stop_accepting(opened.bound)
            opened.bound.unlink()
            for server in opened.servers:
                server.close()
            opened.servers = []

    async def _close(self, listeners: Sequence[_OpenListener]) -> None:
        """Accept no new connections; close idle ones now and the others after their response.

        Those that are accepted while the listeners close have not sent their request yet, and end after it.
        """
        before = list(self._state.connections)
        closed = [opened.listener for opened in listeners]
        for listener in closed:
            listener.closed = True
        await self._stop_listening(listeners)
        for connection in before:
            if any(connection.app_state.get("listener") is listener for listener in closed):
                connection.shutdown()

    async def _keep_date(self) -> None:
        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1.0)


async def _stop_accepting(bound: Bound) -> None:
    """Accept the connections that wait on these sockets and then no more, and let them begin.

    A socket that is closed resets those that wait, and a server that is closed in the turn after it accepted a
    connection drops it without an answer.
    """
    for _ in range(2):  # the event loop sees that they wait, then accepts them
        await asyncio.sleep(0)
    for each in bound.sockets:
        with contextlib.suppress(NotImplementedError):  # the event loop of Windows has no readers
            asyncio.get_running_loop().remove_reader(each)
    await asyncio.sleep(0)


def _overlap(one: Address, other: Address) -> bool:
    """Return whether the two addresses may exclude each other."""
    if isinstance(one, TcpAddress) and isinstance(other, TcpAddress):
        return one.port == other.port
    return one == other


def allow_descriptors(wanted: int) -> int:
    """Raise the soft limit of open files and sockets to `wanted`, or to the hard limit with a warning; return it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
        soft = enough
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _log.warning("the limit of open files and sockets is %d, and %d are needed: raise ulimit -n", soft, wanted)
    return soft
