"""`mullama run` with a server that answers from a table."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.cli.inference.stream import tool_line
from tests.chat.media.test_formats import PNG, WAV
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]

LAST = {
    "model": "m",
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 5,
    "eval_count": 4,
    "eval_duration": 500_000_000,
}


def pieces(*lines: object) -> Answer:
    return Answer(pieces=tuple(json.dumps(line).encode() + b"\n" for line in lines))


def part(text: str) -> dict[str, object]:
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": False}


@pytest.fixture(autouse=True)
def model(tiny: TinyServer) -> None:
    tiny.answers["GET /api/models/m"] = Answer({"name": "m", "capabilities": ["completion"]})


def test_the_answer_is_printed_as_it_arrives(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(part("Par"), part("is"), LAST)
    ran = run("run", "m", "What", "is", "it?", "--host", tiny.url, "-t", "0", "-n", "7", "--system", "Short.")
    assert (ran.code, ran.out, ran.err) == (0, "Paris\n", "")
    assert tiny.asked[-1].body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "What is it?"}],
        "stream": True,
        "options": {"num_predict": 7, "temperature": 0.0},
    }


def test_calls_of_tools_are_no_part_of_an_answer_on_a_pipe(run: Run, tiny: TinyServer) -> None:
    begun = {"state": "started", "id": "1", "server": "docs", "name": "read", "arguments": {"page": 7}}
    line = part("")
    tiny.answers["POST /api/models/chat"] = pieces(part("Par"), {**line, "tool_run": begun}, part("is"), LAST)
    ran = run("run", "m", "What", "--host", tiny.url)
    assert (ran.out, ran.err) == ("Paris\n", "")


@pytest.mark.parametrize(
    ("run_of_tool", "line"),
    [
        ({"state": "started", "arguments": {"page": 7, "of": "é"}}, 'docs/read {"page":7,"of":"é"}'),
        ({"state": "started", "arguments": {"text": "x" * 200}}, 'docs/read {"text":"' + "x" * 71 + "…"),
        ({"state": "started"}, "docs/read {}"),
        ({"state": "ended", "bytes": 2048, "is_error": False}, "docs/read: 2 KiB"),
        ({"state": "ended", "bytes": 12, "is_error": True}, "docs/read: 12 B, an error"),
    ],
)
def test_a_call_has_a_short_line(run_of_tool: dict[str, Any], line: str) -> None:
    assert tool_line({"id": "1", "server": "docs", "name": "read", **run_of_tool}) == line


def test_the_prompt_may_come_from_standard_input(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(LAST)
    run("run", "m", "--host", tiny.url, stdin="from a pipe")
    run("run", "m", "-", "--host", tiny.url, stdin="dash")
    run("run", "m", "Sum", "up.", "--host", tiny.url, stdin="a long text\n")
    asked = [a.body["messages"][0]["content"] for a in tiny.asked if a.body]
    assert asked == ["from a pipe", "dash", "a long text\n\n\nSum up."]


def test_a_terminal_without_a_prompt_begins_a_conversation(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(part("Paris"), LAST)
    ran = run("run", "m", "--host", tiny.url, tty=True, stdin="Where?\n/bye\n")
    assert (ran.code, "Paris" in ran.out) == (0, True)
    assert run("run", "m", "--json", "--host", tiny.url, tty=True).code == 4


def test_stats_go_to_stderr(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(part("Paris"), LAST)
    ran = run("run", "m", "q", "--stats", "--host", tiny.url)
    assert ran.out == "Paris\n"
    assert ran.err == "5 prompt tokens, 4 tokens in 0.50 s, 8.0 tokens/s (stop)\n"


def test_json_is_one_object(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(part("Pa"), part("ris"), LAST)
    tree = json.loads(run("run", "m", "q", "--json", "--host", tiny.url).out)
    assert tree["content"] == "Paris"
    assert tree["tokens"] == 4


def test_an_answer_that_fails_is_an_error(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(part("Par"))
    assert run("run", "m", "q", "--host", tiny.url).code == 11
    tiny.answers["POST /api/models/chat"] = pieces(part("Par"), {"error": "the worker died"})
    ran = run("run", "m", "q", "--host", tiny.url)
    assert (ran.code, ran.out, ran.err) == (1, "Par", "error: the answer failed: the worker died\n")


def test_a_model_that_is_not_there_is_not_found(run: Run, tiny: TinyServer) -> None:
    error = {"kind": "not_found", "message": "model 'x' not found", "hint": ""}
    tiny.answers["GET /api/models/x"] = Answer({"error": error}, 404)
    ran = run("run", "x", "q", "--host", tiny.url)
    assert ran.code == 3
    # The server is asked to add the name as a source, and this one knows no source.
    assert ran.err == "error: model 'x' not found: no /api/models/x\nhint: h\n"


def test_similar_names_are_suggested_once(run: Run, tiny: TinyServer) -> None:
    unknown = {"kind": "not_found", "message": "model 'lama' not found", "hint": "did you mean llama?"}
    missing = {"kind": "not_found", "message": "./f.gguf does not exist", "hint": "did you mean g.gguf?"}
    tiny.answers["GET /api/models/lama"] = Answer({"error": unknown}, 404)
    tiny.answers["PUT /api/models/lama"] = Answer({"error": missing}, 404)
    error = "error: model 'lama' not found: ./f.gguf does not exist\nhint: did you mean g.gguf?\n"
    assert run("run", "lama", "q", "--host", tiny.url).err == error

    tiny.answers["PUT /api/models/lama"] = Answer({"error": {**missing, "hint": "check the path"}}, 404)
    assert run("run", "lama", "q", "--host", tiny.url).err.endswith("hint: did you mean llama? check the path\n")


def test_an_embedding_model_prints_an_embedding(run: Run, tiny: TinyServer) -> None:
    tiny.answers["GET /api/models/e"] = Answer({"name": "e", "capabilities": ["embedding"]})
    tiny.answers["POST /api/models/embed"] = Answer({"model": "e", "embeddings": [[0.5, 1.0]]})
    ran = run("run", "e", "a", "text", "--dimensions", "2", "--truncate=false", "--host", tiny.url)
    assert (ran.code, json.loads(ran.out)) == (0, [0.5, 1.0])
    assert tiny.asked[-1].body == {"model": "e", "input": ["a text"], "dimensions": 2, "truncate": False}
    assert run("run", "m", "q", "--dimensions", "2", "--host", tiny.url).code == 4


def test_an_option_may_name_the_model(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(LAST)
    run("run", "-m", "m", "What", "is", "it?", "--host", tiny.url)
    assert tiny.asked[-1].body["messages"][0]["content"] == "What is it?"


def test_an_empty_prompt_is_a_mistake(run: Run, tiny: TinyServer) -> None:
    assert run("run", "m", "--host", tiny.url, stdin="\n").code == 4


def test_control_characters_are_escaped_on_a_terminal_and_kept_in_a_pipe(run: Run, tiny: TinyServer) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(part("\x1b]0;x\x07\tok\n"), LAST)
    assert run("run", "m", "q", "--host", tiny.url, tty=True).out == "\\x1b]0;x\\x07\tok\n\n"
    assert run("run", "m", "q", "--host", tiny.url).out == "\x1b]0;x\x07\tok\n\n"


def test_files_are_sent_with_the_question_and_stay_in_the_conversation(
    run: Run, tiny: TinyServer, tmp_path: Path
) -> None:
    tiny.answers["GET /api/models/m"] = Answer({"name": "m", "capabilities": ["completion", "vision"]})
    tiny.answers["POST /api/models/chat"] = pieces(part("A dot."), LAST)
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.wav").write_bytes(WAV)
    image, sound = (base64.b64encode(data).decode() for data in (PNG, WAV))
    path = str(tmp_path / "b.wav")
    run("run", "m", f"What is in {path} ?", "-i", str(tmp_path / "a.png"), "--host", tiny.url)
    assert tiny.asked[-1].body["messages"] == [{"role": "user", "content": "What is in ?", "images": [image, sound]}]
    run("run", "m", "--host", tiny.url, tty=True, stdin=f"See {path}\nAnd?\n/bye\n")
    assert tiny.asked[-1].body["messages"] == [
        {"role": "user", "content": "See", "images": [sound]},
        {"role": "assistant", "content": "A dot."},
        {"role": "user", "content": "And?"},
    ]
    run("run", "m", f"{path} says:\n    a  b", "--host", tiny.url)
    assert tiny.asked[-1].body["messages"][0]["content"] == "says:\n    a  b", "the rest of the text stays as it is"
    ran = run("run", "m", "-i", path, "--host", tiny.url, tty=True)
    assert (ran.code, "-i needs a question" in ran.err) == (4, True)
    ran = run("run", "m", "x", "-i", "none.png", "--host", tiny.url)
    assert (ran.code, "none.png does not exist" in ran.err) == (3, True)
    for data, words in ((b"text", "neither an image nor a sound"), (PNG[:20], "its png header ends early")):
        (tmp_path / "c.png").write_bytes(data)
        ran = run("run", "m", "x", "-i", str(tmp_path / "c.png"), "--host", tiny.url)
        assert (ran.code, f"c.png is {'damaged: ' * (data != b'text')}{words}" in ran.err) == (4, True)


def test_a_path_in_a_question_to_a_model_of_text_is_text(run: Run, tiny: TinyServer, tmp_path: Path) -> None:
    tiny.answers["POST /api/models/chat"] = pieces(LAST)
    (tmp_path / "a.png").write_bytes(b"png")
    question = f"Is {tmp_path / 'a.png'} mine?"
    run("run", "m", question, "--host", tiny.url)
    assert tiny.asked[-1].body["messages"] == [{"role": "user", "content": question}]
    run("run", "m", "--host", tiny.url, tty=True, stdin=f"{question}\n/bye\n")
    assert tiny.asked[-1].body["messages"] == [{"role": "user", "content": question}]
