"""API keys: roles and classes of routes, comparison of secrets, limits on guessing."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

import pytest

from mullama.dialects import DIALECTS
from mullama.errors import Busy, Denied
from mullama.runtime.base import KeyRecord
from mullama.server import keys
from mullama.server.app import create_app
from mullama.server.keys import Failures, credentials_of, find_key, match_key, may
from mullama.server.route_table import AccessClass
from mullama.struct import replace
from tests.server.server_fixture import (
    CHAT,
    RunningServer,
    StubRuntime,
    key,
    read_until,
    request,
    running_server,
)

KEYS = (
    key("user", "u-secret", "infer"),
    key("watcher", "w-secret", "read"),
    key("boss", "b-secret", "admin"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(StubRuntime(keys=KEYS)) as running:
        yield running


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    ("headers", "secrets"),
    [
        ({"authorization": "Bearer abc"}, ("abc",)),
        ({"authorization": "bearer  abc "}, ("abc",)),
        ({"x-api-key": "abc"}, ("abc",)),
        ({"api-key": "abc"}, ("abc",)),
        ({"authorization": "Bearer abc", "x-api-key": "xyz", "api-key": "uvw"}, ("abc", "xyz", "uvw")),
        ({"authorization": "Bearer abc", "x-api-key": "abc"}, ("abc",)),
        ({"authorization": "Bearer old, Bearer new"}, ("old, Bearer new", "old", "new")),
        ({"authorization": "Bearer with,comma"}, ("with,comma", "with")),
        ({"authorization": "Basic abc, Bearer new"}, ("new",)),
        ({"x-api-key": "old, new"}, ("old, new", "old", "new")),
        ({"authorization": "Basic abc", "x-api-key": "xyz"}, ("xyz",)),
        ({"authorization": "Bearer ", "x-api-key": "xyz"}, ("xyz",)),
        ({"authorization": "abc"}, ()),
        ({"x-api-key": ""}, ()),
        ({}, ()),
    ],
)
def test_the_credentials_are_bearer_tokens_and_api_keys(headers: dict[str, str], secrets: tuple[str, ...]) -> None:
    assert credentials_of(headers) == secrets


def test_a_bounded_number_of_credentials_is_compared() -> None:
    many = ", ".join(f"Bearer {n}" for n in range(1000))
    assert credentials_of({"authorization": many})[1:] == tuple(map(str, range(7)))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer old", "x-api-key": "u-secret"},
        {"authorization": "Bearer u-secret", "x-api-key": "old"},
        {"authorization": "Bearer old", "api-key": "u-secret"},
        {"x-api-key": "old", "api-key": "u-secret"},
        {"authorization": "Bearer old, Bearer u-secret"},
        {"x-api-key": "old, u-secret"},
        {"authorization": "Basic dTpw", "x-api-key": "u-secret"},
    ],
)
def test_any_valid_credential_serves_however_often_others_fail(headers: dict[str, str]) -> None:
    failures = Failures(3, Clock())
    for _ in range(10):
        assert find_key(headers, KEYS, "192.0.2.1", failures, "infer").name == "user"
    assert len(failures) == 0, "a request with a valid credential is no failure"


def test_every_key_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    for secret, name in (("u-secret", "user"), ("b-secret", "boss"), ("wrong", None)):
        compared.clear()
        found = match_key(secret, KEYS)
        assert (found.name if found else None) == name
        assert compared == [k.sha256 for k in KEYS]


@pytest.mark.parametrize(
    ("roles", "opens"),
    [
        ((), {"public"}),
        (("infer",), {"public", "infer"}),
        (("read",), {"public", "read"}),
        (("admin",), {"public", "infer", "read", "admin"}),
        (("infer", "read"), {"public", "infer", "read"}),
    ],
)
def test_a_role_opens_its_class_and_admin_opens_all(roles: tuple[str, ...], opens: set[str]) -> None:
    assert {c for c in ("public", "infer", "read", "admin") if may(roles, c)} == opens  # type: ignore[arg-type]


def test_every_route_has_a_class_and_is_closed_to_strangers(server: RunningServer) -> None:
    """Request every route without a key, with a wrong key, and with each key."""
    seen = 0
    for route in server.app.routes:
        path = route.path.replace("{digest}", "sha256:0").replace(":path}", "}").replace("{", "").replace("}", "")
        if route.access == "public":
            continue
        seen += 1
        anonymous = server.ask(route.method, path)
        assert anonymous.status == 401, (route.method, path)
        assert anonymous.headers["www-authenticate"].startswith("Bearer")
        if path in ("/api/v1/shutdown", "/api/v1/events", "/api/v1/live", "/api/v1/logs/events"):
            continue  # the first would end the server, the others do not end by themselves
        for holder in KEYS:
            answer = server.ask(route.method, path, headers=bearer(f"{holder.name[0]}-secret"))
            refused = not may(holder.roles, route.access)
            assert (answer.status == 403) == refused, (route.method, path, holder.name)
            assert not refused or b":path" not in answer.body, "a path is named as in the reference"
    assert seen > 30


def test_a_route_without_a_class_fails_when_the_app_is_made() -> None:
    ollama = DIALECTS["ollama"]
    open_ended = replace(ollama.endpoints[0], access="whatever")  # type: ignore[arg-type]
    broken = {"ollama": replace(ollama, endpoints=(open_ended,))}
    runtime = StubRuntime()
    with pytest.raises(ValueError, match="has no class of access"):
        create_app(runtime, runtime, broken)


def test_public_routes_need_no_key(server: RunningServer) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/health", "/v1/health", "/openapi.json"):
        assert server.ask("GET", path).status == 200


def test_a_public_route_gives_a_stranger_no_rights() -> None:
    """A public route of a dialect is served to a caller without rights."""
    ollama = DIALECTS["ollama"]
    tags = next(e for e in ollama.endpoints if e.path == "/api/tags" and e.method == "GET")
    opened = {"ollama": replace(ollama, endpoints=(replace(tags, access="public"),))}
    with running_server(StubRuntime(keys=KEYS), dialects=opened) as server:
        assert server.ask("GET", "/api/tags").status == 200
        caller = server.runtime.callers[-1]
        assert (caller.roles, caller.models, caller.key) == ((), (), None)


def test_an_error_of_a_key_has_the_shape_of_the_api(server: RunningServer) -> None:
    assert server.ask("POST", "/v1/chat/completions", CHAT).json["error"]["code"] == "invalid_api_key"
    claude = server.ask("POST", "/v1/messages", CHAT, {"x-api-key": "u-secret-not"})
    assert claude.json["error"]["type"] == "authentication_error"
    assert isinstance(server.ask("POST", "/api/chat", CHAT).json["error"], str)
    assert server.ask("PUT", "/api/v1/stack", {}, bearer("u-secret")).json["error"]["kind"] == "denied"


def test_the_service_gets_the_caller(server: RunningServer) -> None:
    server.ask("POST", "/v1/chat/completions", CHAT, bearer("u-secret"))
    caller = server.runtime.callers[-1]
    assert (caller.dialect, caller.key, caller.roles) == ("openai", "user", ("infer",))


def test_without_declared_keys_any_key_is_ignored() -> None:
    with running_server() as server:
        answer = server.ask("POST", "/v1/chat/completions", CHAT, bearer("whatever"))
        assert answer.status == 200
        assert server.runtime.callers[-1].roles == ("infer", "admin", "read", "files")


def test_new_keys_count_from_the_next_request_on(server: RunningServer) -> None:
    assert server.ask("GET", "/v1/models", headers=bearer("late")).status == 401
    server.runtime.keys = (*KEYS, key("late", "late", "infer"))
    try:
        assert server.ask("GET", "/v1/models", headers=bearer("late")).status == 200
    finally:
        server.runtime.keys = KEYS


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def outcome(secret: str, failures: Failures, address: str = "192.0.2.1") -> str | float:
    """Return the name of the key, "denied", or the seconds to wait."""
    try:
        return find_key(bearer(secret), KEYS, address, failures, "infer").name
    except Denied:
        return "denied"
    except Busy as error:
        return (error.limited and error.retry_after) or 0.0


def test_a_wrong_key_that_is_sent_again_and_again_must_wait_for_itself_only() -> None:
    clock = Clock()
    failures = Failures(20, clock)
    for _ in range(20):
        assert outcome("old", failures) == "denied"
        clock.now += 1
    assert outcome("old", failures) == 40.0
    assert outcome("old", failures, "192.0.2.2") == "denied"
    assert outcome("another", failures) == "denied"
    assert outcome("u-secret", failures) == "user"
    clock.now += 40
    assert outcome("old", failures) == "denied"


def test_different_wrong_keys_from_one_address_count_together() -> None:
    clock = Clock()
    failures = Failures(20, clock)
    for n in range(20):
        assert outcome(f"guess{n}", failures) == "denied"
        clock.now += 1
    assert outcome("guess20", failures) == 40.0
    assert outcome("guess3", failures) == "denied", "it is known already"
    assert outcome("guess20", failures, "192.0.2.2") == "denied"
    assert outcome("u-secret", failures) == "user"
    clock.now += 40
    assert outcome("guess20", failures) == "denied"


@pytest.mark.parametrize(("access", "name"), [("infer", "user"), ("read", "watcher"), ("admin", "user")])
def test_of_two_valid_keys_the_one_with_the_right_is_used(access: AccessClass, name: str) -> None:
    both = {**bearer("u-secret"), "x-api-key": "w-secret"}
    assert find_key(both, KEYS, "192.0.2.1", Failures(1, Clock()), access).name == name


def test_a_missing_key_is_not_a_guess() -> None:
    failures = Failures(1, Clock())
    for _ in range(5):
        with pytest.raises(Denied):
            find_key({}, KEYS, "192.0.2.1", failures, "infer")
    assert find_key(bearer("u-secret"), KEYS, "192.0.2.1", failures, "infer").name == "user"


def test_one_network_of_ipv6_counts_as_one_address() -> None:
    failures = Failures(2, Clock())
    for address in ("2001:db8::1", "2001:db8::2"):
        failures.add(address, address)
    with pytest.raises(Busy):
        failures.add("2001:db8::ffff", "x")
    failures.add("2001:db8:0:1::1", "x")


def test_the_limiter_remembers_a_bounded_number_of_addresses() -> None:
    failures = Failures(2, Clock())
    for n in range(12_000):
        failures.add(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "old")
    assert len(failures) == 10_000


def test_guessing_over_http_ends_in_429_and_a_valid_key_is_served() -> None:
    with running_server(StubRuntime(keys=KEYS)) as server:
        guesses = [server.ask("GET", "/v1/models", headers=bearer(f"guess{n}")) for n in range(22)]
        assert [answer.status for answer in guesses] == [401] * 20 + [429] * 2
        assert 0 < int(guesses[-1].headers["retry-after"]) <= 60
        assert server.ask("GET", "/v1/models", headers=bearer("u-secret")).status == 200
        both = {**bearer("guess0"), "x-api-key": "u-secret"}
        assert server.ask("GET", "/v1/models", headers=both).status == 200


@pytest.mark.parametrize(
    ("now", "further"),
    [
        ((key("renamed", "w-secret", "read"), key("boss", "b-secret", "admin")), True),
        ((key("watcher", "w-secret", "infer"), key("boss", "b-secret", "admin")), False),
        ((key("boss", "b-secret", "admin"),), False),
        ((), True),
    ],
    ids=["renamed", "role lost", "revoked", "no keys"],
)
def test_an_open_stream_of_a_key_ends_with_its_rights(now: tuple[KeyRecord, ...], further: bool) -> None:
    runtime = StubRuntime(keys=KEYS)
    with running_server(runtime) as server, server.connect() as page:
        page.sendall(request("/api/v1/live", None, "GET", "Authorization: Bearer w-secret"))
        read_until(page, b"id: 1\n")
        runtime.keys = now
        server.open_gate("more")
        assert (b"id: 2\n" in read_until(page, b"0\r\n\r\n")) is further


def test_an_open_stream_without_a_key_ends_with_the_first_key() -> None:
    runtime = StubRuntime()
    with running_server(runtime) as server, server.connect() as page:
        page.sendall(request("/api/v1/live", None, "GET"))
        read_until(page, b"id: 1\n")
        runtime.keys = KEYS
        server.open_gate("more")
        assert b"id: 2\n" not in read_until(page, b"0\r\n\r\n")
