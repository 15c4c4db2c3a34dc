"""The RPC hosts of a worker, and which of them is gone when the worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mullama.errors import MullamaError
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
    named = ", ".join(silent or hosts)
    ended = "does not answer" if silent else "closed the connection"
    message = f"the RPC host {named} {ended}, which ended the worker"
    return Death(message=message, report=death.report, cause=DeathCause.OUTSIDE, lost_host=named, work=death.work)


async def _answers(hosts: Sequence[str]) -> list[bool]:
    from mullama.engines.llamacpp.rpc.ask import ask_devices

    def answers(host: str) -> bool:
        try:
            ask_devices(host)
        except MullamaError:
            return False
        return True

    return await asyncio.gather(*(asyncio.to_thread(answers, host) for host in hosts))


def failure(death: Death) -> HostLost:
    """Return the error of a request to a worker that a lost host ended."""
    hint = "the model is loaded again when the host answers: mullama rpc lends its devices"
    return HostLost(death.message, hint=hint, report=death.report, retry_after=2.0)
