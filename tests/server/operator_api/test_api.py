"""The operator API over a real server: its calls of the operator, and its responses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from mullama.errors import (
    Busy,
    Conflict,
    Denied,
    EngineFailed,
    Internal,
    Invalid,
    ManifestError,
    MullamaError,
    NotFound,
    Refused,
    TimedOut,
    TooLarge,
    TransferFailed,
    Unavailable,
)
from mullama.problems import Location, Problem
from mullama.runtime.base import UNDO, ApplyOptions, KeyRecord, LeaseRequest, Origin
from mullama.server.http.exchange import OPERATOR
from mullama.server.operator_api.requests import read_usage
from mullama.struct import replace
from tests.server.server_fixture import RunningServer, StubRuntime, key, manifest, read_until, request, running_server

LEASE = {"holder": "ann", "fleet": "prod", "seconds": 30, "fence": 4}
A = {"url": "http://a", "state": "running"}
ROLLOUT = {
    "fleet": "prod", "host": "a", "kind": "apply", "holder": "ann", "fence": 4, "number": 1, "began": 1, "updated": 2.5,
    "hosts": {"a": A},
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("x"), 400),
        (Denied("x"), 401),
        (Denied("x", authenticated=True), 403),
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (Refused("x"), 422),
        (Busy("x"), 429),
        (TooLarge("x"), 413),
        (TransferFailed("x"), 502),
        (TimedOut("x"), 504),
        (Unavailable("x"), 503),
        (EngineFailed("x"), 503),
        (Internal("x"), 500),
    ],
)
def test_every_kind_of_error_has_its_status(error: MullamaError, status: int) -> None:
    reply = OPERATOR.error(error, "req_1")
    assert reply.status == status
    body: Any = reply.body
    assert body["error"] == {"kind": error.kind.value, "message": "x", "hint": "", "request_id": "req_1"}


def test_health_is_reported_without_secrets(server: RunningServer) -> None:
    assert server.ask("GET", "/livez").json == {"status": "ok"}
    for path in ("/healthz", "/health"):
        answer = server.ask("GET", path).json
        assert answer["status"] == "ok"
        assert answer["models"] == {"declared": 1, "loaded": 1}


def test_readiness_names_the_missing_models(server: RunningServer) -> None:
    assert server.ask("GET", "/readyz").json == {"ready": True}
    server.runtime.not_ready = ("a", "b")
    answer = server.ask("GET", "/readyz")
    assert (answer.status, answer.json) == (503, {"ready": False, "missing": ["a", "b"]})


def test_metrics_have_their_format_and_their_switch(server: RunningServer) -> None:
    answer = server.ask("GET", "/metrics")
    assert answer.headers["process-start-time-unix"] == "1763600000"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body == b"mullama_up 1\n"
    server.runtime.manifest = manifest(observability={"metrics": False})
    assert server.ask("GET", "/metrics").status == 404


def test_status_stack_and_history_are_the_operators(server: RunningServer) -> None:
    assert server.ask("GET", "/api/v1/status").json["format"] == "mullama.status/1"
    stack = server.ask("GET", "/api/v1/stack")
    assert (stack.json["revision"], stack.headers["etag"]) == ("abc", '"abc"')
    assert server.ask("GET", "/api/v1/history").json == {"generations": [{"generation": 7}]}
    found = server.ask("GET", "/api/v1/history/diff?before=3&after=5").json
    assert (found["before"], found["after"]) == (3, 5)


@pytest.mark.parametrize("query", ["", "?before=1", "?before=1&after=x", "?before=-1&after=2", "?before=1&after=2&c=3"])
def test_a_comparison_without_two_revisions_is_refused(server: RunningServer, query: str) -> None:
    assert server.ask("GET", f"/api/v1/history/diff{query}").status == 400


def test_a_model_has_a_document_which_names_places_to_administrators_alone(server: RunningServer) -> None:
    assert server.ask("GET", "/api/v1/models/hf.co/a/b:Q4").json == {"model": {"name": "hf.co/a/b:Q4"}, "paths": True}
    assert server.ask("GET", "/api/v1/logs/worker/a/log").json["lines"] == ["a/log"]
    server.runtime.keys = (key("look", "view", "read"),)
    bearer = {"authorization": "Bearer view"}
    try:
        assert server.ask("GET", "/api/v1/models/a", headers=bearer).json["paths"] is False
        assert server.ask("GET", "/api/v1/logs/worker/a", headers=bearer).status == 403
    finally:
        server.runtime.keys = ()


def test_a_plan_passes_the_manifest_its_origin_and_the_options_on(server: RunningServer) -> None:
    options = {"allow_empty": True, "expect": "r", "by": "me"}
    body = {"manifest": {"mullama": "v1"}, "origin": {"path": "/m.yaml"}, "options": options}
    answer = server.ask("POST", "/api/v1/plan", body)
    assert (answer.status, answer.json["format"]) == (200, "mullama.plan/1")
    assert server.runtime.seen[-1][:2] == ({"mullama": "v1"}, Origin(path="/m.yaml"))
    assert server.runtime.seen[-1][2] == ApplyOptions(allow_empty=True, expect="r", by="me", trigger="api")


def test_targets_are_a_list_of_names(server: RunningServer) -> None:
    assert server.ask("POST", "/api/v1/plan", {"manifest": {}, "options": {"targets": ["a", "b"]}}).status == 200
    assert server.runtime.seen[-1][2].targets == ("a", "b")
    for wrong in ("a", [1], None):
        answer = server.ask("POST", "/api/v1/plan", {"manifest": {}, "options": {"targets": wrong}})
        assert (answer.status, "options.targets cannot be" in answer.json["error"]["message"]) == (400, True)


def test_the_author_of_a_change_is_the_key_unless_the_request_names_one(server: RunningServer) -> None:
    digest = hashlib.sha256(b"boss").digest()
    server.runtime.keys = (KeyRecord(name="ops", sha256=digest, models=(), roles=("admin",), priority=0),)
    bearer = {"authorization": "Bearer boss"}
    try:
        for by in ({}, {"by": "ann"}):
            server.ask("PUT", "/api/v1/stack", {"manifest": {}, "options": by}, headers=bearer)
            server.ask("POST", "/api/v1/undo", by, headers=bearer)
    finally:
        server.runtime.keys = ()
    put, undone, named, again = server.runtime.seen[-4:]
    assert (put[2].by, undone[1].by, named[2].by, again[1].by) == ("ops", "ops", "ann", "ann")


def test_an_apply_streams_its_progress(server: RunningServer) -> None:
    server.runtime.lines = ({"event": "phase", "phase": "load"}, {"event": "result", "outcome": "applied"})
    origin = {"path": "/m.yaml", "profiles": ["gpu"], "digest": "d"}
    body = {"manifest": {}, "origin": origin, "options": {"trigger": "apply"}}
    answer = server.ask("PUT", "/api/v1/stack", body)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.lines == list(server.runtime.lines)
    assert server.runtime.seen[-1][1:] == (
        Origin(path="/m.yaml", profiles=("gpu",), digest="d"),
        ApplyOptions(trigger="apply"),
    )


def test_progress_is_sent_line_by_line() -> None:
    runtime = StubRuntime(
        lines=({"event": "phase", "phase": "load"}, "gate", {"event": "result", "outcome": "applied"})
    )
    with running_server(runtime) as server, server.connect() as connection:
        connection.sendall(request("/api/v1/stack", {"manifest": {}}, "PUT"))
        read_until(connection, b'"load"}\n')
        server.open_gate("gate")
        read_until(connection, b'"outcome":"applied"}\n')


def test_if_match_must_be_the_applied_revision(server: RunningServer) -> None:
    stale = server.ask("PUT", "/api/v1/stack", {"manifest": {}}, {"if-match": '"old"'})
    assert (stale.status, stale.json["error"]["kind"]) == (412, "conflict")
    assert server.runtime.seen == []
    fresh = server.ask("PUT", "/api/v1/stack", {"manifest": {}}, {"if-match": '"abc"'})
    assert fresh.status == 200
    assert server.runtime.seen[-1][2].expect == "abc"


def test_an_error_before_the_first_line_is_a_status_with_all_its_problems(server: RunningServer) -> None:
    place = Location(file="m.yaml", line=3, column=5)
    problem = Problem(path="models.x", place=place, message="no such source", hint="look")
    server.runtime.lines = (ManifestError((problem,)),)
    answer = server.ask("PUT", "/api/v1/stack", {"manifest": {}})
    assert answer.status == 400
    assert answer.json["error"]["problems"] == [
        {"path": "models.x", "file": "m.yaml", "line": 3, "column": 5, "message": "no such source", "hint": "look"}
    ]


@pytest.mark.parametrize(
    ("error", "kind", "shown"),
    [(TransferFailed("hub is down"), "transfer", True), (ZeroDivisionError("inner"), "internal", False)],
)
def test_an_error_after_the_first_line_is_the_last_line(
    server: RunningServer, error: Exception, kind: str, shown: bool
) -> None:
    server.runtime.lines = ({"event": "phase", "phase": "fetch"}, error)
    lines = server.ask("PUT", "/api/v1/stack", {"manifest": {}}).lines
    assert lines[-1]["event"] == "error"
    assert lines[-1]["error"]["kind"] == kind
    assert (str(error) in str(lines[-1])) == shown


def test_an_apply_without_a_result_is_an_error(server: RunningServer) -> None:
    server.runtime.lines = ()
    assert server.ask("PUT", "/api/v1/stack", {"manifest": {}}).status == 500


def test_an_undo_takes_a_revision_or_none(server: RunningServer) -> None:
    assert server.ask("POST", "/api/v1/undo", {"to": 3}).lines == [{"event": "result", "outcome": "applied"}]
    server.ask("POST", "/api/v1/undo", {"by": "ann"})
    assert server.runtime.seen == [(3, UNDO, ""), (None, replace(UNDO, by="ann"), "")]


def test_a_controller_leaves_the_record_of_a_rollout_under_its_fence(server: RunningServer) -> None:
    assert server.ask("GET", "/api/v1/fleet/rollout").json == {"rollout": None}
    assert server.ask("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "fence": 2}).status == 409
    kept = server.ask("PUT", "/api/v1/fleet/rollout", ROLLOUT).json
    assert {name: kept["rollout"][name] for name in ("fleet", "began", "ended", "pause")} == {
        "fleet": "prod", "began": 1.0, "ended": None, "pause": None,
    }  # fmt: skip
    assert kept["rollout"]["hosts"]["a"]["state"] == "running"
    assert server.ask("GET", "/api/v1/fleet/rollout").json == kept
    assert server.ask("GET", "/api/v1/fleet").json["format"] == "mullama.fleet-view/1"


def test_a_fleet_takes_and_releases_the_lease_and_changes_under_its_fence(server: RunningServer) -> None:
    asked = LeaseRequest(holder="ann", fleet="prod", seconds=30.0, fence=4)

    assert server.ask("GET", "/api/v1/fleet/lease").json == {"fence": 3, "lease": None}
    server.ask("PUT", "/api/v1/fleet/lease", LEASE)
    server.ask("PUT", "/api/v1/stack", {"manifest": {}, "options": {"fence": 4}})
    server.ask("POST", "/api/v1/undo", {"fence": 4}, headers={"if-match": '"abc"'})
    server.ask("DELETE", "/api/v1/fleet/lease", {"holder": "ann"})

    for method, path, body in (
        ("PUT", "/api/v1/stack", {"manifest": {}, "options": {"fence": 2}}),
        ("POST", "/api/v1/undo", {"fence": 2}),
    ):
        assert server.ask(method, path, body).status == 409
    taken, applied, undone, released = server.runtime.seen
    assert (taken, applied[2].fence, undone[1], released) == (asked, 4, replace(UNDO, fence=4, expect="abc"), "ann")
    assert server.ask("POST", "/api/v1/undo", {}, headers={"if-match": '"old"'}).status == 412


@pytest.mark.parametrize("by", [1, None, [], "x" * 201, "a\nb", "\x1b[31m"])
def test_an_author_is_a_short_line_of_text(server: RunningServer, by: object) -> None:
    assert server.ask("POST", "/api/v1/undo", {"by": by}).status == 400
    assert server.ask("PUT", "/api/v1/stack", {"manifest": {}, "options": {"by": by}}).status == 400
    assert server.runtime.seen == []


def test_drift_is_read_and_recorded(server: RunningServer) -> None:
    assert server.ask("GET", "/api/v1/drift").json["format"] == "mullama.plan/1"
    assert server.ask("POST", "/api/v1/refresh", {}).json["format"] == "mullama.plan/1"
    assert server.ask("POST", "/api/v1/refresh", {"x": 1}).status == 400
    assert server.runtime.seen == ["drift", "refresh"]


def test_a_reload_returns_its_result(server: RunningServer) -> None:
    assert server.ask("POST", "/api/v1/reload", {}).json["changed"] is False
    assert server.ask("POST", "/api/v1/reload").status == 200


def test_a_shutdown_answers_before_it_begins(server: RunningServer) -> None:
    answer = server.ask("POST", "/api/v1/shutdown", {})
    assert (answer.status, answer.json) == (202, {"stopping": True, "pid": os.getpid()})
    assert server.runtime.stopped.wait(60)


def test_events_follow_after_an_id(server: RunningServer) -> None:
    for extra, first in (("?after=4", 5), ("", 1)):
        with server.connect() as connection:
            connection.sendall(request(f"/api/v1/events{extra}", None, "GET"))
            seen = read_until(connection, b'"first"}\n\n')
            assert f"id: {first}\n".encode() in seen
            assert b"content-type: text/event-stream" in seen
    with server.connect() as connection:
        connection.sendall(request("/api/v1/events", None, "GET", "Last-Event-ID: 8"))
        read_until(connection, b"id: 9\n")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/api/v1/plan", {}, "manifest"),
        ("POST", "/api/v1/plan", {"manifest": []}, "manifest"),
        ("POST", "/api/v1/plan", {"manifest": {}, "option": {}}, "option"),
        ("POST", "/api/v1/plan", {"manifest": {}, "options": {"allow_emty": True}}, "allow_emty"),
        ("POST", "/api/v1/plan", {"manifest": {}, "options": {"allow_empty": 1}}, "allow_empty"),
        ("POST", "/api/v1/plan", {"manifest": {}, "options": {"expect": 1}}, "expect"),
        ("POST", "/api/v1/plan", {"manifest": {}, "options": {"trigger": "cron"}}, "trigger"),
        ("POST", "/api/v1/plan", {"manifest": {}, "options": []}, "options"),
        ("PUT", "/api/v1/stack", {"manifest": {}, "origin": {"path": 1}}, "path"),
        ("PUT", "/api/v1/stack", {"manifest": {}, "origin": {"profiles": "gpu"}}, "profiles"),
        ("PUT", "/api/v1/stack", {"manifest": {}, "origin": {"digest": None}}, "digest"),
        ("POST", "/api/v1/undo", {"to": "3"}, "to"),
        ("POST", "/api/v1/undo", {"to": True}, "to"),
        ("POST", "/api/v1/undo", {"fence": 0}, "fence"),
        ("POST", "/api/v1/undo", {"fleet": 1}, "fleet"),
        ("PUT", "/api/v1/stack", {"manifest": {}, "origin": {"fleet": "a\nb"}}, "fleet"),
        ("PUT", "/api/v1/stack", {"manifest": {}, "options": {"fence": True}}, "fence"),
        ("PUT", "/api/v1/fleet/lease", {**LEASE, "seconds": 0}, "seconds"),
        ("PUT", "/api/v1/fleet/lease", {**LEASE, "seconds": 1e9}, "seconds"),
        ("PUT", "/api/v1/fleet/lease", {**LEASE, "fence": 0}, "fence"),
        ("PUT", "/api/v1/fleet/lease", {**LEASE, "holder": ""}, "holder"),
        ("PUT", "/api/v1/fleet/lease", {**LEASE, "fleet": None}, "fleet"),
        ("PUT", "/api/v1/fleet/lease", {**LEASE, "hodler": ""}, "hodler"),
        ("DELETE", "/api/v1/fleet/lease", {}, "holder"),
        ("GET", "/api/v1/fleet?hosts=a", None, "hosts"),
        ("PUT", "/api/v1/fleet/rollout", {}, "fleet"),
        ("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "holdr": ""}, "holdr"),
        ("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "fence": 0}, "fence"),
        ("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "ended": "soon"}, "ended"),
        ("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "pause": "long"}, "pause"),
        ("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "hosts": {"a": {"url": "http://a", "state": "well"}}}, "state"),
        ("PUT", "/api/v1/fleet/rollout", {**ROLLOUT, "hosts": dict.fromkeys(map(str, range(101)), A)}, "hosts"),
        ("POST", "/api/v1/shutdown", {"force": True}, "force"),
        ("POST", "/api/v1/reload", {"now": True}, "now"),
        ("GET", "/api/v1/events?after=x", None, "after"),
        ("GET", "/api/v1/events?after=-1", None, "after"),
    ],
)
def test_a_body_that_is_wrong_is_a_400_that_names_the_field(
    server: RunningServer, method: str, path: str, body: Any, field: str
) -> None:
    answer = server.ask(method, path, body)
    assert (answer.status, answer.json["error"]["kind"]) == (400, "invalid")
    assert field in answer.json["error"]["message"]
    assert not server.runtime.stopped.is_set()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/plan", {"manifest": {}}, 200),
        ("GET", "/api/v1/status", None, 200),
        ("GET", "/api/v1/history", None, 200),
        ("GET", "/api/v1/history/diff?before=1&after=2", None, 200),
        ("PUT", "/api/v1/stack", {"manifest": {}}, 403),
        ("POST", "/api/v1/reload", {}, 403),
        ("GET", "/api/v1/drift", None, 200),
        ("POST", "/api/v1/refresh", {}, 403),
        ("POST", "/api/v1/undo", {}, 403),
        ("GET", "/api/v1/fleet", None, 200),
        ("GET", "/api/v1/fleet/rollout", None, 200),
        ("PUT", "/api/v1/fleet/rollout", {}, 403),
        ("GET", "/api/v1/fleet/lease", None, 200),
        ("PUT", "/api/v1/fleet/lease", {}, 403),
        ("DELETE", "/api/v1/fleet/lease", {}, 403),
        ("POST", "/api/v1/shutdown", {}, 403),
    ],
)
def test_a_read_key_plans_and_changes_nothing(
    server: RunningServer, method: str, path: str, body: Any, status: int
) -> None:
    digest = hashlib.sha256(b"look").digest()
    server.runtime.keys = (KeyRecord(name="ci", sha256=digest, models=(), roles=("read",), priority=0),)
    try:
        answer = server.ask(method, path, body, headers={"authorization": "Bearer look"})
    finally:
        server.runtime.keys = ()
    assert answer.status == status


@pytest.mark.parametrize(
    ("query", "ids"),
    [("", [2, 1]), ("?result=error", [2]), ("?model=b", [1]), ("?key=ci&model=a", [2]), ("?key=none", [])],
)
def test_captured_requests_are_filtered(server: RunningServer, query: str, ids: list[int]) -> None:
    rows = server.ask("GET", f"/api/v1/requests{query}").json["requests"]
    assert [row["id"] for row in rows] == ids


@pytest.mark.parametrize(
    ("path", "status"), [("/2", 200), ("/3", 404), ("/x", 400), ("?result=bad", 400), ("?colour=red", 400)]
)
def test_one_captured_request(server: RunningServer, path: str, status: int) -> None:
    assert server.ask("GET", f"/api/v1/requests{path}").status == status


@pytest.mark.parametrize(
    ("since", "begins"),
    [("7d", 1e9 - 7 * 86400), ("never", 0.0), ("5", 5.0), ("99999999999999999999", 253_402_300_800.0)],
)
def test_the_beginning_of_usage_is_a_time_that_a_database_holds(since: str, begins: float) -> None:
    assert read_usage({"since": since}, 1e9).since == begins
