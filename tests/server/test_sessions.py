"""Realtime sessions over real WebSockets: the handshake, the client of OpenAI, limits, drains and bad frames."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from mullama.audio.detectors import EnergyDetector
from mullama.chat import inventory, types
from mullama.dialects.rate_limits import RateReport, RateWindow
from mullama.errors import Busy
from mullama.runtime.base import Admission
from mullama.struct import replace
from tests.audio.speech import quiet, voice
from tests.server.server_fixture import (
    ANSWERS,
    PATIENT,
    SAYS_HELLO,
    RunningServer,
    StubRuntime,
    key,
    manifest,
    read_until,
    running_server,
)

WAITS = (types.Started(prompt_tokens=3), types.TextDelta(text="Hel"), "gate", *SAYS_HELLO[2:])


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def limited(**limits: Any) -> StubRuntime:
    """A runtime whose manifest has these limits of sessions."""
    return StubRuntime(manifest=manifest(server={"limits": {"sessions": limits}}))


def opened(server: RunningServer, path: str = "/v1/realtime?model=tiny", **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", compression=None, proxy=None, **options)


def send(socket: ClientConnection, kind: str, **members: Any) -> None:
    socket.send(json.dumps({"type": kind, **members}))


def say(socket: ClientConnection, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    send(socket, "conversation.item.create", item={"type": "message", "role": "user", "content": content})
    send(socket, "response.create")


def until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv(timeout=20)))
    return events


def _read_all(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=20)


def closed(socket: ClientConnection) -> tuple[int, str]:
    """The code and reason of the close that the server sends."""
    with pytest.raises(ConnectionClosed) as end:
        _read_all(socket)
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


@contextmanager
def refused(status: int) -> Iterator[Callable[[], dict[str, Any]]]:
    body: dict[str, Any] = {}
    with pytest.raises(InvalidStatus) as error:
        yield lambda: body
    assert error.value.response.status_code == status
    body |= json.loads(error.value.response.body)


def test_the_client_of_openai_holds_a_conversation(server: RunningServer) -> None:
    client = openai.OpenAI(api_key="x", base_url=f"http://127.0.0.1:{server.port}/v1")
    with client.realtime.connect(model="tiny", websocket_connection_options={"proxy": None}) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
        )
        connection.response.create()
        text, done = "", None
        for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.done":
                done = event.response
                break
        assert text == "Hello"
        assert done is not None
        assert done.status == "completed"
        assert done.usage is not None
        assert done.usage.output_tokens == 2
    [shown, request] = server.runtime.seen
    assert shown.model == "tiny"
    assert [(m.role, m.text) for m in request.messages] == [("system", "Be brief."), ("user", "Hi")]
    assert server.nothing_runs()


async def _answer_of_async_client(port: int) -> str:
    client = openai.AsyncOpenAI(api_key="x", base_url=f"http://127.0.0.1:{port}/v1")
    async with client.realtime.connect(model="tiny", websocket_connection_options={"proxy": None}) as connection:
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
        )
        await connection.response.create()
        text = ""
        async for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.done":
                break
    return text


def test_the_asynchronous_client_of_openai_holds_a_conversation(server: RunningServer) -> None:
    assert asyncio.run(_answer_of_async_client(server.port)) == "Hello"


def test_the_default_model_answers_a_session_without_one(server: RunningServer) -> None:
    with opened(server, "/v1/realtime") as socket:
        [event] = until(socket, "session.created")
    assert event["session"]["model"] == "usual"


def test_an_answer_is_cancelled_down_to_the_engine() -> None:
    with running_server(StubRuntime(script=WAITS)) as server, opened(server) as socket:
        say(socket, "Hi")
        until(socket, "response.output_text.delta")
        send(socket, "response.cancel")
        done = until(socket, "response.done")[-1]["response"]
        assert done["status"] == "cancelled"
        assert server.runtime.closed.acquire(timeout=20)


def test_a_client_that_leaves_ends_its_answer() -> None:
    with running_server(StubRuntime(script=WAITS)) as server:
        socket = opened(server)
        say(socket, "Hi")
        until(socket, "response.output_text.delta")
        socket.close()
        assert server.runtime.closed.acquire(timeout=20)
        assert server.nothing_runs()


# The handshake


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer good"},
        {"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.good, openai-beta.realtime-v1"},
    ],
)
def test_the_key_is_a_header_or_a_subprotocol(headers: dict[str, str]) -> None:
    runtime = StubRuntime(keys=(key("ci", "good", "infer"),))
    with running_server(runtime) as server:
        protocols = headers.pop("Sec-WebSocket-Protocol", "").split(", ")
        offered: Any = [name for name in protocols if name] or None
        with opened(server, additional_headers=headers, subprotocols=offered) as socket:
            until(socket, "session.created")
            assert socket.subprotocol == ("realtime" if offered else None)
        assert runtime.callers[0].key == "ci"


def test_handshakes_without_rights_have_a_status() -> None:
    runtime = StubRuntime(keys=(key("ci", "good", "infer"), key("reader", "read", "read")))
    with running_server(runtime) as server:
        with refused(401) as body:
            opened(server)
        assert body()["error"]["code"] == "invalid_api_key"
        with refused(401):
            opened(server, additional_headers={"Authorization": "Bearer bad"})
        with refused(403):
            opened(server, additional_headers={"Authorization": "Bearer read"})
        with refused(401):
            opened(server, "/v1/realtime?model=tiny&api_key=good")
        with refused(400) as body:
            opened(
                server,
                "/v1/realtime?model=tiny&api_key=good",
                additional_headers={"Authorization": "Bearer good"},
            )
        assert "subprotocol" in body()["error"]["message"]
        assert server.nothing_runs()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403)],
)
def test_pages_of_others_are_refused(server: RunningServer, headers: dict[str, str], status: int) -> None:
    with refused(status):
        opened(server, additional_headers=headers)


def test_pages_of_this_machine_are_served(server: RunningServer) -> None:
    with opened(server, origin="http://localhost:3000") as socket:
        until(socket, "session.created")


def test_a_request_that_is_no_handshake_gets_426(server: RunningServer) -> None:
    answer = server.ask("GET", "/v1/realtime?model=tiny")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
    assert "WebSocket" in answer.json["error"]["message"]
    handshake = (
        b"GET /v1/realtime?model=tiny HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: %b\r\nSec-WebSocket-Key: %b\r\n\r\n"
    )
    good = base64.b64encode(bytes(16))
    for version, secret in ((b"8", good), (b"13", b"short")):
        assert server.raw(handshake % (version, secret)).startswith(b"HTTP/1.1 426 ")
    other = handshake.replace(b"/v1/realtime?model=tiny", b"/livez")  # an upgrade that nobody serves is declined
    assert server.raw(other.replace(b"Upgrade\r\n", b"Upgrade, close\r\n") % (b"13", good)).startswith(b"HTTP/1.1 200 ")


def test_an_unknown_intent_is_refused(server: RunningServer) -> None:
    with refused(400) as body:
        opened(server, "/v1/realtime?intent=dance")
    assert "intent" in body()["error"]["message"]


def test_the_number_of_sessions_is_bounded() -> None:
    with running_server(limited(count=1)) as server:
        with opened(server) as socket:
            until(socket, "session.created")
            with refused(503):
                opened(server)
        assert server.nothing_runs()
        with opened(server) as socket:
            until(socket, "session.created")


# Limits and ends


def test_rate_limits_hold_for_each_answer() -> None:
    report = RateReport(requests=RateWindow(limit=1, remaining=0, reset=6.0))
    refusal = Busy("the limit of requests is reached", limited=True)
    runtime = StubRuntime(admission=Admission(report=report, refusal=refusal))
    with running_server(runtime) as server, opened(server) as socket:
        say(socket, "Hi")
        events = until(socket, "response.done")
        limits = next(event for event in events if event["type"] == "rate_limits.updated")
        assert limits["rate_limits"][0]["remaining"] == 0
        assert events[-1]["response"]["status_details"]["error"]["code"] == "rate_limit_exceeded"
        runtime.admission = None
        say(socket, "Hi")
        assert until(socket, "response.done")[-1]["response"]["status"] == "completed"


def test_a_reload_keeps_the_session_and_a_removed_key_ends_it() -> None:
    runtime = StubRuntime(keys=(key("ci", "good", "infer"),))
    with running_server(runtime) as server, opened(server, additional_headers={"Authorization": "Bearer good"}) as one:
        server.wait(server.http.listen_on(["127.0.0.1:0"]))  # another address: the listener of the session closes
        runtime.generation += 1
        runtime.keys = (key("renamed", "good", "infer"),)
        say(one, "Hi")
        assert until(one, "response.done")[-1]["response"]["status"] == "completed"
        assert runtime.callers[-1].key == "renamed"
        runtime.keys = (key("ci", "other", "infer"),)
        say(one, "Hi")
        code, reason = closed(one)
        assert code == 1008
        assert "no longer valid" in reason


def test_a_stop_waits_for_the_answer_and_tells_the_reason() -> None:
    with running_server(StubRuntime(script=WAITS)) as server:
        busy, idle = opened(server), opened(server)
        until(idle, "session.created")
        say(busy, "Hi")
        until(busy, "response.output_text.delta")
        stopping = asyncio.run_coroutine_threadsafe(server.http.stop(60), server.loop)
        assert closed(idle) == (1001, "the server is stopping")
        server.open_gate("gate")
        assert until(busy, "response.done")[-1]["response"]["status"] == "completed"
        assert closed(busy) == (1001, "the server is stopping")
        stopping.result(60)


def test_a_drain_that_is_over_ends_the_answer_with_its_reason() -> None:
    with running_server(StubRuntime(script=WAITS)) as server, opened(server) as socket:
        say(socket, "Hi")
        until(socket, "response.output_text.delta")
        stopping = asyncio.run_coroutine_threadsafe(server.http.stop(0), server.loop)
        assert "stopping" in until(socket, "error")[-1]["error"]["message"]
        assert closed(socket)[0] == 1001
        stopping.result(60)


def test_an_idle_session_is_closed() -> None:
    with running_server(limited(idle="50ms")) as server, opened(server) as socket:
        code, reason = closed(socket)
        assert (code, "no message" in reason) == (1008, True)


def test_a_session_that_keeps_more_than_its_memory_is_closed() -> None:
    with running_server(limited(memory="1MiB")) as server, opened(server) as socket:
        content = [{"type": "input_text", "text": "x" * 2**18}]  # the client bounds the events that repeat it
        for _ in range(4):
            send(socket, "conversation.item.create", item={"type": "message", "role": "user", "content": content})
        assert "server.limits.sessions.memory" in until(socket, "error")[-1]["error"]["message"]
        assert closed(socket)[0] == 1009


def test_sound_beyond_the_longest_turn_is_refused_until_it_is_committed(server: RunningServer) -> None:
    with running_server(limited(turn="1s")) as server, opened(server) as socket:
        until(socket, "session.created")
        sound = {"format": {"type": "audio/pcm", "rate": 8000}, "turn_detection": None}
        send(socket, "session.update", session={"type": "realtime", "audio": {"input": sound}})
        second = base64.b64encode(bytes(16_000)).decode()
        for _ in range(2):
            send(socket, "input_audio_buffer.append", audio=second)
        assert "more than 1 s (15.6 KiB)" in until(socket, "error")[-1]["error"]["message"]
        send(socket, "input_audio_buffer.commit")
        until(socket, "input_audio_buffer.committed")


def test_a_client_that_answers_no_ping_is_disconnected() -> None:
    with running_server(bounds=replace(PATIENT, session_ping=0.05)) as server, server.connect() as connection:
        secret = base64.b64encode(os.urandom(16))
        connection.sendall(
            b"GET /v1/realtime?model=tiny HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + secret + b"\r\n\r\n"
        )
        read_until(connection, b"session.created")
        connection.settimeout(60)
        while True:
            try:
                if not connection.recv(65536):
                    break
            except ConnectionResetError:
                break
        assert server.nothing_runs()


# Bad frames and messages


@pytest.mark.parametrize(
    "text", ["{", "[1,", '{"type": "x", "type": "y"}', '{"a": NaN}', '{"a": "\\ud800"}', "[" * 99 + "]" * 99, "", "3"]
)
def test_a_message_that_is_no_json_object_is_answered_with_an_error(server: RunningServer, text: str) -> None:
    with opened(server) as socket:
        until(socket, "session.created")
        socket.send(text)
        assert until(socket, "error")[-1]["error"]["type"] == "invalid_request_error"
        say(socket, "Hi")
        until(socket, "response.done")


def frame(opcode: int, data: bytes, *, fin: bool = True, masked: bool = True, length: int | None = None) -> bytes:
    head = bytes([opcode | (0x80 if fin else 0)])
    size = len(data) if length is None else length
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    return head + (bytes(4) if masked else b"") + data


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(2, b"\0\1"), 1003),
        (frame(1, b"{}", masked=False), 1002),
        (frame(3, b"{}"), 1002),
        (frame(0, b"{}"), 1002),
        (frame(9, bytes(126)), 1002),
        (frame(1, b"", length=2**62), 1009),
        (frame(1 | 0x40, b"{}"), 1002),
        (frame(1, b"\xff\xfe"), 1007),
        (frame(8, b"\x00"), 1002),
    ],
)
def test_a_bad_frame_closes_the_session_with_its_code(server: RunningServer, raw: bytes, code: int) -> None:
    socket = opened(server)
    until(socket, "session.created")
    socket.socket.sendall(raw)
    assert closed(socket)[0] == code
    assert server.nothing_runs()


def test_a_message_in_fragments_is_joined(server: RunningServer) -> None:
    with opened(server) as socket:
        until(socket, "session.created")
        text = json.dumps({"type": "session.update", "session": {"instructions": "é"}})
        socket.send(iter([text[:9], text[9:20], text[20:]]))
        assert until(socket, "session.updated")[-1]["session"]["instructions"] == "é"


@pytest.mark.parametrize(
    "raw",
    [
        frame(1, b'"' + bytes(3000), length=1_000_000),
        b"".join([frame(1, b'"', fin=False), *[frame(0, bytes(500), fin=False)] * 6]),
    ],
    ids=["one frame", "many frames"],
)
def test_a_message_without_its_end_counts_in_the_memory_for_bodies(raw: bytes) -> None:
    with running_server(bounds=replace(PATIENT, body_pool=2048)) as server:
        with opened(server) as small:
            until(small, "session.created")
            socket = opened(server)
            until(socket, "session.created")
            socket.socket.sendall(raw)
            code, reason = closed(socket)
            assert (code, "memory reserved" in reason) == (1013, True)
            say(small, "Hi")
            until(small, "response.done")
        assert server.nothing_runs()
        with opened(server) as again:  # the memory is free again
            until(again, "session.created")
            send(again, "session.update", session={"instructions": "x" * 1500})
            until(again, "session.updated")


def test_sounds_that_are_not_read_do_not_grow_the_server() -> None:
    limits = {"server": {"limits": {"media": {"sound": "1MiB"}}}}
    with running_server(StubRuntime(manifest=manifest(**limits))) as server, opened(server) as socket:
        send(socket, "session.update", session={"audio": {"input": {"turn_detection": None}}})
        send(socket, "input_audio_buffer.append", audio=base64.b64encode(bytes(2**20)).decode())
        send(socket, "input_audio_buffer.append", audio=base64.b64encode(bytes(2)).decode())
        assert "server.limits.media" in until(socket, "error")[-1]["error"]["message"]
        send(socket, "input_audio_buffer.clear")
        until(socket, "input_audio_buffer.cleared")


def test_the_control_socket_serves_sessions(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    runtime = StubRuntime(keys=(key("ci", "good", "infer"),))
    with (
        running_server(runtime, control=path),
        unix_connect(path, uri="ws://localhost/v1/realtime?model=tiny", compression=None) as socket,
    ):
        say(socket, "Hi")
        assert until(socket, "response.done")[-1]["response"]["status"] == "completed"


# Speech


@pytest.fixture
def by_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector that is there without further packages; the other one knows that the sound is no voice."""
    monkeypatch.setattr("mullama.server.speech_detection.detector", lambda name: EnergyDetector())


HEARS = {inventory.ShowModel: lambda operation: inventory.ModelCard(name=operation.model, capabilities=("audio",))}


@pytest.mark.parametrize("rate", [8_000, 24_000, 96_000])
def test_speech_is_found_in_a_sound_and_answered(by_energy: None, monkeypatch: Any, rate: int) -> None:
    monkeypatch.setattr("tests.server.server_fixture.ANSWERS", {**ANSWERS, **HEARS})
    with running_server() as server, opened(server) as socket:
        send(socket, "session.update", session={"audio": {"input": {"format": {"type": "audio/pcm", "rate": rate}}}})
        sound = quiet(0.6, rate) + voice(0.8, rate) + quiet(0.8, rate)
        for at in range(0, len(sound), rate // 5):
            send(socket, "input_audio_buffer.append", audio=base64.b64encode(sound[at : at + rate // 5]).decode())
        events = until(socket, "response.done")
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
        begin = next(e for e in events if e["type"] == "input_audio_buffer.speech_started")["audio_start_ms"]
        end = next(e for e in events if e["type"] == "input_audio_buffer.speech_stopped")["audio_end_ms"]
        assert 200 <= begin <= 500
        assert 1400 <= end <= 1700
    [part] = server.runtime.seen[-1].messages[0].content
    assert len(part.data) == pytest.approx(2 * rate * (end - begin) / 1000, abs=rate / 50)


def test_silence_alone_is_no_turn(by_energy: None, monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.server.server_fixture.ANSWERS", {**ANSWERS, **HEARS})
    with running_server() as server, opened(server) as socket:
        for _ in range(20):
            send(socket, "input_audio_buffer.append", audio=base64.b64encode(quiet(0.2, 24_000)).decode())
        send(socket, "session.update", session={})
        assert [event["type"] for event in until(socket, "session.updated")] == ["session.created", "session.updated"]


EARS = {"ears": {"from": "./ears.gguf", "task": "transcription"}, "deaf": {"from": "./deaf.gguf"}}


def speak(socket: ClientConnection) -> None:
    sound = quiet(0.4, 24_000) + voice(0.6, 24_000) + quiet(0.8, 24_000)
    send(socket, "input_audio_buffer.append", audio=base64.b64encode(sound).decode())


def test_the_model_for_transcription_hears_for_one_that_does_not(by_energy: None) -> None:
    with running_server(StubRuntime(manifest=manifest(models=EARS))) as server, opened(server) as socket:
        assert until(socket, "session.created")[-1]["session"]["audio"]["input"]["transcription"]["model"] == "ears"
        speak(socket)
        events = until(socket, "response.done")
        whole = next(e for e in events if e["type"].endswith("transcription.completed"))
        assert (whole["transcript"], whole["usage"]) == ("Hello", {"type": "duration", "seconds": 0.9})
        assert events[-1]["response"]["status"] == "completed"
        socket.close()
        assert server.nothing_runs()
    [_, (transcription, sound), request] = server.runtime.seen
    assert (transcription.model, sound[:4], transcription.sound.size) == ("ears", b"RIFF", len(sound))
    assert [message.text for message in request.messages] == ["Hello"]


def test_a_transcript_that_fails_is_reported_and_a_session_may_transcribe_alone(by_energy: None) -> None:
    with (
        running_server(StubRuntime(manifest=manifest(models=EARS))) as server,
        opened(server, "/v1/realtime?intent=transcription") as socket,
    ):
        speak(socket)
        until(socket, "conversation.item.input_audio_transcription.completed")
        other = {"audio": {"input": {"transcription": {"model": "deaf", "language": "de"}}}}
        send(socket, "session.update", session=other)
        speak(socket)
        failed = until(socket, "conversation.item.input_audio_transcription.failed")[-1]
        assert failed["error"]["code"] == "model_not_found"
    assert server.runtime.seen[-1][0].language == "de"
