"""A reverse proxy with a path prefix and TLS, as operators put before the server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

_HEAD = 64 * 1024  # bytes


@contextlib.contextmanager
def proxied(port: int, prefix: str, certificate: tuple[str, str]) -> Iterator[str]:
    """Serve what is at a port of this machine below a prefix by TLS, and yield the address.

    A request outside the prefix is answered with 404. Each connection has one request, and answers are not buffered.
    certificate: the paths of the certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(
            lambda reader, writer: _pass(reader, writer, port, prefix), "127.0.0.1", 0, ssl=context, limit=_HEAD
        )

    async def end(server: asyncio.Server) -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in a turn of their own

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}{prefix}"
    asyncio.run_coroutine_threadsafe(end(server), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, prefix: str) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, rest = head.split(b" ", 2)
        if not target.startswith(prefix.encode() + b"/"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        line, fields = rest.split(b"\r\n", 1)
        kept = [field for field in fields.split(b"\r\n") if field and not field.lower().startswith(b"connection:")]
        upstream, sink = await asyncio.open_connection("127.0.0.1", port)
        target = target.removeprefix(prefix.encode())
        sink.write(b"\r\n".join([b" ".join((method, target, line)), *kept, b"Connection: close", b"", b""]))
        sending = asyncio.ensure_future(_copy(reader, sink))
        try:
            await _copy(upstream, writer)
        except asyncio.CancelledError:  # the end of the proxy waits for no client
            writer.transport.abort()
            raise
        finally:
            sending.cancel()
            sink.close()
            writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_HEAD):
        sink.write(data)
        await sink.drain()
