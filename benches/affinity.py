"""Simulates the cache hits of conversations over several hosts: `python -m benches.affinity [--hosts 8]`.

The choice of a host is that of a server: the key of the conversation, rendezvous hashing, and the bound on the load of
each peer. The rest is a model: conversations of many turns arrive, think, and return; a host keeps the prefixes of the
last ones, least recently used first out. The hosts together have as much room as the single host that they are compared
with. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from mullama.chat.types import ChatRequest, Message, TextPart
from mullama.manifest.spec import Manifest
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.routing import Routing, candidates, conversation_key, routings

_PREFILL, _DECODE = 2000.0, 40.0
"""Tokens per second of a host: of a prompt, and of one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The conversations. Times are in seconds."""

    conversations: int = 800
    rate: float = 1.2
    """Conversations that begin per second."""
    applications: int = 12
    """Each has a system message of its own; some are much more used than others."""
    agents: float = 0.3
    """The share of conversations whose next turn follows at once, as that of a program does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One conversation: the sizes of its turns in tokens, and the thinking before each."""

    number: int
    begins: float
    application: int
    system: int
    turns: tuple[tuple[int, int], ...]
    """Message of the user, and answer."""
    pauses: tuple[float, ...]
    key: bytes


@dataclass(slots=True, kw_only=True)
class Found:
    """Tokens of prompts, and those of them that a cache had."""

    asked: int = 0
    hit: int = 0
    requests: int = 0
    running: int = 0
    most_running: int = 0
    elsewhere: int = 0
    """Requests that another host than that of the turn before answered."""

    @property
    def rate(self) -> float:
        """The share of the tokens of prompts that a cache had."""
        return self.hit / self.asked


@dataclass(slots=True)
class PrefixCache:
    """The prefixes that one host keeps, as a tree of messages; the longest unused ends go first. room: in tokens."""

    room: float
    used: int = 0
    sizes: OrderedDict[tuple[int, int], int] = field(default_factory=OrderedDict)

    def hit(self, path: Sequence[tuple[tuple[int, int], int]]) -> int:
        """Return the tokens of the longest kept beginning of a path."""
        count = 0
        for node, size in path:
            if node not in self.sizes:
                break
            count += size
        return count

    def keep(self, path: Sequence[tuple[tuple[int, int], int]]) -> None:
        """Keep a path; its beginning is the last to go."""
        for node, size in reversed(path):
            if node not in self.sizes:
                self.sizes[node] = size
                self.used += size
            self.sizes.move_to_end(node)
        while self.used > self.room:
            self.used -= self.sizes.popitem(last=False)[1]


def recorded(traffic: Traffic, seed: int) -> list[Conversation]:
    """Return conversations with the shape of recorded ones: many short, few long ones, long-tailed sizes and pauses."""
    pick = random.Random(seed)
    systems = [int(pick.lognormvariate(6.2, 0.9)) for _ in range(traffic.applications)]
    popular = [1 / (rank + 1) for rank in range(traffic.applications)]  # Zipf
    found, now = [], 0.0
    for number in range(traffic.conversations):
        now += pick.expovariate(traffic.rate)
        (application,) = pick.choices(range(traffic.applications), popular)
        length = min(60, 1 + int(pick.lognormvariate(1.6, 0.8)))
        agent = pick.random() < traffic.agents
        turns = tuple(
            (1 + int(pick.lognormvariate(5.0 if agent else 3.8, 1.0)), 1 + int(pick.lognormvariate(4.8, 0.8)))
            for _ in range(length)
        )
        pauses = tuple(0.2 if agent else pick.lognormvariate(3.0, 0.8) for _ in range(length))
        first = (
            Message(role="system", content=(TextPart(text=f"application {application}"),)),
            Message(role="user", content=(TextPart(text=f"question {number}"),)),
        )
        found.append(
            Conversation(
                number=number, begins=now, application=application, system=systems[application], turns=turns,
                pauses=pauses, key=conversation_key(ChatRequest(model="chat", messages=first), None),
            )
        )  # fmt: skip
    return found


def hosts_of(count: int) -> tuple[Manifest, Routing]:
    """Return the manifest of a gateway with so many peers, and its route to all of them."""
    names = [f"host{number}" for number in range(count)]
    manifest = Manifest.model_validate({
        "mullama": "v1",
        "peers": {name: {"url": f"http://{name}:11434"} for name in names},
        "routes": {"chat": {"to": [{"model": "m", "peer": name} for name in names]}},
    })  # fmt: skip
    return manifest, routings(manifest)["chat"]


def simulate(
    conversations: Sequence[Conversation], hosts: int, room: float, *,
    away: tuple[str, float, float] | None = None, any_host: random.Random | None = None,
) -> Found:  # fmt: skip
    """Serve conversations with some hosts, and return the hits of their caches.

    room: tokens that all caches hold together. away: a host with the times at which it leaves and returns, without its
    cache. any_host: chooses hosts at random instead, for comparison.
    """
    manifest, route = hosts_of(hosts)
    book = PeerBook(lambda: manifest, {}, lambda *_: None)
    caches = {name: PrefixCache(room / hosts) for name, _ in route.targets}
    found, last = Found(), {}
    events: list[tuple[float, int, int, Callable[[], None] | None]] = []
    order = iter(range(10**9))
    now = 0.0

    def turn(conversation: Conversation, number: int) -> None:
        ready = book.usable(route.targets)

        def usable(target: str) -> bool:
            gone = away is not None and target == away[0] and away[1] <= now < away[2]
            return not gone and ready(target)

        chosen = candidates(route, {}, conversation.key, usable) or candidates(route, {}, conversation.key)
        target = chosen[0].model if any_host is None else any_host.choice(route.targets)[0]
        path = [((-1, conversation.application), conversation.system)]
        for index, (question, answer) in enumerate(conversation.turns[: number + 1]):
            path.append(((conversation.number, 2 * index), question))
            path.append(((conversation.number, 2 * index + 1), answer))
        prompt, cache = path[:-1], caches[target]
        asked, hit = sum(size for _, size in prompt), cache.hit(prompt)
        found.asked, found.hit, found.requests = found.asked + asked, found.hit + hit, found.requests + 1
        found.elsewhere += last.get(conversation.number, target) != target
        last[conversation.number] = target
        running = ExitStack()
        running.enter_context(book._running(target))
        found.running += 1
        found.most_running = max(found.most_running, found.running)

        def ended() -> None:
            running.close()
            found.running -= 1
            cache.keep(path)
            if number + 1 < len(conversation.turns):
                following = now + conversation.pauses[number]
                heapq.heappush(events, (following, next(order), conversation.number, None))
                position[conversation.number] = number + 1

        takes = (asked - hit) / _PREFILL + conversation.turns[number][1] / _DECODE
        heapq.heappush(events, (now + takes, next(order), conversation.number, ended))

    position = {}
    by_number = {conversation.number: conversation for conversation in conversations}
    for conversation in conversations:
        position[conversation.number] = 0
        heapq.heappush(events, (conversation.begins, next(order), conversation.number, None))
    gone = False
    while events:
        now, _, number, end = heapq.heappop(events)
        if away is not None and now >= away[1] and not gone:
            gone = True
            caches[away[0]] = PrefixCache(room / hosts)
        if end is not None:
            end()
        else:
            turn(by_number[number], position[number])
    return found


def rows(traffic: Traffic, hosts: int, room: float, seed: int) -> Iterator[tuple[str, Found]]:
    """Yield the hits of one host, of several by each way of choice, and of several of which one leaves and returns."""
    conversations = recorded(traffic, seed)
    end = conversations[-1].begins
    yield "one host", simulate(conversations, 1, room)
    yield f"{hosts} hosts", simulate(conversations, hosts, room)
    yield "one leaves and returns", simulate(conversations, hosts, room, away=("m@host3", end / 3, end * 2 / 3))
    yield "at random", simulate(conversations, hosts, room, any_host=random.Random(seed))


def main() -> None:
    """Print the share of the tokens of prompts that a cache had, and its ratio to that of one host."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--room", type=float, default=8e5, help="tokens of all caches together")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    columns = ("conversations per second", "seed", "case", "hits", "of one host's", "most at once", "moved")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for rate in (0.1, 0.4, 1.2, 4.0):
        for seed in range(options.seeds):
            one = None
            for name, found in rows(Traffic(rate=rate), options.hosts, options.room, seed):
                one = one or found
                print(
                    f"| {rate:g} | {seed} | {name} | {found.rate:.1%} | {found.rate / one.rate:.3f} "
                    f"| {found.most_running} | {found.elsewhere / found.requests:.1%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
