"""TLS listeners over real sockets: a renewed certificate, client certificates, and the way to plain HTTP and back."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from mullama.manifest.spec import Tls
from mullama.reconcile.certificate import load_certificate
from tests.certificates import Authority
from tests.server.server_fixture import RunningServer, running_server

PLAIN = "127.0.0.1:0"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running
        # Connections that failed in their handshake are not known to the server, and close by themselves.
        deadline = time.monotonic() + 60
        while has_connections(running.port) and time.monotonic() < deadline:
            running.wait(asyncio.sleep(0))


def has_connections(port: int) -> bool:
    """Return True if this process has an open connection of this port of its own."""
    return any(c.raddr and c.laddr.port == port for c in psutil.Process().net_connections("tcp"))


def context_of(authority: Authority, name: str, *, client_ca: str | None = None) -> ssl.SSLContext:
    cert, key = authority.issue(name)
    return load_certificate(Tls(cert=cert, key=key, client_ca=client_ca), now=time.time()).context


def listen(server: RunningServer, tls: ssl.SSLContext | None) -> None:
    (found,) = server.wait(server.http.listen_on([PLAIN], tls))
    server.address = ("127.0.0.1", int(found.rpartition(":")[2]))


def connect(
    server: RunningServer, authority: Authority, client: tuple[str, str] | None = None
) -> http.client.HTTPSConnection:
    trust = ssl.create_default_context(cafile=authority.cert)
    if client is not None:
        trust.load_cert_chain(*client)
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=trust)


def ask(server: RunningServer, authority: Authority, client: tuple[str, str] | None = None) -> int:
    with closing(connect(server, authority, client)) as connection:
        return get(connection)


def get(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/livez")
    response = connection.getresponse()
    response.read()
    return response.status


def subject(connection: http.client.HTTPSConnection) -> str:
    found = connection.sock.getpeercert()  # type: ignore[union-attr]
    return str(dict(pair for (pair,) in found["subject"])["commonName"])


def test_a_renewal_serves_new_connections_and_keeps_the_open_ones(server: RunningServer, authority: Authority) -> None:
    listen(server, context_of(authority, "first"))
    port = server.port
    old = connect(server, authority)
    assert (get(old), subject(old)) == (200, "first")
    server.wait(server.http.renew(context_of(authority, "second")))
    assert server.port == port
    new = connect(server, authority)
    assert (get(new), subject(new)) == (200, "second")
    assert (get(old), subject(old)) == (200, "first")
    old.close()
    new.close()


def test_no_request_is_lost_during_renewals(server: RunningServer, authority: Authority) -> None:
    contexts = [context_of(authority, name) for name in ("first", "second")]
    listen(server, contexts[0])
    done, failures, served = threading.Event(), [], [0]

    def keep_asking() -> None:
        while not done.is_set():
            try:
                connection = connect(server, authority)
                assert get(connection) == get(connection) == 200
                connection.close()
                served[0] += 1
            except Exception as error:  # noqa: BLE001 - each one is a lost request
                failures.append(error)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for number in range(100):
            server.wait(server.http.renew(contexts[number % 2]))
    finally:
        done.set()
        asking.join(60)
    assert failures == []
    assert served[0] > 0


def test_clients_need_a_certificate_of_the_authority(server: RunningServer, authority: Authority) -> None:
    clients = Authority(Path(authority.folder), "clients")
    allowed, stranger = clients.issue("allowed"), authority.issue("stranger")
    listen(server, context_of(authority, "server", client_ca=clients.cert))
    with closing(connect(server, authority, allowed)) as connection:
        assert get(connection) == 200
        for client in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(server, authority, client)
        # Another authority: the connections of the old one end, and its clients are refused.
        server.wait(server.http.renew(context_of(authority, "server", client_ca=authority.cert), drain=True))
        assert ask(server, authority, stranger) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(server, authority, allowed)
        assert connection.sock.recv(1) == b""


def test_tls_is_switched_on_and_off_on_an_open_address(server: RunningServer, authority: Authority) -> None:
    listen(server, None)
    port = server.port
    assert server.ask("GET", "/livez").status == 200
    listen(server, context_of(authority, "server"))
    assert server.port == port
    assert ask(server, authority) == 200
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        server.ask("GET", "/livez")
    listen(server, None)
    assert server.ask("GET", "/livez").status == 200
    with pytest.raises(ssl.SSLError):
        ask(server, authority)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("encrypted", [True, False])
def test_clients_that_connected_before_their_address_left_are_answered(
    encrypted: bool, turns: int, server: RunningServer, authority: Authority
) -> None:
    """The connections wait in the backlog, or were accepted some turns of the event loop ago."""
    tls = context_of(authority, "server") if encrypted else None
    listen(server, tls)

    async def connect_and_leave() -> list[socket.socket]:
        connected = [socket.create_connection(server.address, timeout=60) for _ in range(3)]
        for each in connected if tls is None else ():
            each.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.http.listen_on(["127.0.0.2:0"], tls)
        return connected

    for each in server.wait(connect_and_leave()):
        connection = connect(server, authority) if encrypted else http.client.HTTPConnection("127.0.0.1")
        with closing(each), closing(connection):
            if isinstance(connection, http.client.HTTPSConnection):
                trust = ssl.create_default_context(cafile=authority.cert)
                connection.sock = trust.wrap_socket(each, server_hostname="127.0.0.1")
                assert get(connection) == 200
                assert connection.sock is None, "it ends after the response"
            else:
                answer = http.client.HTTPResponse(each)
                answer.begin()
                assert (answer.status, answer.getheader("connection")) == (200, "close")
