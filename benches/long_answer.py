"""Measures the CPU time outside `llama_decode` early and late in a long answer: does a late token cost more?

    python -m benches.long_answer MODEL.gguf [--threads N]

Each kind of request is measured twice: with decodes, and without them after the first token, whose logits are used
again. A late decode reads more memory than an early one, so the code after it finds less of its own data in the CPU
caches. Without decodes the difference shows only additional work.
"""

from __future__ import annotations

import argparse
import time

from benches.engine_overhead import clock_decodes
from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.engines import find_engine
from mullama.engines.base import ContextOptions, Generate, Piece, WeightsOptions
from mullama.engines.llamacpp.binding.context import DECODED
from mullama.engines.llamacpp.engine import LlamaEngine

_EARLY, _LATE = range(500, 1500), range(7500, 8500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    for name, sampling in (("greedy", Sampling(temperature=0.0)), ("penalties", Sampling(repeat_penalty=1.1))):
        for how, decoding in (("", True), (" without decodes", False)):
            early, late = outside(options.model, sampling.over(DEFAULT_SAMPLING), options.threads, decoding=decoding)
            spent = f"{early * 1e6:.1f} us per token early, {late * 1e6:.1f} us late"
            print(f"{name}{how}: {spent}, ratio {late / early:.2f}", flush=True)


def outside(model: str, sampling: Sampling, threads: int, *, decoding: bool) -> tuple[float, float]:
    """Return CPU seconds per token outside the decode, early and late in one answer."""
    engine = find_engine("llamacpp")((model,), WeightsOptions(), lambda _share: True)
    assert isinstance(engine, LlamaEngine)
    engine.open_context("main", ContextOptions(size=_LATE.stop + 64, threads=threads))
    inside = clock_decodes(engine)
    engine.submit(
        Generate(
            id=1, context="main", prompt=(100, 101, 102), sampling=sampling, max_tokens=_LATE.stop, ignore_eos=True
        )
    )
    spent, count = {_EARLY: 0.0, _LATE: 0.0}, 0
    while engine.busy:
        before, decoded = time.thread_time(), inside[0]
        made = sum(output.count for output in engine.step() if isinstance(output, Piece))
        for part in spent:
            if count in part:
                spent[part] += time.thread_time() - before - (inside[0] - decoded)
        count += made
        if count and not decoding:
            engine._contexts["main"].native.decode = lambda _batch: DECODED  # type: ignore[method-assign]
    engine.close()
    return spent[_EARLY] / len(_EARLY), spent[_LATE] / len(_LATE)


if __name__ == "__main__":
    main()
