"""Measures guesses on an edit and in prose, paired with the same answers without them.

    python -m benches.speculation MODEL.gguf [--draft ngram|mtp|DRAFT.gguf] [--tokens N] [--threads N] [--rounds N]

The edit repeats a file of 300 lines with five changes. Its tokens are imposed, whatever the model would choose, so that
a small model edits as a large one does. Prose is what the model writes. Each round runs with guesses and without, in
alternating order. The medians of tokens per second and per processor second are printed, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.engines import find_engine
from mullama.engines.base import ContextOptions, DraftOptions, Ended, Generate, Piece, WeightsOptions
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.engine import LlamaEngine

LINES, CHANGES = 300, 5
PROSE = "The history of the harbour begins with a small village. In those days the fishermen"
_CONTEXT = 12288


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
    parser.add_argument("--tokens", type=int, default=1000, help="of each answer")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    weights = WeightsOptions(drafting=options.draft == "mtp")
    engine = find_engine("llamacpp")((options.model,), weights, lambda _share: True)
    assert isinstance(engine, LlamaEngine)
    size = min(engine.facts.train_context, _CONTEXT)
    for name, draft in (("without", None), ("with", _draft(options.draft))):
        engine.open_context(name, ContextOptions(size=size, threads=options.threads, draft=draft))
    before, after = edited_file()
    prompt = engine.tokenize(f"{before}\n\nThe file after the edit:\n\n", add_special=True, parse_special=False)
    answer = engine.tokenize(after, add_special=False, parse_special=False)
    if len(prompt) + min(len(answer), options.tokens) >= size:
        parser.error(f"the edit needs more than the {size} tokens of this model's context")
    prose = engine.tokenize(PROSE, add_special=True, parse_special=False)
    print(f"{options.model}, guesses by {options.draft}")
    for work, given, imposed in (("edit", prompt, answer[: options.tokens]), ("prose", prose, ())):
        runs: dict[str, list[Run]] = {"without": [], "with": []}
        for turn in range(options.rounds):
            for name in sorted(runs, reverse=bool(turn % 2)):
                runs[name].append(run(engine, name, given, imposed, min(options.tokens, size - len(given) - 1)))
        _print(work, runs["without"], runs["with"])
    engine.close()


def _draft(kind: str) -> DraftOptions:
    match kind:
        case "ngram":
            return DraftOptions(kind="ngram")
        case "mtp":
            return DraftOptions(kind="mtp", tokens=3)
        case file:
            return DraftOptions(kind="model", files=(file,), tokens=16)


def edited_file() -> tuple[str, str]:
    """Return a file of `LINES` lines, and the same with `CHANGES` changed ones."""
    lines = [f"    total += weights[{i * 37 % 101}] * value_{i * 7 % 13}  # step {i}" for i in range(LINES)]
    changed = list(lines)
    for change in range(CHANGES):
        at = LINES * (2 * change + 1) // (2 * CHANGES)
        changed[at] = f"    total = max(total, bounds.lower({change}))\n    log.debug('step %d of the sum', {change})"
    return "\n".join(lines), "\n".join(changed)


def run(engine: LlamaEngine, context: str, prompt: Sequence[int], imposed: Sequence[int], tokens: int) -> Run:
    """Return the speed of one answer from its first piece on. imposed: its tokens; empty for the model's own."""
    choose = RunningCompletion._choose
    if imposed:
        RunningCompletion._choose = (  # type: ignore[method-assign]
            lambda self, _row: imposed[min(len(self.tokens) - len(self.prompt), len(imposed) - 1)]
        )
    engine.submit(
        Generate(
            id=1, context=context, prompt=tuple(prompt), sampling=Sampling(temperature=0.0).over(DEFAULT_SAMPLING),
            max_tokens=len(imposed) or tokens, ignore_eos=True,
        )
    )  # fmt: skip
    first, count, ended = (0.0, 0.0), 0, None
    try:
        while engine.busy:
            for output in engine.step():
                count += output.count if isinstance(output, Piece) else 0
                ended = output if isinstance(output, Ended) else ended
            if count and first == (0.0, 0.0):
                first, counted = (time.perf_counter(), time.process_time()), count
    finally:
        RunningCompletion._choose = choose  # type: ignore[method-assign]
    assert ended is not None
    made = count - counted
    return Run(speed=made / (time.perf_counter() - first[0]), cpu=made / (time.process_time() - first[1]), ended=ended)


def _print(work: str, without: Sequence[Run], with_guesses: Sequence[Run]) -> None:
    for kind in ("speed", "cpu"):
        one, other = (statistics.median(getattr(r, kind) for r in runs) for runs in (without, with_guesses))
        unit = "tokens/s" if kind == "speed" else "tokens per processor second"
        print(f"{work}: {one:.1f} {unit} without, {other:.1f} with, ratio {other / one:.2f}")
    ended = with_guesses[-1].ended
    positions = ", ".join(str(count) for count in ended.draft_accepted_at[:16])
    print(
        f"{work}: {ended.draft_accepted} of {ended.draft_tokens} guesses accepted; by position {positions}", flush=True
    )


if __name__ == "__main__":
    main()
