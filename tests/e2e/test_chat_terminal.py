"""`mullama chat` on a real terminal with a scripted model that answers at a known pace."""

from __future__ import annotations

import json
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.pty_session import pty_session
from tests.e2e.stack import Stack, stack_in


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server of a scripted model that offers no dialect of the commands."""
    with stack_in(tmp_path_factory.mktemp("terminal")) as found:
        (found.home / "echo.script.json").write_text(json.dumps({"name": "echo"}))
        server = {"listen": ["127.0.0.1:0"], "dialects": ["anthropic"]}
        found.write({"chat": {"from": "./echo.script.json", "dialects": ["anthropic"]}}, server=server)
        found.run("daemon", "start")
        yield found


def test_keys_typed_during_an_answer_are_kept(stack: Stack) -> None:
    with pty_session(["chat", "chat"], stack.home, **stack.env) as session:
        session.read_until(">>> ")
        session.type("count to 20 slow 20ms\n")
        session.read_until("1 2")
        session.type("say typed ahead\n\x04")
        assert session.finish() == 0
    assert "19 20" in session.seen
    assert "\ntyped ahead" in session.seen


def test_ctrl_c_ends_the_answer_and_not_the_conversation(stack: Stack) -> None:
    with pty_session(["run", "chat"], stack.home, **stack.env) as session:
        session.read_until(">>> ")
        session.type("count to 100000 slow 20ms\n")
        session.read_until("1 2")
        session.type("\x03")
        session.read_until(">>> ")
        session.type("half a line")
        session.read_until("half a line")
        session.type_until("\x03", "Ctrl-D to end")
        session.read_until(">>> ")
        session.type("say on we go\n")
        session.read_until("\non we go")
        session.read_until(">>> ")
        session.type("/bye\n")
        assert session.finish() == 0
    assert "Traceback" not in session.seen


def test_the_terminal_is_left_as_it_was(stack: Stack) -> None:
    with pty_session(["chat", "chat"], stack.home, **stack.env) as session:
        session.read_until(">>> ")
        session.type("say something\n")
        session.read_until("\nsomething")
        session.read_until(">>> ")
        session.type("/bye\n")
        session.read_until("/bye")
        assert session.finish() == 0
        assert termios.tcgetattr(session.terminal)[3] == session.modes


def test_commands_of_other_programs_are_understood(stack: Stack) -> None:
    text = "\\temperature 0.5\n/topk 3\n\\system Be brief.\n/set parameter temprature 1\n"
    text += "\\clear\n/show parameters\n\\exit\n"
    done = stack.run("chat", "chat", input=text)
    assert "set parameter temperature 0.5" in done.stdout
    assert "top_k               3" in done.stdout
    assert "unknown parameter 'temprature'" in done.stderr


def test_the_commands_need_no_dialect(stack: Stack) -> None:
    assert stack.run("run", "chat", "say hello there").stdout == "hello there\n"
    assert stack.json("tokenize", "hello", "-m", "chat", "--json")["count"] > 0
    assert stack.json("embed", "hello", "-m", "chat", "--json")["dimension"] == 64


def test_unloading_waits_for_requests_unless_it_is_forced(stack: Stack) -> None:
    with pty_session(["run", "chat", "count to 100000 slow 20ms"], stack.home, **stack.env) as session:
        session.read_until("1 2")
        assert "--force cancels them" in stack.run("unload", "chat", "--timeout", "0.1", code=6).stderr
        assert stack.run("unload", "chat", "--force").stdout == "chat is unloaded\n"
        session.read_until("the model was replaced or unloaded")
        assert session.finish() == 1


def test_options_of_other_tools_are_refused_with_a_replacement(stack: Stack) -> None:
    refused = stack.run("run", "chat", "--kv-cache-type", "q8_0", "hi", code=4).stderr
    assert refused == (
        "error: --kv-cache-type is not an option of mullama run\n"
        "hint: set it in the manifest, in the model: context.kv\n"
    )
    assert "dimensions is for embedding models" in stack.run("run", "chat", "hi", "--dimensions", "3", code=4).stderr
    assert "context.pooling" in stack.run("embed", "hi", "--pooling", "mean", code=4).stderr


def test_a_removal_is_confirmed(stack: Stack) -> None:
    stack.run("cp", "chat", "twin")
    for answer, code, left in (("n", 9, True), ("y", 0, False)):
        with pty_session(["rm", "twin"], stack.home, **stack.env) as session:
            session.read_until("Remove? [y/N] ")
            session.type(f"{answer}\n")
            assert session.finish() == code
        assert ("twin" in {m["name"] for m in stack.json("list", "--json")["models"]}) is left


def test_a_conversation_is_saved_and_continued(stack: Stack) -> None:
    with pty_session(["chat", "chat"], stack.home, **stack.env) as session:
        session.read_until(">>> ")
        session.type('"""say first line\nsecond line"""\n')
        session.read_until("\nfirst line")
        session.read_until(">>> ")
        session.type("/set parameter num_ctx 512\n")
        session.read_until("applies to models that /save creates")
        session.read_until(">>> ")
        session.type("/save kept\n")
        session.read_until("saved as kept")
        session.read_until(">>> ")
        session.type("/load kept\n")
        session.read_until("switched to kept")
        session.read_until(">>> ")
        session.type("/show modelfile\n")
        session.read_until("FROM kept")
        session.read_until(">>> ")
        session.type("/bye\n")
        assert session.finish() == 0
    assert "MESSAGE user" in stack.run("show", "kept", "--modelfile").stdout
    assert stack.json("show", "kept", "--json")["context"] == 512
    stack.run("rm", "kept", "-f")


def test_a_model_may_be_called_as_an_action_is(stack: Stack, tmp_path: Path) -> None:
    for name in ("load", "pull", "copy"):
        stack.run("cp", "chat", name)
        stack.run("load", name)
        assert stack.json("show", name, "--json")["name"] == name
        stack.run("rm", name, "-f")
