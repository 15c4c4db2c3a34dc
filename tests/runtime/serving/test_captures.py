"""Captured requests: their content, their bound, and what is never kept."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.errors import Invalid, NotFound
from mullama.manifest.spec import Captures
from mullama.runtime.base import MadeCall, SentRequest
from mullama.runtime.serving.captures import CaptureLog
from mullama.struct import replace
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of

pytestmark = pytest.mark.anyio


def declared(**fields: Any) -> Captures:
    return Captures.model_validate(fields)


def capture(
    log: CaptureLog, prompt: str = "p", answer: str = "a", error: BaseException | None = None, body: bytes = b"{}"
) -> None:
    caller = replace(CALLER, sent=SentRequest(path="/v1/completions?a=1", body=body)) if body else CALLER
    recording = log.begin(chat.CompletionRequest(model="m", prompts=(prompt,)), caller, 7)
    if recording is not None:
        recording.take([chat.TextDelta(text=answer), chat.Finished(reason="stop")])
        recording.end(error, model="m", prompt=prompt, usage=chat.Usage(prompt_tokens=3, completion_tokens=1))


def test_nothing_is_captured_unless_it_is_declared() -> None:
    log = CaptureLog(lambda: None)
    capture(log)
    assert log.list() == ()


@pytest.mark.parametrize(
    ("bodies", "error", "kept"),
    [
        ("all", None, True),
        ("all", Invalid("x"), True),
        ("errors", None, False),
        ("errors", Invalid("x"), True),
        ("errors", GeneratorExit(), False),
        ("none", Invalid("x"), False),
    ],
)
def test_texts_are_kept_as_declared(bodies: str, error: BaseException | None, kept: bool) -> None:
    log = CaptureLog(lambda: declared(bodies=bodies))
    capture(log, "the prompt", "the answer", error)
    (found,) = log.list()
    assert (found.prompt, found.answer) == (("the prompt", "the answer") if kept else (None, None))
    assert found.tree(texts=False)["kept"] is kept
    assert "prompt" not in found.tree(texts=False)


@pytest.mark.parametrize(
    ("error", "result", "shown"),
    [(None, "ok", None), (Invalid("no"), "error", ("invalid", "no")), (GeneratorExit(), "cancelled", None)],
)
def test_the_result_says_how_it_ended(error: BaseException | None, result: str, shown: tuple[str, str] | None) -> None:
    log = CaptureLog(declared)
    capture(log, error=error)
    assert (log.list()[0].result, log.list()[0].error) == (result, shown)


def test_the_oldest_are_dropped_beyond_the_bound_and_long_texts_keep_their_end() -> None:
    log = CaptureLog(lambda: declared(size="64KiB", bodies="all"))
    for number in range(50):
        capture(log, f"{number} " + "x" * 2000, "y")
    kept = log.list()
    assert 1 < len(kept) < 10
    assert [found.id for found in kept] == list(range(50, 50 - len(kept), -1))

    capture(log, "x" * 100_000 + "end", "y" * 100_000)
    assert log.list()[0].id == 51
    prompt = log.list()[0].prompt or ""
    assert prompt.startswith("…x")
    assert prompt.endswith("end")


def made(text: str) -> MadeCall:
    return MadeCall(server="docs", name="read", arguments={"q": 1}, text=text, is_error=False, seconds=0.5)


@pytest.mark.parametrize(("bodies", "text"), [("all", "see https://***@example.org/x"), ("errors", "")])
def test_calls_are_added_to_the_turn_that_asked_for_them(bodies: str, text: str) -> None:
    log = CaptureLog(lambda: declared(bodies=bodies))
    capture(log)
    capture(log)
    log.add_calls("test", 0, [made("see https://user:secret@example.org/x")])
    log.add_calls("test", 1, [made("of another turn")])
    log.add_calls("other", 0, [made("of another request")])
    last, first = log.list()
    assert [call.text for call in last.calls] == [text]
    assert first.calls == ()


def test_calls_count_for_the_bound() -> None:
    log = CaptureLog(lambda: declared(size="64KiB", bodies="all"))
    for _ in range(5):
        capture(log, "x" * 1000)
    log.add_calls("test", 0, [made("y" * 4000)] * 3)
    assert [found.id for found in log.list()] == [5, 4]


def test_secrets_in_addresses_are_masked() -> None:
    log = CaptureLog(lambda: declared(bodies="all"))
    capture(log, "see https://user:secret@example.org/x")
    assert log.list()[0].prompt == "see https://***@example.org/x"


def test_removing_the_block_forgets_what_was_captured() -> None:
    block: list[Captures | None] = [declared()]
    log = CaptureLog(lambda: block[0])
    capture(log)
    block[0] = None
    assert log.list() == ()
    capture(log)
    block[0] = declared()
    assert log.list() == ()


def test_a_request_is_kept_whole_to_be_sent_again() -> None:
    log = CaptureLog(lambda: declared(bodies="all"))
    capture(log, body='{"prompt": "é"}'.encode())
    tree = log.list()[0].tree(texts=True)
    assert (tree["path"], tree["body"], tree["omitted"]) == ("/v1/completions?a=1", '{"prompt": "é"}', "")
    assert (tree["generation"], tree["masked"]) == (7, False)
    assert "body" not in log.list()[0].tree(texts=False)


@pytest.mark.parametrize(
    ("bodies", "body", "reason"),
    [
        ("errors", b"{}", "observability.captures.bodies"),
        ("all", b"", "no body of its own"),
        ("all", b"x" * 20_000, "keeps at most 16"),
    ],
)
def test_a_request_without_its_body_has_the_reason(bodies: str, body: bytes, reason: str) -> None:
    log = CaptureLog(lambda: declared(bodies=bodies, size="64KiB"))
    capture(log, body=body)
    (found,) = log.list()
    assert (found.body, found.path) == (None, None)
    assert reason in found.omitted


def test_a_kept_body_shows_no_secret_of_an_address_and_says_so() -> None:
    log = CaptureLog(lambda: declared(bodies="all"))
    capture(log, body=b'{"url": "https://user:secret@example.org/x"}')
    tree = log.list()[0].tree(texts=True)
    assert (tree["body"], tree["masked"]) == ('{"url": "https://***@example.org/x"}', True)


async def test_followers_get_old_and_new_captures_without_their_texts() -> None:
    log = CaptureLog(lambda: declared(bodies="all"))
    capture(log)
    seen = []
    async for row in log.follow(0):
        seen.append(row["id"])
        assert "prompt" not in row
        if len(seen) == 3:
            break
        capture(log)
    assert seen == [1, 2, 3]


async def test_a_request_to_a_real_worker_is_captured_with_its_rendered_prompt(server: LocalServer) -> None:
    blocks = {"observability": {"captures": {"bodies": "all"}}}
    await server.apply({"a": {"from": server.script("a")}}, **blocks)
    answer = await server.service.answer(request_of("a", "say yes"), CALLER)
    assert isinstance(answer, chat.Answer)

    (row,) = server.operator.captures()
    whole = server.operator.capture(row["id"])

    assert "say yes" in whole["prompt"]
    assert whole["answer"] == answer.choices[0].text
    assert whole["usage"]["completion_tokens"] == answer.usage.completion_tokens
    assert (row["model"], row["result"], row["request"]) == ("a", "ok", "test")
    assert 0 <= row["first_token"] <= row["seconds"]
    with pytest.raises(NotFound, match="there is no capture 99"):
        server.operator.capture(99)
