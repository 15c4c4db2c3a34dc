"""The frames of llama.cpp's RPC (`ggml/src/ggml-rpc/ggml-rpc.cpp`): the parts that a look at devices needs.

A request is a command of 1 byte, the length of the data in 8 bytes, and the data; a reply, of the commands that have
one, is the length and the data. Numbers are little-endian. A client sends a request after the reply to the last one.
"""

from __future__ import annotations

import struct
from typing import Final

ALLOC_BUFFER: Final = 0
FREE_BUFFER: Final = 4
GET_DEVICE_MEMORY: Final = 11
HELLO: Final = 14
DEVICE_COUNT: Final = 15
REPLIED: Final = frozenset({0, 1, 2, 3, 7, 8, 9, 11, 13, 14, 15})
"""The commands with a reply: buffers and their bases, alignments and sizes; hashes, reads and copies of tensors."""
QUESTIONS: Final = frozenset({GET_DEVICE_MEMORY, HELLO, DEVICE_COUNT})
"""The commands that ask for devices and use none."""
LAST: Final = 17
"""The highest number of a command."""

VERSION: Final = 7
"""The major version of the protocol; others have other frames."""

REQUEST: Final = struct.Struct("<BQ")
LENGTH: Final = struct.Struct("<Q")
HELLO_DATA: Final = bytes(24)
"""The capabilities of a connection, of which TCP has none: RPC_CONN_CAPS_SIZE bytes."""
MEMORY: Final = struct.Struct("<QQ")
"""Free and total bytes of a device."""
BUFFER: Final = struct.Struct("<QQ")
"""Address and bytes of a buffer; address 0 is one that could not be allocated."""
ALLOCATION: Final = struct.Struct("<IQ")
"""Number of the device, and bytes."""
COUNT: Final = struct.Struct("<I")
ADDRESS: Final = struct.Struct("<Q")


MALFORMED = struct.error
"""Raised by `unpack` for data of another length."""


def request(command: int, data: bytes = b"") -> bytes:
    return REQUEST.pack(command, len(data)) + data


def reply(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data
