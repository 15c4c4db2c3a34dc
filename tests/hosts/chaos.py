"""A fleet of three hosts behind a gateway, and a run of changes and faults from a seed while clients ask."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.hosts.network import Network
from tests.hosts.servers import HEADERS, KEY, WAIT_SECONDS, Clients, HostStack, Outcome, script

HOSTS = ("a", "b", "c")
PEER = {"key": KEY, "timeout": "3s", "connect_timeout": "1s"}


@dataclass(frozen=True)
class Loss:
    """A host that was lost. at: the time of the loop from which on no packet of it arrives."""

    host: str
    at: float

    def ended(self, outcome: Outcome) -> bool:
        """Return True for a request that was in flight at the host: it began before the loss, and had a first byte.

        Every other request can be answered by the other hosts, so its failure is a fault of the gateway.
        """
        return outcome.began <= self.at and outcome.status == 200 and outcome.model == f"chat@{self.host}"


@dataclass
class Fleet:
    """Three hosts with one model, and a gateway `g` whose route leads to all of them."""

    network: Network
    stacks: dict[str, HostStack]
    revision: int = 0

    @property
    def url(self) -> str:
        return self.stacks["g"].url

    def write(self, name: str, revision: int, **more: Any) -> None:
        model: dict[str, Any] = {"from": script(self.stacks[name].home), "limits": {"parallel": 16, "queue": 1000}}
        # Each second revision needs another context, which is a load beside the old one; the others a new template.
        changed = {"context": {"size": 2048 + revision}} if revision % 2 else {"system": f"Revision {revision}."}
        self.stacks[name].write({"chat": {**model, **changed, **more}})

    async def swap(self) -> None:
        """Apply the next revision on one host after the other."""
        self.revision += 1
        for name in HOSTS:
            self.write(name, self.revision)
            await asyncio.to_thread(self.stacks[name].apply)

    async def break_one(self, name: str) -> None:
        """Apply a revision that cannot be loaded. It is refused, and the host serves the old one."""
        home = self.stacks[name].home
        (home / "broken.script.json").write_text('{"name": "broken", "faults": true, "on_open": "crash abort"}')
        self.stacks[name].write({"chat": {"from": "./broken.script.json", "context": {"size": 4096}}})
        done = await asyncio.to_thread(self.stacks[name].apply, code=None)
        assert done.returncode != 0, done.stdout
        self.write(name, self.revision)
        await asyncio.to_thread(self.stacks[name].apply)

    async def kill(self, name: str) -> Loss:
        """End all processes of a host at once, and start it again."""
        stack = self.stacks[name]
        await asyncio.to_thread(stack.kill)
        loss = Loss(name, asyncio.get_running_loop().time())
        stack.serve()
        await asyncio.to_thread(stack.ready)
        await self.returned(name)
        return loss

    async def partition(self, name: str) -> Loss:
        """Cut a host off until the gateway has ejected it, and join it again."""
        self.network.cut(f"f{name}")
        loss = Loss(name, asyncio.get_running_loop().time())
        try:
            await self._until(name, "ejected")
        finally:
            self.network.mend(f"f{name}")
        await self.returned(name)
        return loss

    async def returned(self, name: str) -> None:
        """Wait until the gateway uses a host."""
        await self._until(name, "ready")

    async def _until(self, name: str, state: str) -> None:
        async with asyncio.timeout(WAIT_SECONDS), httpx.AsyncClient(timeout=60) as client:
            while True:
                tree = (await client.get(f"{self.url}/api/v1/status", headers=HEADERS)).json()
                if {peer["name"]: peer["state"] for peer in tree["peers"]}[name] == state:
                    return
                await asyncio.sleep(0.1)  # the gateway changes it by requests and probes of its own

    def log(self) -> str:
        return "\n".join(f"== {name}\n{stack.log()}" for name, stack in self.stacks.items())


@contextmanager
def fleet_of_three(network: Network, folder: Path) -> Iterator[Fleet]:
    """A fleet whose servers are ready; they are ended at the end of the block."""
    stacks: dict[str, HostStack] = {}
    fleet = Fleet(network, stacks)
    try:
        for name in (*HOSTS, "g"):
            home = folder / name
            home.mkdir()
            stacks[name] = HostStack(home, host=network.host(f"f{name}"))
            if name != "g":
                fleet.write(name, 0)
            else:
                peers = {peer: {"url": stacks[peer].url, **PEER} for peer in HOSTS}
                to = [f"chat@{peer}" for peer in HOSTS]
                stacks[name].write({}, peers=peers, routes={"chat": {"to": to, "fallback": to}})
            stacks[name].serve()
        for stack in stacks.values():
            stack.ready()
        yield fleet
    finally:
        for stack in stacks.values():
            stack.close()


@dataclass
class Account:
    """The outcome of a run."""

    requests: int = 0
    lost: list[Outcome] = field(default_factory=list)
    """Requests that failed and were not in flight at a lost host."""
    at_lost_hosts: list[Outcome] = field(default_factory=list)
    """Requests that failed and were in flight at a lost host."""
    actions: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        kinds = Counter(outcome.error[:200] for outcome in (*self.lost, *self.at_lost_hosts))
        return "\n".join([
            f"{self.requests} requests in {self.seconds:.0f} s, {self.requests / self.seconds:.1f}/s: {len(self.lost)} "
            f"lost, {len(self.at_lost_hosts)} failed in flight at lost hosts",
            *(f"{count} of {kind}" for kind, count in kinds.items()),
        ])  # fmt: skip


def text_of(client: int, number: int) -> str:
    """Return the text of a request. Each third client has long answers, so a lost host has some in mid-stream."""
    pace = "slow 20ms 40 tokens" if client % 3 == 2 else "4 tokens"
    return f"conversation {client} {number} {pace}"


def actions(seed: int, swaps: int, faults: int) -> list[tuple[str, str]]:
    """Return the changes and faults of a run in their order, each with its host."""
    pick = random.Random(seed)
    found = [("swap", "")] * swaps
    for number in range(faults):
        kind = ("break_one", "kill", "partition")[number % 3]
        found.insert(pick.randrange(1, len(found) + 1), (kind, pick.choice(HOSTS)))
    return found


async def run(
    fleet: Fleet,
    plan: Sequence[tuple[str, str]],
    clients: int,
    least: int,
    report: Callable[[str], object] = lambda line: None,
) -> Account:
    """Perform a plan while clients ask, with at least so many requests in all. report: gets a line for each action."""
    account = Account()
    loop = asyncio.get_running_loop()
    started = loop.time()
    load = Clients(fleet.url, "chat", clients, text_of)
    share = -(-least // max(1, len(plan)))
    losses: list[Loss] = []

    def book(action: str, before: int, since: float) -> None:
        failed = [outcome for outcome in load.found[before:] if outcome.error]
        for outcome in failed:
            (account.at_lost_hosts if any(loss.ended(outcome) for loss in losses) else account.lost).append(outcome)
        asked = len(load.found) - before
        account.actions.append(f"{action}: {loop.time() - since:.1f} s, {asked} requests, {len(failed)} failed")
        report(account.actions[-1])

    for kind, name in plan:
        before, since = len(load.found), loop.time()
        if kind == "swap":
            await fleet.swap()
        elif (loss := await getattr(fleet, kind)(name)) is not None:
            losses.append(loss)
        await load.until(before + share)
        book(f"{kind} {name}".strip(), before, since)
    before, since = len(load.found), loop.time()
    await load.stop()
    book("the end", before, since)
    account.requests, account.seconds = len(load.found), loop.time() - started
    return account
