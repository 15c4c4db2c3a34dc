"""Captured requests: their content, their bound, and what is never kept."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.errors import Invalid, NotFound
from mullama.manifest.spec import Captures
from mullama.runtime.serving.captures import CaptureLog
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of

pytestmark = pytest.mark.anyio


def declared(**fields: Any) -> Captures:
    return Captures.model_validate(fields)


def capture(log: CaptureLog, prompt: str = "p", answer: str = "a", error: BaseException | None = None) -> None:
    recording = log.begin(chat.CompletionRequest(model="m", prompts=(prompt,)), CALLER)
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
