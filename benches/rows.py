"""The rows of the table. Each measures both sides in turn, several times, and yields the median of the ratios."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.servers import Server, llama_server, mullama
from mullama.cli.inference.load_test import Measured, quantile, words

# A tool call: the schema determines most of its text.
RECORD = {
    "type": "object",
    "properties": {
        "name": {"const": "get_current_weather"},
        "arguments": {
            "type": "object",
            "properties": {
                "location": {"enum": ["Amsterdam, the Netherlands", "Berlin, Germany", "Copenhagen, Denmark"]},
                "temperature_unit": {"enum": ["celsius", "fahrenheit"]},
                "number_of_days": {"type": "integer", "minimum": 1, "maximum": 9},
                "include_precipitation": {"type": "boolean"},
            },
            "required": ["location", "temperature_unit", "number_of_days", "include_precipitation"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Both sides get the same file and the same number of threads."""

    peer: Path
    model: Path
    threads: int = 2
    rounds: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    work: str
    goal: float
    """The ratio to reach."""
    ratio: float
    """Ours to theirs, or the inverse if less is better: above 1, mullama is ahead."""
    ours: float
    theirs: float
    unit: str
    """Unit of `ours` and `theirs`."""
    ratios: tuple[float, ...] = ()
    """The ratio of each round."""
    cpu: float | None = None
    """The ratio of CPU time per unit of work; other processes on the machine hardly change it."""


Pairs = list[tuple[float, float]]


def paired(work: str, goal: float, unit: str, rounds: Pairs, cpu: Pairs | None = None, *, less: bool = False) -> Row:
    """Return a row from (ours, theirs) of each round; `cpu` are seconds of CPU time for the same work."""
    ratios = tuple(theirs / ours if less else ours / theirs for ours, theirs in rounds)
    return Row(
        work=work,
        goal=goal,
        unit=unit,
        ratio=statistics.median(ratios),
        ours=statistics.median(ours for ours, _ in rounds),
        theirs=statistics.median(theirs for _, theirs in rounds),
        ratios=ratios,
        cpu=statistics.median(theirs / ours for ours, theirs in cpu) if cpu else None,
    )


def _model(setup: Setup, size: int = 2048, parallel: int = 8, **more: Any) -> dict[str, Any]:
    context = {"size": size, "threads": setup.threads}
    return {"from": str(setup.model), "context": context, "limits": {"parallel": parallel}, **more}


@contextmanager
def both(setup: Setup, size: int = 2048, parallel: int = 8, **more: Any) -> Iterator[tuple[Server, Server]]:
    with (
        mullama({"bench": _model(setup, size, parallel, **more)}) as ours,
        llama_server(setup.peer, setup.model, threads=setup.threads, size=size, parallel=parallel) as theirs,
    ):
        yield ours, theirs


def alternating(
    setup: Setup, sides: tuple[Server, Server], measure: Callable[[Server, int], float]
) -> tuple[Pairs, Pairs]:
    """Measure ours and theirs in turn while the other one idles; each round begins with the other side.

    Return (ours, theirs) of each round, and the same of CPU time.
    """
    pairs, spent = [], []
    for number in range(setup.rounds):
        found, cpu = [0.0, 0.0], [0.0, 0.0]
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            before = sides[side].cpu()
            found[side] = measure(sides[side], number)
            cpu[side] = sides[side].cpu() - before
        pairs.append((found[0], found[1]))
        spent.append((cpu[0], cpu[1]))
    return pairs, spent


def load_speed(clients: int) -> Callable[[Server, int], float]:
    """Return a measurement of the tokens per second of so many clients, each with its own prompt of 64 tokens."""
    return lambda server, number: (
        server.load(
            clients=clients, api="completions", prompt_len=64, gen_len=64, seed=number + 100 * clients, warmup=1
        ).tokens_per_second
    )


def plain(setup: Setup) -> Iterator[Row]:
    """One client, and eight with distinct prompts."""
    with both(setup) as sides:
        yield paired("1 client, 64 in, 64 out", 0.98, "tokens/s", *alternating(setup, sides, load_speed(1)))
        yield paired("8 clients, distinct prompts", 1.0, "tokens/s", *alternating(setup, sides, load_speed(8)))


def declared(setup: Setup) -> Iterator[Row]:
    """A declared system prompt of 1,000 tokens, directly after the start and later."""
    firsts: Pairs = []
    speeds: Pairs = []
    waits: Pairs = []
    spent: Pairs = []
    for number in range(setup.rounds):
        with both(setup, system=words(1000, -1)) as sides:
            firsts.append((_first(_short_chats(sides, 0, number)), _first(_short_chats(sides, 1, number))))
            for again in range(1, 4):
                before = sides[0].cpu(), sides[1].cpu()
                ours, theirs = (_short_chats(sides, side, number + 100 * again) for side in (0, 1))
                spent.append((sides[0].cpu() - before[0], sides[1].cpu() - before[1]))
                speeds.append((ours.tokens_per_second, theirs.tokens_per_second))
                waits.append((_first(ours), _first(theirs)))
    begin = "declared 1,000-token system prompt, 8 clients"
    yield paired(f"{begin}, first requests: time to first token", 10.0, "s", firsts, less=True)
    yield paired(f"{begin}, later: throughput", 1.0, "tokens/s", speeds, spent)
    yield paired(f"{begin}, later: time to first token", 1.0, "s", waits, less=True)


def declared_first(setup: Setup, label: str, goal: float) -> Row:
    """The first requests after the start over a declared system prompt of 1,000 tokens."""
    firsts: Pairs = []
    for number in range(setup.rounds):
        with both(setup, system=words(1000, -1)) as sides:
            firsts.append((_first(_short_chats(sides, 0, number)), _first(_short_chats(sides, 1, number))))
    work = f"{label}, declared 1,000-token system prompt, 8 clients, first requests: time to first token"
    return paired(work, goal, "s", firsts, less=True)


def _short_chats(sides: tuple[Server, Server], side: int, seed: int) -> Measured:
    """Run eight short conversations; only the peer needs the system prompt in each request."""
    return sides[side].load(clients=8, prompt_len=32, gen_len=16, seed=seed, shared_len=1000 if side else 0)


def _first(measured: Measured) -> float:
    return quantile(measured.firsts, 0.5)


def neighbours(setup: Setup) -> Iterator[Row]:
    """Two models with four clients each, at the same time. Each model has its own process on both sides."""
    load = {"clients": 4, "api": "completions", "prompt_len": 64, "gen_len": 48, "warmup": 0}
    pairs, alone = [], []
    for number in range(setup.rounds):
        # The models differ in `mmap`, so they do not share one process.
        second = _model(setup, parallel=4, memory={"mmap": False})
        with mullama({"a": _model(setup, parallel=4), "b": second}) as server:
            ours = asyncio.run(_total_speed((server, "a"), (server, "b"), number, load))
        with ExitStack() as stack:
            theirs_at = [
                stack.enter_context(
                    llama_server(setup.peer, setup.model, threads=setup.threads, size=2048, parallel=4, name=name)
                )
                for name in ("a", "b")
            ]
            theirs = asyncio.run(_total_speed((theirs_at[0], "a"), (theirs_at[1], "b"), number, load))
        with mullama({"bench": _model(setup)}) as server:
            one = server.load(**{**load, "clients": 8, "seed": number}).tokens_per_second
        pairs.append((ours, theirs))
        alone.append((ours, one))
    yield paired("2 models, 4 clients each, against 2 llama-servers", 1.5, "tokens/s", pairs)
    yield paired("the same, against one model of ours with 8 clients", 0.9, "tokens/s", alone)


async def _total_speed(a: tuple[Server, str], b: tuple[Server, str], seed: int, load: dict[str, Any]) -> float:
    loads = [
        server.load_async(**{**load, "model": name, "seed": seed * 10 + n}) for n, (server, name) in enumerate((a, b))
    ]
    return sum(measured.tokens_per_second for measured in await asyncio.gather(*loads))


def formats(setup: Setup) -> Iterator[Row]:
    """A record under a schema, counted in characters, because the sides may count tokens differently."""

    def speed(clients: int) -> Callable[[Server, int], float]:
        def measure(server: Server, number: int) -> float:
            found = server.load(
                clients=clients, requests=3, prompt_len=64, gen_len=200, schema=RECORD, seed=number + 10 * clients,
                warmup=1,
            )  # fmt: skip
            return sum(len(sample.text) for sample in found.samples) / found.seconds

        return measure

    with both(setup) as sides:
        for clients in (1, 4):
            work = f"record under a schema, {clients} client{'s' if clients > 1 else ''}"
            yield paired(work, 2.0, "characters/s", *alternating(setup, sides, speed(clients)))


def interrupted(setup: Setup) -> Iterator[Row]:
    """The longest gaps of a stream while a prompt of 4,000 tokens arrives."""

    async def gap(server: Server, number: int) -> float:
        stream = asyncio.create_task(
            server.load_async(api="completions", prompt_len=32, gen_len=160, seed=number, clients=1)
        )
        await asyncio.sleep(0.3)  # early in the stream, which must not end before the long prompt arrives
        await server.load_async(api="completions", prompt_len=4000, gen_len=1, seed=number + 20)
        return quantile((await stream).gaps, 0.99)

    with both(setup, size=8192, parallel=2) as sides:
        pairs, _ = alternating(setup, sides, lambda server, number: asyncio.run(gap(server, number)))
    yield paired("one stream while a 4,000-token prompt arrives: p99 gap", 1.0, "s", pairs, less=True)


ROWS = {
    "plain": plain,
    "declared": declared,
    "neighbours": neighbours,
    "formats": formats,
    "interrupted": interrupted,
}
