"""A command of the machine as a server of tools: newline-delimited JSON over its standard input and output.

The transport of the SDK reads lines of any length; this one bounds them, and keeps the end of the error output.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import anyio.abc
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from mullama.tools.host_file import HostCommand
from mullama.units import size

_GRACE: Final = 2.0
"""Seconds for the end of the command after its input is closed, and again after SIGTERM."""
_PIECE: Final = 64 * 1024
_KEPT: Final = 4096

Received = MemoryObjectReceiveStream[SessionMessage | Exception]
Sent = MemoryObjectSendStream[SessionMessage]


class ErrorOutput:
    """The end of the error output of a command."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_KEPT:]

    @property
    def last_line(self) -> str:
        """The last line with text, of printable characters; "" for none."""
        lines = self._kept.decode("utf-8", "replace").split("\n")
        found = next((line for line in reversed(lines) if line.strip()), "")
        return "".join(c if c.isprintable() else " " for c in found).strip()[:200]


@asynccontextmanager
async def command_streams(
    command: HostCommand, most: int, errors: ErrorOutput
) -> AsyncGenerator[tuple[Received, Sent], None]:
    """Start the command and yield the streams of its messages; the end of the block ends it and its children.

    most: the most bytes of one message; a longer one ends the streams. Raises `OSError` for a command that does not
    start.
    """
    process = await anyio.open_process(
        [command.command, *command.args], env=get_default_environment() | dict(command.env), cwd=command.cwd,
        start_new_session=True,
    )  # fmt: skip
    to_session, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as group:
        group.start_soon(_read, process, to_session, most, errors)
        group.start_soon(_write, process, from_session, to_session)
        group.start_soon(_note, process, errors)
        try:
            yield received, sent
        finally:
            with anyio.CancelScope(shield=True):
                for stream in (received, sent):
                    await stream.aclose()
                await _stop(process)
            group.cancel_scope.cancel()


async def _read(
    process: anyio.abc.Process, to_session: MemoryObjectSendStream[Any], most: int, errors: ErrorOutput
) -> None:
    """Send each line of the output as a message. A line that is too long ends the session."""
    assert process.stdout is not None
    kept = bytearray()
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async with to_session:
            while True:
                kept += await process.stdout.receive(_PIECE)
                while (end := kept.find(b"\n")) >= 0:
                    line, kept = bytes(kept[:end]), kept[end + 1 :]
                    if line.strip():
                        await to_session.send(_message(line))
                if len(kept) > most:
                    errors.add(f"\nthe command sent a message of more than {size(most)}\n".encode())
                    return


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _write(
    process: anyio.abc.Process, from_session: MemoryObjectReceiveStream[Any], to_session: MemoryObjectSendStream[Any]
) -> None:
    assert process.stdin is not None
    try:
        async with from_session:
            async for item in from_session:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(text.encode() + b"\n")
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        await to_session.aclose()  # the session learns that nothing answers


async def _note(process: anyio.abc.Process, errors: ErrorOutput) -> None:
    assert process.stderr is not None
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        while True:
            errors.add(await process.stderr.receive(_PIECE))


async def _stop(process: anyio.abc.Process) -> None:
    """Close the input, and end the command and its children if that is not enough."""
    assert process.stdin is not None
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with anyio.move_on_after(_GRACE):
            await process.wait()
        if process.returncode is not None:
            break
        _signal(process, number)
    _signal(process, signal.SIGKILL)  # what it started and left behind
    with anyio.move_on_after(_GRACE):
        await process.wait()
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.aclose()


def _signal(process: anyio.abc.Process, number: signal.Signals) -> None:
    """Send a signal to the group of the command: it leads a session of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
