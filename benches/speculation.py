"""Measures guesses on an edit and in prose, paired with the same answers without them.

    python -m benches.speculation MODEL.gguf [--draft ngram|mtp|DRAFT.gguf] [--lines N] [--tokens N] [--threads N]
        [--rounds N]

The edit repeats a file with a change in every 60 lines: 300 lines with five changes, unless `--lines` says otherwise.
Its tokens are imposed, whatever the model would choose, so that a small model edits as a large one does. Prose is what
the model writes at temperature 0.8. Both kinds of answer run in one context, which computes each prompt once. Each
round runs with guesses and without, in alternating order. The medians of tokens per second and per processor second
are printed, and the median of the paired ratios. Threads that wait for each other count as processor time, so compare
it with `--threads 1`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mullama.chat.types import DEFAULT_SAMPLING, DraftLimits, Sampling
from mullama.engines import find_engine
from mullama.engines.base import ContextOptions, DraftOptions, Ended, Generate, Piece, WeightsOptions
from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.context import TextContext
from mullama.engines.llamacpp.engine import LlamaEngine

_LINES_PER_CHANGE = 60
PROSE = "The history of the harbour begins with a small village. In those days the fishermen"
_CERTAIN = 1e4  # logit of a token that is imposed
_ROOM = 64  # tokens of the context that are left free


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One answer: tokens per second, tokens per processor second, and what was guessed."""

    speed: float
    cpu: float
    ended: Ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--draft", default="ngram")
    parser.add_argument("--lines", type=int, default=300, help="of the file")
    parser.add_argument("--tokens", type=int, default=600, help="of each answer")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    weights = WeightsOptions(drafting=options.draft == "mtp")
    engine = find_engine("llamacpp")((options.model,), weights, lambda _share: True)
    assert isinstance(engine, LlamaEngine)
    before, after = edited_file(options.lines)
    prompt = engine.tokenize(f"{before}\n\nThe file after the edit:\n\n", add_special=True, parse_special=False)
    answer = engine.tokenize(after, add_special=False, parse_special=False)[: options.tokens]
    size = len(prompt) + options.tokens + _ROOM
    if size > engine.facts.train_context:
        parser.error(f"the edit needs {size} tokens, this model's context has {engine.facts.train_context}: --lines")
    engine.open_context("main", ContextOptions(size=size, threads=options.threads, draft=_draft(options.draft)))
    prose = engine.tokenize(PROSE, add_special=True, parse_special=False)
    print(
        f"{options.model}, guesses by {options.draft}; the edit: {len(prompt)} tokens, then {len(answer)}", flush=True
    )
    for work, given, imposed in (("edit", prompt, answer), ("prose", prose, ())):
        run(engine, given, imposed, 1, seed=0, guesses=False)  # computes the prompt
        runs: dict[bool, list[Run]] = {False: [], True: []}
        for turn in range(options.rounds):
            for guesses in (False, True) if turn % 2 else (True, False):
                runs[guesses].append(run(engine, given, imposed, options.tokens, seed=turn, guesses=guesses))
                print(f"  {work} {'with' if guesses else 'without'}: {_in_words(runs[guesses][-1])}", flush=True)
        _print(work, runs[False], runs[True])
    engine.close()


def _draft(kind: str) -> DraftOptions:
    match kind:
        case "ngram":
            return DraftOptions(kind="ngram")
        case "mtp":
            return DraftOptions(kind="mtp", tokens=3)
        case file:
            return DraftOptions(kind="model", files=(file,), tokens=16)


def edited_file(lines: int) -> tuple[str, str]:
    """Return a file of so many lines, and the same with a change in the middle of every `_LINES_PER_CHANGE`."""
    before = [f"    total += w[{i * 37 % 101}] * x{i * 7 % 13}" for i in range(lines)]
    after = list(before)
    for change, at in enumerate(range(_LINES_PER_CHANGE // 2, lines, _LINES_PER_CHANGE)):
        after[at] = f"    total = max(total, bounds.lower({change}))\n    log.debug('step %d of the sum', {change})"
    return "\n".join(before), "\n".join(after)


def run(
    engine: LlamaEngine, prompt: Sequence[int], imposed: Sequence[int], tokens: int, *, seed: int, guesses: bool
) -> Run:
    """Return the speed of one answer from its first piece on. imposed: its tokens; empty for the model's own."""
    engine.submit(
        Generate(
            id=1, context="main", prompt=tuple(prompt),
            sampling=Sampling(temperature=0.8, seed=seed).over(DEFAULT_SAMPLING),
            max_tokens=min(tokens, len(imposed) or tokens), ignore_eos=True,
            draft=DraftLimits() if guesses else DraftLimits(most=0),
        )
    )  # fmt: skip
    first, counted, count, ended = (0.0, 0.0), 0, 0, None
    with _imposed(engine._contexts["main"], imposed):
        while engine.busy:
            for output in engine.step():
                count += output.count if isinstance(output, Piece) else 0
                ended = output if isinstance(output, Ended) else ended
            if count and not counted:
                first, counted = (time.perf_counter(), time.process_time()), count
    assert ended is not None
    made = count - counted
    return Run(speed=made / (time.perf_counter() - first[0]), cpu=made / (time.process_time() - first[1]), ended=ended)


@contextmanager
def _imposed(context: TextContext, tokens: Sequence[int]) -> Iterator[None]:
    """Make these the likeliest tokens of the one request that runs."""
    native = context.native
    computed = native.logits

    def logits(rows: int) -> Floats:
        found = computed(rows)
        (running,) = context._running.values()
        at = len(running.tokens) - len(running.prompt)
        for row in range(rows):
            found[row, tokens[min(at + row, len(tokens) - 1)]] = _CERTAIN
        return found

    if tokens:
        native.logits = logits  # type: ignore[method-assign]
    try:
        yield
    finally:
        native.logits = computed  # type: ignore[method-assign]


def _in_words(one: Run) -> str:
    ended = one.ended
    return (
        f"{one.speed:.1f} tokens/s, {one.cpu:.1f} per processor second; "
        f"{ended.draft_accepted} of {ended.draft_tokens} guesses accepted in {ended.drafts} drafts"
    )


def _print(work: str, without: Sequence[Run], with_guesses: Sequence[Run]) -> None:
    for kind, unit in (("speed", "tokens/s"), ("cpu", "tokens per processor second")):
        pairs = [(getattr(a, kind), getattr(b, kind)) for a, b in zip(without, with_guesses, strict=True)]
        one, other = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{work}: {one:.1f} {unit} without, {other:.1f} with, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
