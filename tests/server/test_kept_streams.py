"""Streams that outlive their connection, over a stub runtime and alone: read on, looked up, cancelled, bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat import types
from mullama.dialects.resumable_streams import ResumeStream
from mullama.errors import Busy, Invalid, NotFound
from mullama.manifest.spec import ResumableStreams
from mullama.runtime.base import Caller
from mullama.server.kept_stream import LONGEST, KeptStream, OffsetLost
from mullama.server.stream_keeper import StreamKeeper
from mullama.struct import replace
from tests.server.server_fixture import (
    CHAT,
    PATIENT,
    SAYS_HELLO,
    USAGE,
    RunningServer,
    Step,
    StubRuntime,
    key,
    manifest,
    read_until,
    request,
    running_server,
)

END: tuple[Step, ...] = (
    types.Finished(reason=types.StopReason.STOP),
    types.Completed(usage=USAGE, timings=types.Timings()),
)
GATED: tuple[Step, ...] = (
    types.Started(prompt_tokens=3), types.TextDelta(text="Hel"), "gate", types.TextDelta(text="lo"), *END,
)  # fmt: skip
CONVERSATION = "c1::org/model:Q4"
HEADER = f"X-Conversation-Id: {CONVERSATION}"
PLACE = "/v1/stream?conv_id=c1%3A%3Aorg%2Fmodel%3AQ4"
STREAM = {**CHAT, "stream": True}


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(StubRuntime(script=GATED)) as running:
        yield running


def ask(
    server: RunningServer, path: str = "/v1/chat/completions", body: Any = STREAM, conversation: str = CONVERSATION
) -> bytes:
    """Begin a stream and disconnect after its first text; return the bytes of the stream that arrived."""
    with server.connect() as connection:
        connection.sendall(request(path, body, "POST", f"X-Conversation-Id: {conversation}"))
        data = read_until(connection, b"Hel")
        return unchunked(data.partition(b"\r\n\r\n")[2])


def unchunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        found, data = found + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return found


def text_of(stream: bytes) -> str:
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


def states(server: RunningServer, *ids: Any, headers: Any = None) -> list[Any]:
    found: list[Any] = server.ask("POST", "/v1/streams/lookup", {"conversation_ids": ids}, headers).json
    return found


def test_a_client_that_lost_its_connection_reads_on_where_it_stopped(server: RunningServer) -> None:
    first = ask(server)
    (state,) = states(server, "c1")
    assert (state["conversation_id"], state["is_done"], state["completed_at"]) == (CONVERSATION, False, 0)
    assert state["total_bytes"] == len(first)

    with server.connect() as connection:
        connection.sendall(request(f"{PLACE}&from={len(first)}", method="GET"))
        head = read_until(connection, b"\r\n\r\n")
        server.open_gate("gate")
        rest = unchunked(read_until(connection, b"[DONE]\n\n\r\n"))
    assert b"text/event-stream" in head

    assert server.runtime.closed.acquire(blocking=False) is False  # the generation was not cancelled
    assert text_of(first) == "Hel"
    assert text_of(rest) == "lo"
    whole = server.ask("GET", PLACE).body
    assert whole == first + rest
    for offset in (1, len(first) - 1, len(whole) - 1, len(whole), len(whole) + 9):
        assert server.ask("GET", f"{PLACE}&from={offset}").body == whole[offset:]
    (state,) = states(server, CONVERSATION, "another")
    assert (state["is_done"], state["total_bytes"]) == (True, len(whole))
    assert state["completed_at"] >= state["started_at"] > 0


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        ("/v1/chat/completions", STREAM, b"[DONE]"),
        ("/completion", {"prompt": "Hi", "stream": True}, b'"stop":true'),
        ("/v1/responses", {"model": "tiny", "input": "Hi", "stream": True}, b"response.completed"),
        ("/v1/messages", {**STREAM, "max_tokens": 9}, b"message_stop"),
    ],
)
def test_every_stream_of_events_can_be_taken_up_again(server: RunningServer, path: str, body: Any, last: bytes) -> None:
    first = ask(server, path, body)
    server.open_gate("gate")
    assert server.nothing_runs()
    whole = server.ask("GET", PLACE).body
    assert whole.startswith(first)
    assert last in whole


def test_a_client_that_stays_gets_the_stream_as_without_the_header(server: RunningServer) -> None:
    server.open_gate("gate")
    kept = server.ask("POST", "/v1/chat/completions", STREAM, {"x-conversation-id": "c"})
    plain = server.ask("POST", "/v1/chat/completions", STREAM)
    assert text_of(kept.body) == text_of(plain.body) == "Hello"
    assert kept.headers.keys() == plain.headers.keys()
    assert [line["conversation_id"] for line in states(server, "c")] == ["c"]


def test_pings_are_bytes_of_the_stream() -> None:
    """A client counts the bytes that it received, so those of pings are in the offset."""
    with running_server(StubRuntime(script=GATED), replace(PATIENT, ping=0.01)) as server:
        with server.connect() as connection:
            connection.sendall(request("/v1/chat/completions", STREAM, "POST", HEADER))
            first = unchunked(read_until(connection, b"Hel").partition(b"\r\n\r\n")[2])
            ping = unchunked(read_until(connection, b"\n\n\r\n"))
        assert ping.startswith(b":")
        server.open_gate("gate")
        assert server.nothing_runs()
        whole = server.ask("GET", PLACE).body
        assert whole.startswith(first + ping)


def test_cancelling_ends_the_generation_and_drops_the_stream(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(request("/v1/chat/completions", STREAM, "POST", HEADER))
        read_until(connection, b"Hel")
        assert server.ask("DELETE", PLACE).status == 204
        assert server.runtime.closed.acquire(timeout=30)
        assert b"[DONE]" not in read_until(connection, b"0\r\n\r\n")  # its reader gets the end of the body

    assert server.ask("GET", PLACE).status == 404
    assert server.ask("DELETE", PLACE).status == 204
    assert states(server, "c1") == []


def test_a_newer_stream_of_a_conversation_replaces_the_older_one(server: RunningServer) -> None:
    ask(server)
    ask(server)
    assert server.runtime.closed.acquire(timeout=30)
    assert len(states(server, "c1")) == 1
    server.open_gate("gate")
    assert server.nothing_runs()
    assert text_of(server.ask("GET", PLACE).body) == "Hello"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/stream", 400, "conv_id is required"),
        ("/v1/stream?conv_id=", 400, "conv_id is required"),
        ("/v1/stream?conv_id=x", 404, "not found"),
        ("/v1/stream?conv_id=x&from=-1", 400, "from must be an offset in bytes, not '-1'"),
        ("/v1/stream?conv_id=x&from=1e3", 400, "from must be an offset"),
        ("/v1/stream?conv_id=x&from=99999999999999999999", 400, "from must be an offset"),
    ],
)
def test_bad_requests_to_read_on(server: RunningServer, path: str, status: int, words: str) -> None:
    refused = server.ask("GET", path)
    assert refused.status == status
    assert words in refused.json["error"]["message"]


def test_an_id_without_a_bound_is_refused_before_anything_is_generated(server: RunningServer) -> None:
    refused = server.ask("POST", "/v1/chat/completions", STREAM, {"x-conversation-id": "::" * 257})
    assert (refused.status, refused.json["error"]["param"]) == (400, "x-conversation-id")
    assert "514 characters, and 512 is the most" in refused.json["error"]["message"]
    anthropic = server.ask("POST", "/v1/messages", {**STREAM, "max_tokens": 9}, {"x-conversation-id": "x" * 513})
    assert (anthropic.status, anthropic.json["type"]) == (400, "error")
    assert server.nothing_runs()


@pytest.mark.parametrize("body", [{"conversation_ids": "c1"}, {"conversation_ids": [1]}, []])
def test_bad_lookups(server: RunningServer, body: Any) -> None:
    assert server.ask("POST", "/v1/streams/lookup", body).status == 400


@pytest.mark.parametrize("body", [{}, {"conversation_ids": []}, {"conversation_ids": [""]}])
def test_streams_are_not_listed(server: RunningServer, body: Any) -> None:
    ask(server)
    assert server.ask("POST", "/v1/streams/lookup", body).json == []


def test_a_stream_is_private_to_its_key() -> None:
    keys = (key("a", "aaa", "infer"), key("b", "bbb", "infer"))
    with running_server(StubRuntime(script=SAYS_HELLO, keys=keys)) as server:
        mine, other = {"authorization": "Bearer aaa"}, {"authorization": "Bearer bbb"}
        server.ask("POST", "/v1/chat/completions", STREAM, {**mine, "x-conversation-id": "c1"})
        place = "/v1/stream?conv_id=c1"
        assert server.ask("GET", place, None, other).status == 404
        assert states(server, "c1", headers=other) == []
        assert server.ask("DELETE", place, None, other).status == 204
        server.ask("POST", "/v1/chat/completions", STREAM, {**other, "x-conversation-id": "c1"})
        assert server.ask("DELETE", place, None, other).status == 204
        assert text_of(server.ask("GET", place, None, mine).body) == "Hello"
        assert server.ask("GET", place).status == 401


def test_an_error_before_the_first_byte_has_its_status_and_leaves_nothing() -> None:
    with running_server(StubRuntime(script=(Busy("the queue is full", retry_after=2.0),))) as server:
        refused = server.ask("POST", "/v1/chat/completions", STREAM, {"x-conversation-id": "c1"})
        assert (refused.status, refused.headers["retry-after"]) == (429, "2")
        assert server.ask("GET", "/v1/stream?conv_id=c1").status == 404
        assert states(server, "c1") == []


def test_a_fault_in_the_stream_is_its_last_event() -> None:
    with running_server(StubRuntime(script=(*SAYS_HELLO[:2], Busy("evicted")))) as server:
        answer = server.ask("POST", "/v1/chat/completions", STREAM, {"x-conversation-id": "c1"})
        assert b"evicted" in answer.body
        assert server.ask("GET", "/v1/stream?conv_id=c1").body == answer.body


def test_other_answers_are_not_kept(server: RunningServer) -> None:
    server.open_gate("gate")
    headers = {"x-conversation-id": "c1"}
    server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": False}, headers)
    server.ask("POST", "/api/chat", STREAM, headers)
    assert states(server, "c1") == []


def test_a_manifest_may_keep_none() -> None:
    runtime = StubRuntime(script=GATED, manifest=manifest(server={"resumable": {"keep": "0s"}}))
    with running_server(runtime) as server:
        with server.connect() as connection:
            connection.sendall(request("/v1/chat/completions", STREAM, "POST", HEADER))
            head = read_until(connection, b"Hel")
        assert b"mullama-warning: x-conversation-id: the manifest keeps no streams" in head.lower()
        assert runtime.closed.acquire(timeout=30)  # the request ended with its connection
        assert server.ask("GET", PLACE).status == 404


def test_a_stop_of_the_server_ends_streams_without_a_client(server: RunningServer) -> None:
    ask(server)
    server.wait(server.app.close(0))
    assert server.runtime.closed.acquire(timeout=30)


# Alone


class Times:
    """A keeper whose streams are filled by the test."""

    def __init__(self, size: int = 2**26) -> None:
        self.counts: dict[str, int] = {}
        self.settings = ResumableStreams(size=size)
        self.keeper = StreamKeeper(lambda: self.settings, self.counts)
        self.caller = Caller(dialect="openai", request_id="r")

    def add(self, id: str, data: bytes, *, ended: bool = True, kind: type[KeptStream] = KeptStream) -> KeptStream:
        stream = kind(id, self.keeper._grown)
        self.keeper._streams[None, id] = stream
        self.keeper._bytes += 2048
        asyncio.run(stream.send({"type": "http.response.body", "body": data}))
        if ended:
            stream.finish()
        return stream

    def kept(self) -> list[str]:
        return [id for _, id in self.keeper._streams]


def test_the_oldest_ended_streams_make_room_and_then_the_beginnings_of_others() -> None:
    times = Times(size=100_000)
    for id in ("a", "b", "c"):
        times.add(id, b"x" * 30_000)
    assert (times.kept(), times.keeper.bytes) == (["a", "b", "c"], 96_144)

    live = times.add("d", b"y" * 30_000, ended=False)
    assert (times.kept(), times.counts) == (["b", "c", "d"], {"dropped": 1})
    asyncio.run(live.send({"type": "http.response.body", "body": b"z" * 90_000}))
    assert (times.kept(), live.dropped, live.size) == (["d"], 30_000, 90_000)
    with pytest.raises(Invalid, match="from byte 30000 on only"):
        times.keeper.find(ResumeStream(conversation="d", offset=29_999), times.caller)
    assert times.keeper.find(ResumeStream(conversation="d", offset=30_000), times.caller) is live
    assert times.counts == {"dropped": 3, "lost": 1, "resumed": 1}


def test_a_full_memory_drops_only_what_a_piece_needs_and_looks_at_no_other_stream() -> None:
    """Each piece of a stream would else sort all streams, and thousands of short ones slow all others down."""
    looked: list[str] = []

    class Watched(KeptStream):
        @property
        def ended(self) -> float | None:
            looked.append(self.conversation)
            return self.__dict__.get("end")

        @ended.setter
        def ended(self, value: float | None) -> None:
            self.__dict__["end"] = value

    times = Times(size=65_536)
    for number in range(20):
        times.add(str(number), b"x" * 1024, kind=Watched)
    live = times.add("live", b"", ended=False)
    looked.clear()
    asyncio.run(live.send({"type": "http.response.body", "body": b"x" * 7000}))
    assert times.kept() == [*map(str, range(2, 20)), "live"]
    assert set(looked) == {"0", "1"}


def test_an_ended_stream_expires() -> None:
    times = Times()
    stream, running = times.add("a", b"x"), times.add("b", b"x", ended=False)
    assert stream.ended is not None
    stream.ended -= times.settings.keep + 1
    with pytest.raises(NotFound, match="has expired"):
        times.keeper.find(ResumeStream(conversation="a"), times.caller)
    assert times.keeper.find(ResumeStream(conversation="b"), times.caller) is running
    assert times.keeper.bytes == 2049


def test_one_stream_keeps_its_last_bytes() -> None:
    stream = Times().add("a", b"", ended=False)
    for number in range(5):
        asyncio.run(stream.send({"type": "http.response.body", "body": bytes([number]) * 1024 * 1024}))
    assert (stream.dropped, stream.size, stream.total) == (1024**2, LONGEST, 5 * 1024**2)

    async def read(offset: int) -> bytes:
        return b"".join([piece async for piece in stream.read(offset)])

    stream.finish()
    assert asyncio.run(read(1024**2)) == b"".join(bytes([n]) * 1024**2 for n in range(1, 5))
    with pytest.raises(OffsetLost):
        asyncio.run(read(1024**2 - 1))


@given(st.lists(st.binary(max_size=5), max_size=12), st.integers(0, 70), st.integers(0, 12))
def test_a_reader_gets_the_bytes_from_its_offset_on_whenever_it_comes(
    pieces: list[bytes], offset: int, late: int
) -> None:
    async def scenario() -> bytes:
        stream = KeptStream("a", lambda change: None)

        async def read() -> bytes:
            return b"".join([piece async for piece in stream.read(offset)])

        reader: asyncio.Task[bytes] | None = None
        for number, piece in enumerate((*pieces, b"")):
            if number == min(late, len(pieces)):
                reader = asyncio.create_task(read())
            await stream.send({"type": "http.response.body", "body": piece})
            await asyncio.sleep(0)
        stream.finish()
        assert reader is not None
        return await reader

    assert asyncio.run(scenario()) == b"".join(pieces)[offset:]
