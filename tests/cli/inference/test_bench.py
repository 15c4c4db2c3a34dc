"""`mullama bench`: loads on a server, errors of the server, and a model on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.cli.app.context import CommandContext
from mullama.cli.inference import bench
from mullama.engines.base import Ended, Piece
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]
CHAT = "POST /v1/chat/completions"
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}


def stream(*events: object, end: bool = True) -> Answer:
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return Answer(pieces=(*lines, b"data: [DONE]\n\n") if end else tuple(lines))


def piece(text: str) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}]}


def test_clients_send_all_their_requests_and_the_server_counts_the_tokens(run: Run, tiny: TinyServer) -> None:
    tiny.answers[CHAT] = stream(piece("a"), piece("bc"), USAGE)
    ran = run("bench", "--url", tiny.url, "--model", "m", "--clients", "2", "--iterations", "3", "--json")
    assert (ran.code, ran.err) == (0, "")
    tree = json.loads(ran.out)
    assert (tree["requests"], tree["tokens"], tree["prompt_tokens"], tree["clients"]) == (6, 18, 54, 2)
    assert tree["tokens_per_second"] == pytest.approx(18 / tree["seconds"])
    assert len(tiny.asked) == 7, "one to warm up"
    assert len({asked.body["messages"][0]["content"] for asked in tiny.asked}) == 7


def test_a_schema_is_sent_as_the_format_of_the_answer(run: Run, tiny: TinyServer, tmp_path: Path) -> None:
    tiny.answers[CHAT] = stream(piece("{}"), USAGE)
    (tmp_path / "s.json").write_text('{"type": "object"}')
    assert run("bench", "--url", tiny.url, "--model", "m", "--schema", "s.json", "--warmup", "0").code == 0
    assert tiny.asked[0].body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "ignore_eos" not in tiny.asked[0].body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer({"error": {"message": "no such model"}}, 404), "no such model"),
        (stream(piece("a"), {"error": {"message": "boom"}}, end=False), "boom"),
        (stream(piece("a"), end=False), "ended the answer early"),
        (stream(piece("a")), "token counts"),
        (Answer(pieces=(b"data: {broken\n\n",)), "ended the connection"),
    ],
)
def test_a_broken_answer_is_an_error(run: Run, tiny: TinyServer, answer: Answer, message: str) -> None:
    tiny.answers[CHAT] = answer
    ran = run("bench", "--url", tiny.url, "--model", "m", "--warmup", "0")
    assert ran.code != 0
    assert message in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either MODEL or --url"),
        (("a.gguf", "--url", "http://127.0.0.1:1"), "either MODEL or --url"),
        (("--url", "http://127.0.0.1:1"), "--model NAME"),
        (("a.gguf", "--clients", "4"), "--clients has no effect without --url"),
        (("--url", "http://127.0.0.1:1", "--model", "m", "--threads", "2"), "--threads has no effect with --url"),
        (("a.gguf", "--gen-len", "0"), "integer of at least 1"),
        (("nowhere.gguf",), "nowhere.gguf"),
        (("builtin:tiny", "--prompt-len", "5000"), "was trained on"),
        (("--url", "http://127.0.0.1:1", "--model", "m"), "no server answers"),
    ],
)
def test_a_wrong_command_line_is_an_error(run: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = run("bench", *arguments)
    assert ran.code != 0
    assert message in ran.err


def test_a_model_is_measured_on_this_machine(run: Run) -> None:
    ran = run("bench", "builtin:tiny", "--prompt-len", "32", "--gen-len", "8", "--iterations", "2", "--json")
    tree = json.loads(ran.out)
    assert tree["prefill"]["mean"] > 0
    assert tree["decode"]["mean"] > 0
    assert tree["time_to_first_token"]["mean"] > 0
    table = run("bench", "builtin:tiny", "--prompt-len", "8", "--gen-len", "4", "--iterations", "1")
    assert [line.split()[0] for line in table.out.splitlines()] == ["measure", "prefill", "decode", "time"]


@pytest.mark.parametrize(
    ("pieces", "tokens", "seconds", "decode"),
    [((1, 3), 4, 0.5, 6.0), ((4,), 4, 0.5, 6.0), ((1, 1), 2, 0.1, 10.0), ((1,), 1, 0.0, None), ((), 0, 0.0, None)],
)
def test_the_rate_is_that_of_the_tokens_after_the_first(
    pieces: tuple[int, ...], tokens: int, seconds: float, decode: float | None
) -> None:
    """However the pieces arrive."""
    ended = Ended(
        id=1, reason="length", prompt_tokens=8, prompt_seconds=0.25, completion_tokens=tokens, decode_seconds=seconds
    )
    times = iter(range(10))
    outputs = [*(Piece(id=1, text="x", count=count) for count in pieces), ended]

    assert bench.speeds_of(outputs, lambda: float(next(times))) == bench.Speeds(prefill=32.0, decode=decode, first=1.0)


def test_a_rate_of_one_token_is_not_available(run: Run, tiny: TinyServer) -> None:
    arguments = ("bench", "builtin:tiny", "--prompt-len", "8", "--gen-len", "1", "--iterations", "1", "--warmup", "0")
    assert json.loads(run(*arguments, "--json").out)["decode"] is None
    assert "n/a" in next(line for line in run(*arguments).out.splitlines() if line.startswith("decode"))
    tiny.answers[CHAT] = stream(piece("a"), USAGE)
    remote = run("bench", "--url", tiny.url, "--model", "m", "--warmup", "0")
    assert next(line for line in remote.out.splitlines() if line.startswith("between")).split()[2:4] == ["n/a", "n/a"]


def test_a_declared_model_is_measured_with_its_own_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mullama.yaml").write_text(
        "mullama: v1\nserver: {listen: ['127.0.0.1:0']}\n"
        "models: {small: {from: 'builtin:tiny', context: {threads: 3}, gpu: {layers: all}}}\nroutes: {default: small}\n"
    )
    seen: list[tuple[str, int, int]] = []

    def measure(call: CommandContext) -> int:
        seen.append(bench._subject(call))
        return 0

    monkeypatch.setattr(bench, "_local", measure)
    for arguments in (("small",), ("-m", "small"), ("default",), ("SMALL", "--threads", "1", "--gpu-layers", "2")):
        assert run("bench", *arguments).code == 0
    assert run("bench", "builtin:tiny").code == 0
    assert seen == [("builtin:tiny", 3, -1)] * 3 + [("builtin:tiny", 1, 2), ("builtin:tiny", 0, 0)]
    assert "either MODEL or --url" in run("bench", "small", "-m", "small").err
