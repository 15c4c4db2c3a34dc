"""Measures the share of an engine's time outside `llama_decode`: the overhead of Python.

    python -m benches.engine_overhead MODEL.gguf [--clients 8] [--tokens 64] [--threads N] [--without-decodes]

Prints, for several kinds of requests, over the steps in which every client gets a token: the processor time of the
engine's thread per token outside the native decode (median and least), the time to make the messages to the server of
these tokens, and the share of both in the step. Processor time does not depend on other processes of the machine,
except for their use of the caches. `--without-decodes` repeats the logits of the first step, so that the caches stay
warm: the work alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from mullama.chat.types import DEFAULT_SAMPLING, Constraint, Sampling
from mullama.engines import find_engine
from mullama.engines.base import ContextOptions, Generate, WeightsOptions
from mullama.engines.llamacpp.binding.context import DECODED
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.runtime.worker.protocol import pack_outputs

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--without-decodes", action="store_true")
    parser.add_argument("--kind", choices=KINDS, action="append")
    arguments = parser.parse_args()
    engine = find_engine("llamacpp")((arguments.model,), WeightsOptions(), lambda _share: True)
    assert isinstance(engine, LlamaEngine)
    options = ContextOptions(size=1024, parallel=arguments.clients, threads=arguments.threads)
    engine.open_context("main", options)
    native = engine._contexts["main"].native
    inside = clock_decodes(engine)
    clocked = native.decode
    for name in arguments.kind or KINDS:
        native.decode = clocked  # type: ignore[method-assign]
        submit(engine, KINDS[name], arguments.clients, arguments.tokens)
        steps: list[tuple[float, float, float]] = []
        while engine.busy:
            before = engine.stats().completion_tokens
            started, decoded = time.thread_time(), inside[0]
            outputs = engine.step()
            chosen, decoded = time.thread_time(), inside[0] - decoded
            pack_outputs(outputs)
            packed = time.thread_time()
            if engine.stats().completion_tokens - before == arguments.clients:
                steps.append((chosen - started - decoded, packed - chosen, decoded))
                if arguments.without_decodes:
                    native.decode = lambda _batch: DECODED  # type: ignore[method-assign]
        outside, packing, decoding = (median(column) / arguments.clients * 1e6 for column in zip(*steps, strict=True))
        least = min(outside for outside, _, _ in steps) / arguments.clients * 1e6
        share = (outside + packing) / (outside + packing + decoding)
        print(
            f"{name:18} {outside:7.1f} us/token (least {least:7.1f}) and {packing:5.1f} us for messages"
            f" outside a decode of {decoding:7.1f} us: {share:6.2%} of {len(steps)} steps",
            flush=True,
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


def submit(engine: LlamaEngine, kind: dict[str, object], clients: int, tokens: int) -> None:
    """Submit a request for each client, with distinct prompts of 64 tokens."""
    for client in range(clients):
        prompt = tuple((client * 7919 + i * 31) % 3000 + 20 for i in range(64))
        engine.submit(
            Generate(id=client, context="main", prompt=prompt, max_tokens=tokens, ignore_eos=True, cache=False, **kind)  # type: ignore[arg-type]
        )


if __name__ == "__main__":
    main()
