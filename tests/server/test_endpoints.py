"""Large bodies and large replies are decoded and encoded outside the event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mullama.chat import inventory, types
from mullama.dialects.base import Dialect, Endpoint, Reply, ReplyContext, WireRequest, size_of
from mullama.dialects.operator_errors import error_reply
from mullama.dialects.stored_objects import StoredObject
from mullama.offload import LARGE
from tests.server.server_fixture import USAGE, RunningServer, StubRuntime, running_server


@dataclass
class Spy:
    """An endpoint that records the threads in which it decodes and encodes."""

    threads: dict[str, int] = field(default_factory=dict)

    def decode(self, request: WireRequest) -> types.DetokenizeRequest:
        self.threads["decode"] = threading.get_ident()
        assert isinstance(request.body, dict)
        return types.DetokenizeRequest(model="", tokens=(int(str(request.body["answer"])),))

    def encode(self, context: ReplyContext[types.DetokenizeRequest, types.DetokenizedText]) -> Reply:
        self.threads["encode"] = threading.get_ident()
        return Reply(body={"content": context.result.text})

    def dialect(self) -> Dialect:
        endpoint = Endpoint(method="POST", path="/spy", decode=self.decode, encode=self.encode)
        return Dialect(name="openai", endpoints=(endpoint,), error=error_reply)


class LongAnswers(StubRuntime):
    async def answer(self, operation: Any, caller: Any) -> Any:
        return types.DetokenizedText(text="x" * operation.tokens[0])


@pytest.fixture(scope="module")
def spied() -> Iterator[tuple[RunningServer, Spy]]:
    spy = Spy()
    with running_server(LongAnswers(), dialects={"openai": spy.dialect()}) as server:
        yield server, spy


@pytest.mark.parametrize(
    ("body", "answer", "apart"),
    [
        (0, 1, set()),
        (LARGE, 1, {"decode"}),
        (0, LARGE, {"encode"}),
        (LARGE, LARGE, {"decode", "encode"}),
    ],
)
def test_the_size_of_body_and_reply_decides_where_they_are_converted(
    spied: tuple[RunningServer, Spy], body: int, answer: int, apart: set[str]
) -> None:
    server, spy = spied
    loop = server.wait(_thread())
    found = server.ask("POST", "/spy", {"answer": answer, "padding": "y" * body})
    assert found.status == 200
    assert found.json == {"content": "x" * answer}
    assert {name for name, thread in spy.threads.items() if thread != loop} == apart


async def _thread() -> int:
    return threading.get_ident()


def test_a_large_body_that_is_no_json_is_refused_as_a_small_one(spied: tuple[RunningServer, Spy]) -> None:
    server, _ = spied
    texts = [server.ask("POST", "/spy", b"{" + b" " * size + b"x").json["error"]["message"] for size in (0, LARGE)]
    assert texts[0].replace("byte 1", f"byte {LARGE + 1}") == texts[1]


def answer_of(text: str, tokens: int, top: int) -> types.Answer:
    token = types.TokenLogprob(id=1, text="a", bytes=b"a", logprob=-1.0)
    with_top = types.TokenLogprob(id=1, text="a", bytes=b"a", logprob=-1.0, top=(token,) * top)
    run = types.TextRun(text=text, logprobs=(with_top,) * tokens)
    choice = types.Choice(index=0, parts=(run,), reason=types.StopReason.STOP, stop_sequence=None)
    return types.Answer(choices=(choice,) * 2, usage=USAGE, timings=types.Timings(), context=(1,) * 10)


@pytest.mark.parametrize(
    ("result", "size"),
    [
        (answer_of("abc", 0, 0), 16),
        (answer_of("", 100, 20), 10 + 2 * 100 * 21 * 4),
        (types.Vectors(vectors=((0.5,) * 300,) * 2048, usage=USAGE), 300 * 2048),
        (types.Tokens(ids=(1,) * 5, pieces=(b"a",) * 5), 10),
        (types.DetokenizedText(text="x" * 7), 7),
        (types.TokenCount(tokens=10**6), 0),
        (inventory.Inventory(models=(inventory.ModelCard(name="a"),) * 3), 192),
        (inventory.Done(), 0),
    ],
)
def test_the_size_of_a_result_is_that_of_its_reply(result: Any, size: int) -> None:
    assert size_of(result) == size


@pytest.mark.parametrize(
    "result", [inventory.ModelCard(name="a"), StoredObject(id="resp_1", body={}, items=())], ids=["card", "stored"]
)
def test_results_of_unknown_size_count_as_large(result: Any) -> None:
    assert size_of(result) >= LARGE
