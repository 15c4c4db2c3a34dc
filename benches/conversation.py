"""Measures the time to the first token in each turn of a conversation whose last reasoning is stripped every turn.

    python -m benches.conversation LLAMA_SERVER MODEL.gguf [MODEL.gguf …] [--turns 12] [--tokens 400] [--rounds 3]

Both servers get the same prompts in turn, a conversation each, several times. A turn adds about `--tokens` tokens and
an answer, of which the first half is left out of the next prompt as clients leave out reasoning. Prints milliseconds
by turn, and the ratio of the last turn: below 1, mullama is faster.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benches.servers import llama_server, mullama

_ANSWER = 120  # tokens
_WORDS = 1.3  # tokens of one word, about
_SUBJECTS = (
    "harbour", "crane", "ledger", "salt", "winter", "captain", "rope", "timber", "price", "storm", "tide", "letter",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Medians of the seconds to the first token, by turn."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Ours to theirs in the last turn."""
        return self.ours[-1] / self.theirs[-1]


def measure(
    peer: Path, model: Path, *, turns: int = 12, tokens: int = 400, rounds: int = 3, threads: int = 2, size: int = 16384
) -> Turns:
    """Return both servers' times, measured alternately in `rounds` conversations each."""
    context = {"size": size, "threads": threads}
    models = {"bench": {"from": str(model), "context": context, "limits": {"parallel": 1}}}
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    with mullama(models) as ours, llama_server(peer, model, threads=threads, size=size, parallel=1) as theirs:
        for seed in range(rounds):
            for server, times in zip((ours, theirs), found, strict=True):
                times.append(_converse(server.url, turns, tokens, random.Random(seed)))
    ours_by_turn, theirs_by_turn = (tuple(map(statistics.median, zip(*times, strict=True))) for times in found)
    return Turns(ours=ours_by_turn, theirs=theirs_by_turn)


def _converse(url: str, turns: int, tokens: int, rng: random.Random) -> list[float]:
    prompt, times = f"Conversation {rng.random()}\n", []
    for _ in range(turns):
        words = rng.choices(_SUBJECTS, k=int(tokens / _WORDS))
        prompt += f"<|im_start|>user\n{' '.join(words)}<|im_end|>\n<|im_start|>assistant\n"
        first, text = _ask(url, prompt)
        times.append(first)
        prompt += f"{text[len(text) // 2 :]}<|im_end|>\n"
    return times


def _ask(url: str, prompt: str) -> tuple[float, str]:
    """Return the seconds to the first token of an answer, and its text."""
    body = {"model": "bench", "prompt": prompt, "n_predict": _ANSWER, "ignore_eos": True, "stream": True, "top_k": 1}
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    first, text, started = 0.0, "", time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                text += json.loads(line[6:])["content"]
                first = first or time.perf_counter() - started
    return first, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for model in arguments.models:
        found = measure(
            arguments.peer,
            model,
            turns=arguments.turns,
            tokens=arguments.tokens,
            rounds=arguments.rounds,
            threads=arguments.threads,
        )
        print(f"{model.name}: the last turn takes {found.ratio:.2f} of the peer's time")
        for name, times in (("mullama", found.ours), ("peer", found.theirs)):
            print(f"  {name:8}", *(f"{t * 1e3:6.0f}" for t in times))


if __name__ == "__main__":
    main()
