"""Measures how a conversation continues after its context was closed and opened again.

    python -m benches.swap MODEL.gguf [--tokens N] [--keep ram|disk] [--threads N] [--rounds N]

Each round computes a prompt, closes the context, opens it again and asks for the same prompt. The close includes
writing the state. The medians of wall seconds and processor seconds are printed, and the share of the computation that
the swap and the next first token take.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

from mullama.chat.types import DEFAULT_SAMPLING
from mullama.engines import find_engine
from mullama.engines.base import ContextOptions, Ended, Engine, Generate, WeightsOptions
from mullama.folders import memory_folder
from mullama.struct import replace

_TOKENS = 4000
_BYTES = 4 * 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=_TOKENS, help="of the conversation")
    parser.add_argument("--keep", choices=("ram", "disk"), default="ram")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    engine = find_engine("llamacpp")((options.model,), WeightsOptions(), lambda _share: True)
    size = options.tokens + 64
    if size > engine.facts.train_context:
        parser.error(f"this model's context has {engine.facts.train_context} tokens: --tokens")
    memory = memory_folder("bench")
    if options.keep == "ram" and memory is None:
        parser.error("this machine has no file system in memory: --keep disk")
    with tempfile.TemporaryDirectory(dir=memory.parent if options.keep == "ram" and memory else None) as folder:
        context = ContextOptions(size=size, threads=options.threads, state_key="bench")
        if options.keep == "ram":
            context = replace(context, ram_dir=folder, ram_bytes=_BYTES)
        else:
            context = replace(context, state_dir=folder, keep_bytes=_BYTES)
        _measure(engine, context, options.tokens, options.rounds)
    engine.close()


def _measure(engine: Engine, context: ContextOptions, tokens: int, rounds: int) -> None:
    first = range(100, min(4000, engine.facts.vocabulary))
    computed: list[tuple[float, float]] = []
    swapped: list[tuple[float, float]] = []
    for number in range(rounds):
        prompt = tuple(first[(number + i * 7) % len(first)] for i in range(tokens))
        engine.open_context("main", context)
        computed.append(_timed(partial(_ask, engine, prompt, cached=0)))
        swapped.append(_timed(partial(_swap, engine, context, prompt)))
        engine.close_context("main")
        print(f"  computed in {_in_words(computed[-1])}; swapped in {_in_words(swapped[-1])}", flush=True)
    for at, name in enumerate(("seconds", "processor seconds")):
        one, other = (statistics.median(times[at] for times in kind) for kind in (computed, swapped))
        print(f"{name}: {one:.2f} to compute, {other:.2f} to swap away and back, {other / one:.3f} of it")


def _swap(engine: Engine, context: ContextOptions, prompt: tuple[int, ...]) -> None:
    engine.close_context("main")
    engine.open_context("main", context)
    _ask(engine, prompt, cached=len(prompt) - 1)


def _ask(engine: Engine, prompt: tuple[int, ...], *, cached: int) -> None:
    """Ask for one token; fail unless so many tokens of the prompt were in memory."""
    engine.submit(
        Generate(id=1, context="main", prompt=prompt, sampling=DEFAULT_SAMPLING, max_tokens=1, ignore_eos=True)
    )
    ended = None
    while engine.busy:
        ended = next((output for output in engine.step() if isinstance(output, Ended)), ended)
    assert ended is not None
    if ended.cached_tokens != cached:
        raise SystemExit(f"{ended.cached_tokens} tokens were in memory, not {cached}")


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    started = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def _in_words(times: tuple[float, float]) -> str:
    return f"{times[0]:.2f} s ({times[1]:.2f} of the processor)"


if __name__ == "__main__":
    main()
