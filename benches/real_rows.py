"""The rows of real models and of architectures that differ from a plain transformer; `make real` fetches the models."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from benches.real_models import GEMMA3, MINILM, QUANTISED_HYBRID, SMOLLM2, folder
from benches.rows import Row, Setup, alternating, both, declared_first, load_speed, paired
from benches.servers import Server, llama_server, mullama
from mullama.cli.inference.load_test import words

BUILTIN = Path(__file__).parents[1] / "mullama" / "sources" / "builtin_models" / "tiny.gguf"
TURNS, TURN, ANSWER = 12, 400, 32  # turns of a conversation, words of a question, tokens of an answer
INPUTS, INPUT_TOKENS = 2000, 64


def _real(name: str) -> Path:
    path = folder() / name
    if not path.exists():
        raise SystemExit(f"{path} is missing: make real fetches it")
    return path


def _plain(setup: Setup, label: str, clients: dict[int, float]) -> Iterator[Row]:
    """Yield a row for each number of clients; the values are goals."""
    most = max(clients)
    with both(setup, size=512 if most > 8 else 2048, parallel=most) as sides:
        for count, goal in clients.items():
            pairs, spent = alternating(setup, sides, load_speed(count))
            work = f"{label}, {count} client{'s' if count > 1 else ''}, 64 in, 64 out"
            yield paired(work, goal, "tokens/s", pairs, spent)


def smollm2(setup: Setup) -> Iterator[Row]:
    yield from _plain(replace(setup, model=_real(SMOLLM2.name)), "SmolLM2 135M", {1: 1.0, 8: 1.1})


def gemma3(setup: Setup) -> Iterator[Row]:
    yield from _plain(replace(setup, model=_real(GEMMA3.name)), "Gemma 3 270M", {1: 1.0, 8: 1.1})


def builtin(setup: Setup) -> Iterator[Row]:
    """A decode of this model costs under 1 ms, so the row shows the work around it."""
    yield from _plain(replace(setup, model=BUILTIN), "built-in model", {1: 1.0, 8: 1.2, 64: 1.2})


def pool_smollm2(setup: Setup) -> Iterator[Row]:
    yield from _pool(replace(setup, model=_real(SMOLLM2.name)), "SmolLM2 135M")


def pool_gemma3(setup: Setup) -> Iterator[Row]:
    yield from _pool(replace(setup, model=_real(GEMMA3.name)), "Gemma 3 270M")


def _pool(setup: Setup, label: str) -> Iterator[Row]:
    """Four requests of 1,000 tokens at once, of 8,192 that each may have: `context.pool: auto` against `worst_case`."""

    def measure(server: Server, number: int) -> float:
        load = server.load(clients=4, requests=2, api="completions", prompt_len=900, gen_len=100, seed=number, warmup=1)
        return load.tokens_per_second

    def tree(pool: str) -> dict[str, dict[str, object]]:
        context = {"size": 8192, "threads": setup.threads, "pool": pool}
        return {"bench": {"from": str(setup.model), "context": context, "limits": {"parallel": 4}}}

    with mullama(tree("auto")) as ours, mullama(tree("worst_case")) as worst:
        pairs, spent = alternating(setup, (ours, worst), measure)
        resident = [(float(ours.resident()), float(worst.resident()))]
    work = f"{label}, 4 x 8,192 declared, requests of 1,000 tokens, pool: auto against worst_case"
    yield paired(work, 0.98, "tokens/s", pairs, spent)
    yield paired(f"{work}: resident memory", 2.0, "B", resident, less=True)


def declared_gemma3(setup: Setup) -> Iterator[Row]:
    yield declared_first(replace(setup, model=_real(GEMMA3.name)), "Gemma 3 270M", 8.0)


def turns_gemma3(setup: Setup) -> Iterator[Row]:
    yield _conversation(replace(setup, model=_real(GEMMA3.name)), "Gemma 3 270M")


def turns_hybrid(setup: Setup) -> Iterator[Row]:
    yield _conversation(replace(setup, model=_real(QUANTISED_HYBRID)), "Qwen 3.5 shape")


def turns_smollm2(setup: Setup) -> Iterator[Row]:
    yield _conversation(replace(setup, model=_real(SMOLLM2.name)), "SmolLM2 135M")


def _conversation(setup: Setup, label: str) -> Row:
    """The wait for the last turn of a conversation whose history loses the first half of each answer."""
    with both(setup, size=8192, parallel=2) as sides:
        pairs, spent = alternating(setup, sides, _last_turn)
    work = f"{label}, {TURNS} turns of {TURN} tokens, reasoning stripped: time to first token of turn {TURNS}"
    return paired(work, 1.0, "s", pairs, spent, less=True)


def _last_turn(server: Server, number: int) -> float:
    history, first = "", 0.0
    for turn in range(TURNS):
        history += f"\nuser: {words(TURN, number * 1000 + turn)}\nassistant: "
        first, answer = _streamed(server, history)
        history += answer[len(answer) // 2 :]
    return first


def _streamed(server: Server, prompt: str) -> tuple[float, str]:
    """Return the seconds to the first piece of an answer, and its text."""
    body = {"model": "bench", "prompt": prompt, "max_tokens": ANSWER, "temperature": 0, "stream": True}
    connection = _connection(server)
    begun, first, text = time.monotonic(), 0.0, ""
    connection.request("POST", "/v1/completions", json.dumps({**body, "ignore_eos": True}), _JSON)
    for line in connection.getresponse():
        if not line.startswith(b"data: {"):
            continue
        choices = json.loads(line[6:])["choices"]
        text += "".join(choice["text"] for choice in choices)
        if text and not first:
            first = time.monotonic() - begun
    connection.close()
    if not first:
        raise SystemExit(f"{server.url} answered without text")
    return first, text


def embeddings(setup: Setup) -> Iterator[Row]:
    """Vectors of short texts, one text and a hundred in each request."""
    model = _real(MINILM)
    own = {"from": str(model), "task": "embedding", "context": {"threads": setup.threads}, "limits": {"parallel": 8}}
    with (
        mullama({"bench": own}) as ours,
        llama_server(
            setup.peer, model, threads=setup.threads, size=512, parallel=8, extra=("--embedding", "-b", "4096")
        ) as theirs,
    ):
        for clients, inputs in ((8, 1), (2, 100)):
            pairs, spent = alternating(setup, (ours, theirs), _vectors_a_second(clients, inputs))
            work = f"{INPUTS:,} embeddings of {INPUT_TOKENS} tokens, MiniLM, {clients} clients, {inputs} in a request"
            yield paired(work, 1.2, "inputs/s", pairs, spent)


def _vectors_a_second(clients: int, inputs: int) -> Callable[[Server, int], float]:
    def measure(server: Server, number: int) -> float:
        texts = [words(INPUT_TOKENS - 2, number * INPUTS + i) for i in range(INPUTS)]  # two tokens mark the ends
        bodies = [
            json.dumps({"model": "bench", "input": texts[i : i + inputs]}).encode() for i in range(0, INPUTS, inputs)
        ]
        begun = time.monotonic()
        with ThreadPoolExecutor(clients) as threads:
            found = sum(threads.map(lambda first: _embedded(server, bodies[first::clients]), range(clients)))
        if found != len(bodies):
            raise SystemExit(f"{server.url} answered {found} of {len(bodies)} requests")
        return INPUTS / (time.monotonic() - begun)

    return measure


def _embedded(server: Server, bodies: list[bytes]) -> int:
    """Send the requests over one connection; return how many had vectors. The answers are not parsed."""
    connection, good = _connection(server), 0
    for body in bodies:
        connection.request("POST", "/v1/embeddings", body, _JSON)
        answer = connection.getresponse()
        good += b'"embedding"' in answer.read() and answer.status == 200
    connection.close()
    return good


_JSON = {"Content-Type": "application/json"}


def _connection(server: Server) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)


REAL_ROWS = {
    "smollm2": smollm2,
    "gemma3": gemma3,
    "builtin": builtin,
    "pool_smollm2": pool_smollm2,
    "pool_gemma3": pool_gemma3,
    "declared_gemma3": declared_gemma3,
    "turns_smollm2": turns_smollm2,
    "turns_gemma3": turns_gemma3,
    "turns_hybrid": turns_hybrid,
    "embeddings": embeddings,
}
