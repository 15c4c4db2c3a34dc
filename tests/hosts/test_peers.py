"""A gateway and two hosts over a real network: a partition in mid-stream, a slow link, and a host that vanishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import eventually
from tests.hosts.network import CannotJoin, Network
from tests.hosts.servers import HEADERS, KEY, WAIT_SECONDS, Clients, HostStack, Outcome, ask, script

pytestmark = [pytest.mark.timeout(180), pytest.mark.anyio]
LONG = "slow 50ms 120 tokens"


@dataclass
class Trio:
    """A gateway `g` whose route `chat` leads to the hosts `a` and `b`."""

    network: Network
    gate: HostStack
    a: HostStack
    b: HostStack

    def used(self) -> dict[str, bool]:
        """Return whether the gateway sends requests to each host.

        A connection that is not accepted ejects the host, a silence after it only the model: the first fault decides.
        """
        tree = httpx.get(f"{self.gate.url}/api/v1/status", headers=HEADERS, timeout=60).json()
        return {peer["name"]: peer["state"] == "ready" and not peer["passed_over"] for peer in tree["peers"]}

    def many(
        self, text: str, count: int, begins: Callable[[Outcome], object] = lambda begun: None
    ) -> list[asyncio.Task[Outcome]]:
        """Begin so many conversations. begins: see `ask`."""

        async def one(number: int) -> Outcome:
            async with httpx.AsyncClient(timeout=60) as client:
                return await ask(client, self.gate.url, "chat", f"{text} {number}", begins)

        return [asyncio.create_task(one(number)) for number in range(count)]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Trio]:
    stacks = {}
    try:
        for name in ("a", "b", "g"):
            home = tmp_path_factory.mktemp(name)
            stacks[name] = stack = HostStack(home, forks=True, host=network.host(name))
            if name != "g":
                stack.write({"chat": {"from": script(home), "limits": {"parallel": 32}}})
            else:
                peers = {
                    peer: {"url": stacks[peer].url, "key": KEY, "timeout": "3s", "connect_timeout": "1s"}
                    for peer in ("a", "b")
                }
                to = ["chat@a", "chat@b"]
                stack.write({}, peers=peers, routes={"chat": {"to": to, "fallback": to}})
            stack.serve()
        for stack in stacks.values():
            stack.ready()
        yield Trio(network, stacks["g"], stacks["a"], stacks["b"])
    finally:
        for stack in stacks.values():
            stack.close()


async def begun(tasks: list[asyncio.Task[Outcome]], trio: Trio, count: int) -> None:
    """Wait until so many requests run at the hosts."""

    async def running() -> int:
        async with httpx.AsyncClient(timeout=60) as client:
            tree = (await client.get(f"{trio.gate.url}/api/v1/status", headers=HEADERS)).json()
        return sum(peer["running"] for peer in tree["peers"])

    while await running() < count:
        assert not all(task.done() for task in tasks)
        await asyncio.sleep(0.02)


async def test_a_partition_in_mid_stream_fails_only_the_requests_at_the_lost_host(trio: Trio) -> None:
    at_a = asyncio.Event()  # before its first text, a request is answered by the other host
    tasks = trio.many(LONG, 16, lambda begun: at_a.set() if begun.model == "chat@a" else None)
    async with asyncio.timeout(WAIT_SECONDS):
        await at_a.wait()
    trio.network.cut("a")
    try:
        found = await asyncio.gather(*tasks)
        failed = [outcome for outcome in found if outcome.error]
        assert {outcome.model for outcome in failed} <= {"chat@a", ""}
        assert failed, "no request was at the lost host"
        assert all(outcome.retryable for outcome in failed), failed[0]
        assert all(outcome.text for outcome in found if outcome.model == "chat@b")
        # Requests that begin now get their answer, also those of conversations of the lost host.
        # They find the host lost where no stream of it broke off, so they are repeated until it is passed over.
        after: list[Outcome] = []
        while not after or trio.used()["a"]:
            after += await asyncio.gather(*trio.many("4 tokens", 12))
        assert {outcome.error for outcome in after} == {""}
        assert {outcome.model for outcome in after} == {"chat@b"}
    finally:
        trio.network.mend("a")
    eventually(lambda: trio.used()["a"], trio.gate.log)


async def test_a_slow_link_delays_and_loses_nothing(trio: Trio) -> None:
    try:
        trio.network.slow("a", delay="60ms")
    except CannotJoin:
        trio.network.slow("a", rate="400kbit")  # a kernel without netem
    found = await asyncio.gather(*trio.many("20 tokens", 24))
    assert [outcome.error for outcome in found] == [""] * 24
    assert {outcome.model for outcome in found} == {"chat@a", "chat@b"}


async def test_a_host_that_vanishes_fails_only_its_own_requests_and_returns(trio: Trio, tmp_path: Path) -> None:
    clients = Clients(trio.gate.url, "chat", 6)
    await clients.until(30)
    tasks = trio.many(LONG, 8)
    await begun(tasks, trio, 8)
    before = len(clients.found)
    trio.b.kill()
    found = await asyncio.gather(*tasks)
    await clients.until(before + 60)
    await clients.stop()
    failed = [outcome for outcome in found if outcome.error]
    assert all(outcome.retryable for outcome in failed), failed[0]
    assert all(outcome.text for outcome in found if outcome.model == "chat@a")
    # A request that waits for its first byte there goes to the other host; one in mid-stream at most per client fails.
    assert len(clients.failed) <= 6
    assert all(outcome.retryable for outcome in clients.failed), clients.failed[0]
    trio.b.serve()
    trio.b.ready()
    eventually(lambda: trio.used()["b"], trio.gate.log)
    again = await asyncio.gather(*trio.many("4 tokens", 24))
    assert {outcome.model for outcome in again} == {"chat@a", "chat@b"}
