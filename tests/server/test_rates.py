"""Rate limits over HTTP: a refused request is answered in its dialect before any work, with the rate headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mullama.dialects.rate_limits import RateReport, RateWindow
from mullama.errors import Busy
from mullama.runtime.base import Admission
from tests.official_clients import anthropic, openai
from tests.server.server_fixture import RunningServer, StubRuntime, running_server

REPORT = RateReport(
    requests=RateWindow(limit=60, remaining=0, reset=59.5), tokens=RateWindow(limit=1000, remaining=7, reset=0.02)
)
REFUSED = Admission(report=REPORT, refusal=Busy("used up", hint="wait", retry_after=12.2, limited=True))
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
OPENAI = {
    "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "59.5s",
    "x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "20ms",
}  # fmt: skip


@pytest.fixture(scope="module")
def limited() -> Iterator[RunningServer]:
    with running_server(StubRuntime(admission=REFUSED)) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v1/chat/completions", CHAT, {"type": "rate_limit_error", "code": "rate_limit_exceeded"}),
        ("/v1/chat/completions", {**CHAT, "stream": True}, {"type": "rate_limit_error"}),
        ("/v1/embeddings", {"model": "tiny", "input": "x"}, {"type": "rate_limit_error"}),
        ("/v1/messages", CHAT, {"type": "rate_limit_error"}),
        ("/v1/messages/count_tokens", CHAT, {"type": "rate_limit_error"}),
        ("/api/chat", CHAT, "used up (wait)"),
        ("/tokenize", {"model": "tiny", "content": "x"}, {"type": "rate_limit_error"}),
    ],
)
def test_a_refused_request_gets_429_in_its_dialect(
    path: str, body: dict[str, Any], error: Any, limited: RunningServer
) -> None:
    limited.runtime.seen.clear()
    answer = limited.ask("POST", path, body)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "13"
    shown = answer.json["error"]
    assert shown == error if isinstance(error, str) else error.items() <= shown.items()
    if path.startswith("/v1/messages"):
        assert answer.headers["anthropic-ratelimit-tokens-remaining"] == "7"
        assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    else:
        assert OPENAI.items() <= answer.headers.items()
    assert limited.runtime.seen == []


def test_an_accepted_request_has_the_headers_also_as_a_stream() -> None:
    runtime = StubRuntime(admission=Admission(report=REPORT))
    with running_server(runtime) as server:
        for stream in (False, True):
            answer = server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": stream})
            assert answer.status == 200
            assert OPENAI.items() <= answer.headers.items()


def test_a_list_of_models_is_not_limited(limited: RunningServer) -> None:
    assert limited.ask("GET", "/v1/models").status == 200
    assert limited.ask("POST", "/api/show", {"model": "tiny"}).status == 200


def test_the_official_clients_know_the_limit(limited: RunningServer) -> None:
    url = f"http://127.0.0.1:{limited.port}"
    gpt = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    with gpt, pytest.raises(openai.RateLimitError) as refused:
        gpt.chat.completions.create(**CHAT)
    assert refused.value.response.headers["x-ratelimit-limit-tokens"] == "1000"
    claude = anthropic.Anthropic(base_url=url, api_key="x", max_retries=0)
    with claude, pytest.raises(anthropic.RateLimitError):
        claude.messages.create(**CHAT)
