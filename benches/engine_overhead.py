"""Measures the share of an engine's time outside `llama_decode`: the overhead of Python.

    python -m benches.engine_overhead MODEL.gguf [--clients 8] [--tokens 64] [--threads N]

Prints, for several kinds of requests, tokens per second and the share of the engine thread's CPU time outside the
native decode. CPU time does not depend on other processes of the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from mullama.chat.types import DEFAULT_SAMPLING, Constraint, Sampling
from mullama.engines import find_engine
from mullama.engines.base import ContextOptions, Generate, Piece, WeightsOptions
from mullama.engines.llamacpp.engine import LlamaEngine

KINDS: dict[str, dict[str, object]] = {
    "greedy": {"sampling": Sampling(temperature=0.0).over(DEFAULT_SAMPLING)},
    "default sampling": {"sampling": DEFAULT_SAMPLING},
    "repeat penalty": {"sampling": Sampling(repeat_penalty=1.1).over(DEFAULT_SAMPLING)},
    "no top_k": {"sampling": Sampling(top_k=0).over(DEFAULT_SAMPLING)},
    "logprobs 5": {"sampling": DEFAULT_SAMPLING, "logprobs": 5},
    "stop strings": {"sampling": DEFAULT_SAMPLING, "stop": ("\n\nUser:", "<|end|>", "###")},
    "grammar": {"sampling": DEFAULT_SAMPLING, "constraint": Constraint(grammar="start: /[a-z ]+/")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    engine = find_engine("llamacpp")((arguments.model,), WeightsOptions(), lambda _share: True)
    assert isinstance(engine, LlamaEngine)
    options = ContextOptions(size=1024, parallel=arguments.clients, threads=arguments.threads)
    engine.open_context("main", options)
    inside = clock_decodes(engine)
    for name, kind in KINDS.items():
        _run(engine, kind, 2, arguments.tokens)  # compile grammars, fill caches
        inside[0] = 0.0
        wall, cpu = time.perf_counter(), time.thread_time()
        tokens = _run(engine, kind, arguments.clients, arguments.tokens)
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        outside = cpu - inside[0]
        print(
            f"{name:18} {tokens / wall:8.1f} tokens/s   outside decode {outside / cpu:6.2%}"
            f"   {outside / tokens * 1e6:7.1f} us/token"
        )


def clock_decodes(engine: LlamaEngine) -> list[float]:
    """Return a list with one number: the CPU time of all native decodes from now on."""
    inside = [0.0]
    native = engine._contexts["main"].native
    decode: Callable[..., int] = native.decode

    def clocked(batch: object) -> int:
        started = time.thread_time()
        status = decode(batch)
        inside[0] += time.thread_time() - started
        return status

    native.decode = clocked  # type: ignore[method-assign]
    return inside


def _run(engine: LlamaEngine, kind: dict[str, object], clients: int, tokens: int) -> int:
    for client in range(clients):
        prompt = tuple((client * 7919 + i * 31) % 3000 + 100 for i in range(64))
        engine.submit(
            Generate(id=client, context="main", prompt=prompt, max_tokens=tokens, ignore_eos=True, cache=False, **kind)  # type: ignore[arg-type]
        )
    count = 0
    while engine.busy:
        count += sum(output.count for output in engine.step() if isinstance(output, Piece))
    return count


if __name__ == "__main__":
    main()
