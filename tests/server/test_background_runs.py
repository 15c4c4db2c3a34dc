"""Responses in the background, over a stub runtime: followed, taken up again, fetched, cancelled, ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mullama.chat import types
from mullama.errors import EngineFailed
from tests.server.server_fixture import (
    USAGE,
    RunningServer,
    Step,
    StubRuntime,
    manifest,
    read_until,
    request,
    running_server,
)

STARTED = types.Started(prompt_tokens=3)
END: tuple[Step, ...] = (
    types.Finished(reason=types.StopReason.STOP),
    types.Completed(usage=USAGE, timings=types.Timings()),
)
GATED: tuple[Step, ...] = (STARTED, types.TextDelta(text="Hel"), "gate", types.TextDelta(text="lo"), *END)
ASK = {"model": "tiny", "input": "Hello", "background": True}


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(StubRuntime(script=GATED)) as running:
        yield running


def events_of(data: bytes) -> list[Any]:
    return [json.loads(line.removeprefix(b"data: ")) for line in data.splitlines() if line.startswith(b"data: {")]


def numbers(data: bytes) -> list[int]:
    return [event["sequence_number"] for event in events_of(data)]


def begin_stream(server: RunningServer) -> str:
    """Start a response, read its first text and disconnect; return its id."""
    with server.connect() as connection:
        connection.sendall(request("/v1/responses", {**ASK, "stream": True}))
        data = read_until(connection, b'"delta":"Hel"')
    return str(events_of(data)[0]["response"]["id"])


def fetch(server: RunningServer, id: str) -> Any:
    return server.ask("GET", f"/v1/responses/{id}").json


def test_a_stream_goes_on_without_its_client_and_is_taken_up_again(server: RunningServer) -> None:
    id = begin_stream(server)
    assert fetch(server, id)["status"] == "in_progress"
    with server.connect() as connection:
        connection.sendall(request(f"/v1/responses/{id}?stream=true&starting_after=2", method="GET"))
        first = read_until(connection, b'"delta":"Hel"')
        server.open_gate("gate")
        rest = read_until(connection, b"response.completed")
    assert server.nothing_runs()

    whole = server.ask("GET", f"/v1/responses/{id}?stream=true").body
    kinds = [event["type"] for event in events_of(whole)]
    assert numbers(whole) == list(range(len(kinds)))
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert numbers(first + rest)[:2] == [3, 4]
    for after in (0, 4, len(kinds) - 2):
        again = server.ask("GET", f"/v1/responses/{id}?stream=true&starting_after={after}").body
        assert events_of(again) == events_of(whole)[after + 1 :]
    done = fetch(server, id)
    assert (done["status"], done["background"]) == ("completed", True)
    assert done == events_of(whole)[-1]["response"]


def test_a_response_without_a_stream_is_queued_and_fetched(server: RunningServer) -> None:
    queued = server.ask("POST", "/v1/responses", ASK)
    assert (queued.status, queued.json["status"], queued.json["output"]) == (200, "queued", [])
    id = queued.json["id"]
    assert fetch(server, id)["status"] in ("queued", "in_progress")
    listed = server.ask("GET", f"/v1/responses/{id}/input_items").json
    assert listed["data"][0]["content"][0]["text"] == "Hello"
    early = server.ask("POST", "/v1/responses", {"model": "tiny", "input": "x", "previous_response_id": id})
    assert (early.status, "not completed" in early.json["error"]["message"]) == (400, True)
    server.open_gate("gate")
    while (body := fetch(server, id))["status"] in ("queued", "in_progress"):
        pass
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    refused = server.ask("GET", f"/v1/responses/{id}?stream=true")
    assert (refused.status, "not created with background and stream" in refused.json["error"]["message"]) == (400, True)


def test_a_response_is_cancelled(server: RunningServer) -> None:
    id = begin_stream(server)
    cancelled = server.ask("POST", f"/v1/responses/{id}/cancel").json
    assert (cancelled["status"], cancelled["output"][0]["status"]) == ("cancelled", "incomplete")
    assert server.runtime.closed.acquire(timeout=60), "the work ends with it"
    assert fetch(server, id) == cancelled
    again = events_of(server.ask("GET", f"/v1/responses/{id}?stream=true&starting_after=3").body)
    assert again[-1]["response"]["status"] == "cancelled"
    assert server.ask("POST", f"/v1/responses/{id}/cancel").json == cancelled


def test_a_response_is_deleted_while_it_is_generated(server: RunningServer) -> None:
    id = begin_stream(server)
    assert server.ask("DELETE", f"/v1/responses/{id}").json["deleted"] is True
    assert server.runtime.closed.acquire(timeout=60)


def test_the_end_of_the_server_is_the_end_of_the_response(server: RunningServer) -> None:
    id = begin_stream(server)
    server.wait(server.app.close(0))
    stored = server.runtime.kept[id].body
    assert stored["status"] == "failed"
    assert stored["error"]["message"].startswith("the server stopped")  # type: ignore[index,call-overload,union-attr]


def test_a_failure_is_kept_as_the_result() -> None:
    script = (STARTED, types.TextDelta(text="Hel"), EngineFailed("it broke"))
    with running_server(StubRuntime(script=script)) as server:
        data = server.ask("POST", "/v1/responses", {**ASK, "stream": True}).body
        last = events_of(data)[-1]
        assert (last["type"], last["response"]["error"]["message"]) == ("response.failed", "it broke")
        assert fetch(server, last["response"]["id"]) == last["response"]


@pytest.mark.parametrize(
    ("settings", "body", "words"),
    [
        ({}, {"store": False}, "background needs store"),
        ({"stored": {"keep": 0.0}}, {}, "the manifest stores none"),
    ],
)
def test_a_background_response_that_could_not_be_fetched_is_refused(
    settings: dict[str, Any], body: dict[str, Any], words: str
) -> None:
    with running_server(StubRuntime(manifest=manifest(server=settings))) as server:
        refused = server.ask("POST", "/v1/responses", {**ASK, **body})
        assert (refused.status, words in refused.json["error"]["message"]) == (400, True)


def test_too_many_background_responses_are_refused() -> None:
    runtime = StubRuntime(script=GATED, manifest=manifest(server={"limits": {"concurrency": 1, "queue": 0}}))
    with running_server(runtime) as server:
        server.ask("POST", "/v1/responses", ASK)
        assert server.ask("POST", "/v1/responses", ASK).status == 429
