"""What a request and each token of its stream cost to translate, in every dialect; printed by `make bench`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import pytest

from mullama.chat.families import family_with
from mullama.chat.reader import read
from mullama.chat.types import Event, TextDelta, ThinkingDelta, TokenLogprob, ToolCallDelta, ToolCallStarted
from mullama.dialects.base import WireRequest
from mullama.server.http.strict_json import parse
from mullama.server.streams import to_bytes
from tests.dialects.wire import STARTED, WEATHER, endpoint, frames, stream

pytestmark = pytest.mark.bench

TOKENS = 2_000
ROUNDS = 7
MOST_PER_TOKEN = 300.0  # microseconds; a token of a small model takes some thousands
MOST_PER_REQUEST = 2_000.0
DEPTH = 64

TURNS = [{"role": ("user", "assistant")[i % 2], "content": "What is the weather like? " * 4} for i in range(9)]
FUNCTION = {"name": "weather", "description": "The weather of a city", "parameters": WEATHER}
TOOLS = [{"type": "function", "function": FUNCTION}]
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": TURNS, "tools": TOOLS},
    "/api/generate": {"prompt": "What is the weather like? " * 36},
    "/v1/chat/completions": {"messages": TURNS, "tools": TOOLS},
    "/v1/completions": {"prompt": "What is the weather like? " * 36},
    "/v1/responses": {"input": TURNS, "tools": [{"type": "function", **FUNCTION}]},
    "/v1/messages": {"messages": TURNS, "max_tokens": 99, "tools": [{"name": "weather", "input_schema": WEATHER}]},
    "/completion": {"prompt": "What is the weather like? " * 36},
}
LIKELY = tuple(TokenLogprob(id=i, text=" word", bytes=b" word", logprob=-1.5) for i in range(5))
TOKEN = TokenLogprob(id=7, text=" word", bytes=b" word", logprob=-0.5, top=LIKELY)
CALL = ToolCallStarted(index=0, id="call_7f3a", name="weather")
KINDS: dict[str, tuple[tuple[Event, ...], Event]] = {
    "text": ((), TextDelta(text=" word")),
    "thinking": ((), ThinkingDelta(text=" word")),
    "arguments": ((CALL,), ToolCallDelta(index=0, text='": "')),
    "logprobs": ((), TextDelta(text=" word", logprobs=(TOKEN,))),
}


def microseconds(work: Callable[[], object], times: int) -> float:
    """The median over the rounds of what one of `times` costs."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        found.append((time.process_time() - begun) / times * 1e6)
    return median(found)


def decoding(path: str) -> float:
    """From the bytes of a body of about 1 KB to the operation."""
    raw = json.dumps({"model": "tiny", "stream": True, **BODIES[path]}).encode()
    one = endpoint(path)

    def work() -> None:
        for _ in range(100):
            one.decode(WireRequest(body=parse(raw, DEPTH)))

    return microseconds(work, 100)


def encoding(path: str, before: Iterable[Event], event: Event) -> float:
    """From an event to the bytes that are written, the stream having begun."""
    one = endpoint(path)
    assert one.stream is not None
    operation = one.decode(WireRequest(body={"model": "tiny", "stream": True, **BODIES[path]}))

    def work() -> None:
        assert one.stream is not None
        encoder = stream(one, operation)
        for earlier in (STARTED, *before):
            tuple(encoder.feed(earlier))
        for _ in range(TOKENS):
            to_bytes(encoder.feed(event), encoder.media)

    return microseconds(work, TOKENS)


def sent(path: str, before: tuple[Event, ...], event: Event) -> bool:
    """Whether this wire format has a place for such a piece."""
    body, begun = {"model": "tiny", **BODIES[path]}, (STARTED, *before)
    return len(frames(path, body, (*begun, event))) > len(frames(path, body, begun))


def reading(family: str) -> float:
    """From a piece of the model's text to an event."""
    pieces = ("<think>", *[" word"] * (TOKENS // 2), "</think>", *[" word"] * (TOKENS // 2))

    def work() -> None:
        reader = read(family_with(family), lambda: "id")
        for piece in pieces:
            tuple(reader.feed(piece))

    return microseconds(work, len(pieces))


@pytest.mark.parametrize("path", BODIES)
def test_translating_costs_microseconds(path: str) -> None:
    request = decoding(path)
    tokens = {
        kind: encoding(path, before, event) for kind, (before, event) in KINDS.items() if sent(path, before, event)
    }

    costs = "  ".join(f"{kind} {cost:.1f}" for kind, cost in tokens.items())
    sys.stdout.write(f"\n{path:<22} request {request:6.1f} us   token, us: {costs}\n")
    assert request < MOST_PER_REQUEST
    assert max(tokens.values()) < MOST_PER_TOKEN


def test_reading_costs_microseconds() -> None:
    cost = reading("hermes")

    sys.stdout.write(f"\na piece of text read  {cost:6.1f} us\n")
    assert cost < MOST_PER_TOKEN
