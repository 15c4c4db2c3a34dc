"""A fleet of three hosts behind a gateway, and a run of changes and faults from a seed while clients ask."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.hosts.network import Network
from tests.hosts.servers import HEADERS, KEY, WAIT_SECONDS, Clients, HostStack, Outcome, script

HOSTS = ("a", "b", "c")
PEER = {"key": KEY, "timeout": "3s", "connect_timeout": "1s"}
_LOSSES = ("kill", "partition")
"""Faults that may end requests at one host."""


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

    async def kill(self, name: str) -> None:
        """End all processes of a host at once, and start it again."""
        stack = self.stacks[name]
        await asyncio.to_thread(stack.kill)
        stack.serve()
        await asyncio.to_thread(stack.ready)
        await self.returned(name)

    async def partition(self, name: str) -> None:
        """Cut a host off until the gateway has ejected it, and join it again."""
        self.network.cut(f"f{name}")
        try:
            await self._until(name, "ejected")
        finally:
            self.network.mend(f"f{name}")
        await self.returned(name)

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
    """Requests that failed while no host was lost."""
    at_lost_hosts: list[Outcome] = field(default_factory=list)
    """Requests that failed while a host was lost."""
    actions: list[str] = field(default_factory=list)


def actions(seed: int, swaps: int, faults: int) -> list[tuple[str, str]]:
    """Return the changes and faults of a run in their order, each with its host."""
    pick = random.Random(seed)
    found = [("swap", "")] * swaps
    for number in range(faults):
        kind = ("break_one", "kill", "partition")[number % 3]
        found.insert(pick.randrange(1, len(found) + 1), (kind, pick.choice(HOSTS)))
    return found


async def run(fleet: Fleet, plan: Sequence[tuple[str, str]], clients: int, least: int) -> Account:
    """Perform a plan while clients ask, with at least so many requests in all."""
    account = Account()
    load = Clients(fleet.url, "chat", clients)
    share = -(-least // max(1, len(plan)))
    for kind, name in plan:
        before = len(load.found)
        await (fleet.swap() if kind == "swap" else getattr(fleet, kind)(name))
        await load.until(before + share)
        failed = [outcome for outcome in load.found[before:] if outcome.error]
        (account.at_lost_hosts if kind in _LOSSES else account.lost).extend(failed)
        account.actions.append(
            f"{kind} {name}".strip() + f": {len(load.found) - before} requests, {len(failed)} failed"
        )
    before = len(load.found)
    await load.stop()
    account.lost += [outcome for outcome in load.found[before:] if outcome.error]
    account.requests = len(load.found)
    return account
