"""The RPC hosts of a worker: those that the network does not reach, and those that are only busy."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from mullama.runtime.worker.connections import closed_by, host_left
from mullama.runtime.worker.hosts import hosts_of, unreachable

pytestmark = pytest.mark.anyio


def test_hosts_are_named_by_the_devices_of_other_machines() -> None:
    assert hosts_of(("CUDA0", "10.0.0.2:50052/0", "10.0.0.2:50052/1", "0000:01:00.0")) == ("10.0.0.2:50052",)


async def test_a_host_that_accepts_no_connection_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, socket.create_server(("127.0.0.1", 0)) as left:
        there, gone = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in (busy, left))
        left.close()
        # llama.cpp's own server accepts a connection beside that of its client, and answers when the client leaves.
        assert await unreachable((there, gone)) == [gone]


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0200000A:9C40 0300000A:C384 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 0200000A:9C42 0400000A:C384 08 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
"""


@pytest.mark.parametrize(
    ("host", "sockets", "left"),
    [
        ("10.0.0.3:50052", {"12", "13"}, False),
        ("10.0.0.4:50052", {"12", "13"}, True),
        ("10.0.0.4:50052", {"12"}, False),  # a connection of another process
        ("10.0.0.4:50053", {"13"}, False),
        ("gpu.lan:50052", {"13"}, True),
        ("gpu.lan:50052", {"12"}, False),
    ],
)
def test_a_host_that_closed_a_connection_is_found(host: str, sockets: set[str], left: bool) -> None:
    assert host_left(host, TABLE, sockets) is left


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the connections of a process")
def test_a_connection_of_this_process_that_the_other_side_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with socket.create_connection(listener.getsockname()) as ours:
            theirs, _ = listener.accept()
            assert closed_by((host,), os.getpid()) == []
            theirs.close()
            assert ours.recv(1) == b""
            assert closed_by((host,), os.getpid()) == [host]
        assert closed_by((host,), os.getpid()) == []
    assert closed_by((host,), 2**22 + 1) == []
