"""The RPC hosts of a worker, and which of them is gone when the worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mullama.errors import MullamaError, Unavailable
from mullama.runtime.worker.process import Death, DeathCause, HostLost, lost_connection


def hosts_of(devices: Sequence[str]) -> tuple[str, ...]:
    """Return the hosts among the engine's names of devices: `host:port` of `host:port/number`."""
    found = (device.rpartition("/") for device in devices)
    return tuple(dict.fromkeys(host for host, _, number in found if ":" in host and number.isdecimal()))


async def explained(death: Death, hosts: Sequence[str]) -> Death:
    """Return the end of a worker with the lost host as its cause, if it has one.

    A worker ends when the connection to a host breaks, and hangs when a host is silent. A host that answers again, such
    as one that was restarted, is still the cause if llama.cpp reported a broken connection.
    """
    broken = lost_connection(death.report)
    if not hosts or not (broken or death.cause is DeathCause.HANG):
        return death
    silent = [host for host, answers in zip(hosts, await _answers(hosts), strict=True) if not answers]
    if not broken and not silent:
        return death
    return lost(death, silent or hosts, "does not answer" if silent else "closed the connection")


def lost(death: Death, hosts: Sequence[str], ended: str) -> Death:
    """Return the end of a worker with these hosts as its cause."""
    named = ", ".join(hosts)
    message = f"the RPC host {named} {ended}, which ended the worker"
    return Death(message=message, report=death.report, cause=DeathCause.OUTSIDE, lost_host=named, work=death.work)


async def unreachable(hosts: Sequence[str]) -> list[str]:
    """Return the hosts that accept no connection. One that serves another client accepts it, and answers later."""
    from mullama.engines.llamacpp.rpc.ask import HostBusy

    failures = await asyncio.gather(*(asyncio.to_thread(_failure_of, host) for host in hosts))
    return [
        host
        for host, error in zip(hosts, failures, strict=True)
        if isinstance(error, Unavailable) and not isinstance(error, HostBusy)
    ]


async def departed(hosts: Sequence[str], pid: int) -> list[str]:
    """Return the hosts that closed their connection to a worker that waits for requests."""
    from mullama.runtime.worker.connections import closed_by

    return await asyncio.to_thread(closed_by, hosts, pid)


async def _answers(hosts: Sequence[str]) -> list[bool]:
    return [error is None for error in await asyncio.gather(*(asyncio.to_thread(_failure_of, h) for h in hosts))]


def _failure_of(host: str) -> MullamaError | None:
    from mullama.engines.llamacpp.rpc.ask import ask_devices

    try:
        ask_devices(host)
    except MullamaError as error:
        return error
    return None


def failure(death: Death) -> HostLost:
    """Return the error of a request to a worker that a lost host ended."""
    hint = "the model is loaded again when the host answers: mullama rpc lends its devices"
    return HostLost(death.message, hint=hint, report=death.report, retry_after=2.0)
