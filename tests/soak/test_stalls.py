"""The longest time that /livez waits while a legal request with a large body or a large answer is served."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import stack_in

pytestmark = pytest.mark.soak

LONGEST = 0.2  # seconds, on a machine without other work
IDS = list(range(300, 1000)) * 1430
TEXT = "Hello there, it is a fine day to count words. " * 140_000
USER = [{"role": "user", "content": "hi"}]
# Made when they are sent: together they take a second and 100 MB.
REQUESTS: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
    "prompt of ids": lambda: ("/completion", {"model": "tiny", "prompt": IDS, "n_predict": 2}),
    "prompt of text": lambda: ("/completion", {"model": "tiny", "prompt": TEXT, "n_predict": 2}),
    "context of ids": lambda: ("/api/generate", {"model": "tiny", "prompt": "x", "context": IDS}),
    "embeddings": lambda: ("/v1/embeddings", {"model": "emb", "input": [f"a {i}" for i in range(2048)]}),
    "embeddings cut": lambda: ("/v1/embeddings", {"model": "emb", "dimensions": 300, "input": ["a"] * 2048}),
    "embed": lambda: ("/api/embed", {"model": "emb", "input": ["a b"] * 2048}),
    "detokenize": lambda: ("/detokenize", {"model": "tiny", "tokens": IDS}),
    "tokenize": lambda: ("/tokenize", {"model": "tiny", "content": TEXT}),
    "tokenize with pieces": lambda: ("/tokenize", {"model": "tiny", "content": TEXT[: 2**20], "with_pieces": True}),
    "unknown keys": lambda: (
        "/v1/chat/completions",
        {"model": "tiny", "max_tokens": 2, "messages": USER, **{f"k{i}": i for i in range(130_000)}},
    ),
    "too many keys": lambda: ("/v1/chat/completions", {"model": "tiny", **{f"k{i}": i for i in range(400_000)}}),
    "image": lambda: (
        "/api/chat",
        {"model": "tiny", "messages": [{**USER[0], "images": [base64.b64encode(b"\x89PNG" * 2**20).decode()]}]},
    ),
    "logprobs": lambda: (
        "/v1/chat/completions",
        {"model": "tiny", "max_tokens": 800, "n": 4, "logprobs": True, "top_logprobs": 20, "messages": USER},
    ),
    "tools": lambda: ("/v1/chat/completions", {"model": "tiny", "messages": USER, "tools": [{}] * 100_000}),
    "messages": lambda: ("/v1/chat/completions", {"model": "tiny", "messages": USER * 60_000}),
    "logit_bias": lambda: (
        "/completion",
        {"model": "tiny", "prompt": "x", "logit_bias": [[i, 1] for i in range(120_000)]},
    ),
    "stop": lambda: ("/completion", {"model": "tiny", "prompt": "x", "stop": ["s"] * 500_000}),
    "rerank": lambda: ("/rerank", {"model": "emb", "query": "q" * 10**6, "documents": ["d"] * 2048}),
}


report = sys.stdout.write


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stack_in(Path(tmp_path_factory.mktemp("stalls")), forks=False) as stack:
        stack.write({"tiny": {"from": "builtin:tiny"}, "emb": {"from": "builtin:tiny", "task": "embedding"}})
        stack.serve()
        yield stack.ready()


@pytest.mark.parametrize("name", REQUESTS)
def test_liveness_is_answered_while_a_large_request_is_served(name: str, url: str) -> None:
    path, body = REQUESTS[name]()
    content = json.dumps(body)
    done, waits = threading.Event(), []

    def probe() -> None:
        with httpx.Client() as client:
            while not done.is_set():
                began = time.monotonic()
                assert client.get(f"{url}/livez", timeout=60).status_code == 200
                waits.append(time.monotonic() - began)
                done.wait(0.005)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        answer = httpx.post(f"{url}{path}", content=content, headers={"content-type": "application/json"}, timeout=300)
    finally:
        done.set()
        prober.join()
    report(f"{name}: {answer.status_code}, {len(answer.content)} bytes, longest wait {max(waits) * 1000:.0f} ms\n")
    assert answer.status_code in (200, 400, 413)
    assert max(waits) < LONGEST
