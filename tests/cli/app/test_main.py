"""The entry point: commands, exit codes of usage errors, and imports of --help and diff."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from mullama import __version__
from mullama.__main__ import main as start
from mullama.cli.app.commands import COMMANDS, Command
from mullama.cli.app.context import seconds
from mullama.cli.app.main import load, main
from tests.cli.conftest import Ran
from tests.cli.tinyserver import TinyServer

Run = Callable[..., Ran]


def test_a_version_among_other_options_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--host", "x", "--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"mullama {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_of_the_table_can_be_loaded_and_explains_itself(command: Command) -> None:
    function, parser = load(command)
    assert callable(function)
    assert all(action.help for action in parser._actions), "every option has a help text"
    assert command.name in parser.format_help()


def test_the_modules_of_the_table_hold_no_command_that_is_not_in_it() -> None:
    names = {command.name for command in COMMANDS}
    for module in {command.module for command in COMMANDS}:
        held = vars(importlib.import_module(f"mullama.cli.{module}"))
        declared = {name.removesuffix("_options") for name in held if name.endswith("_options")}
        assert {name for name in declared if name in held} <= names


def test_help_lists_every_command(run: Run) -> None:
    shown = run()
    assert shown.code == 0
    assert all(f"\n  {command.name} " in shown.out for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("aply",), 4, "error: no command 'aply'\nhint: did you mean apply?\n"),
        (("apply", "--no"), 4, "error: unrecognized arguments: --no\n"),
        (("status", "--format", "x"), 4, "error: unrecognized arguments"),
        (("diff", "--no"), 1, "error: unrecognized arguments: --no\n"),
        (("diff", "--format", "xml"), 1, "error: argument --format"),
        (("diff", "--fail-on", "wish,luck"), 1, "error: --fail-on: unknown kind of change 'luck'"),
        (("diff",), 1, "error: no manifest here"),
        (("apply",), 3, "error: no manifest here"),
        (("wait", "--for", "luck"), 4, "error: --for: unknown condition 'luck'"),
        (("wait", "--timeout", "soon"), 4, "error: argument --timeout: 'soon' is not a time"),
        (("--host", "x", "schema"), 4, "error: --host is not an option of this command"),
        (("status", "--host", "ftp://x"), 4, "error: 'ftp://x' is not the address of a server"),
        (("status",), 11, "error: no server is running\n"),
        (("undo", "--yes"), 11, "error: no server is running\n"),
        (("reload",), 11, "error: no server is running\n"),
    ],
)
def test_mistakes_have_a_line_and_a_code(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(message)
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("arguments", [("help",), ()])
def test_help_lists_the_commands(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 0
    assert "mullama [--host URL]" in ran.out
    assert "apply       make this machine match the manifest" in ran.out


@pytest.mark.parametrize("arguments", [("help", "apply"), ("apply", "--help")])
def test_help_of_a_command_lists_its_options(
    run: Run, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert (ended.value.code, "usage: mullama apply" in capsys.readouterr().out) == (0, True)


def test_help_of_an_unknown_command_is_a_mistake(run: Run) -> None:
    assert run("help", "aply").err == "error: no command 'aply'\nhint: did you mean apply?\n"


@pytest.mark.parametrize("option", ["-V", "-v", "--version"])
def test_the_version_is_printed(run: Run, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(option)
    assert capsys.readouterr().out == f"mullama {__version__}\n"


@pytest.mark.parametrize("arguments", [("down",), ("stop",), ("down", "--yes"), ("stop", "-y")])
def test_nothing_running_is_a_success_for_down_and_stop(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out, ran.err) == (0, "no server is running; nothing to stop\n", "")


def test_a_bug_is_one_line_unless_a_traceback_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("mullama.cli.server.status.status", fail)
    ran = run("status")
    assert (ran.code, ran.err) == (
        1,
        "error: a bug in mullama: ZeroDivisionError: oops\nhint: MULLAMA_DEBUG=1 shows the traceback\n",
    )
    monkeypatch.setenv("MULLAMA_DEBUG", "1")
    assert "Traceback" in run("status").err


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_an_interruption_is_quiet(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], code: int
) -> None:
    def stop(call: object) -> int:
        raise raised

    monkeypatch.setattr("mullama.cli.server.status.status", stop)
    ran = run("status")
    assert ran.code == code
    assert "Traceback" not in ran.err


def test_an_interrupt_during_the_imports_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt if name == "main" else AttributeError(name)

    monkeypatch.setitem(sys.modules, "mullama.cli.app.main", Slow("main"))
    monkeypatch.setattr(sys, "argv", ["mullama", "status"])
    assert start() == 130


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_permission_denied_has_its_own_code(run: Run, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(call: object) -> int:
        raise OSError(number, os.strerror(number), "/root/x")

    monkeypatch.setattr("mullama.cli.server.status.status", refuse)
    ran = run("status")
    assert (ran.code, ran.err) == (7, f"error: /root/x: {os.strerror(number)}\n")


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90.0), ("30s", 30.0), ("1.5m", 90.0), ("2h", 7200.0), ("never", float("inf"))]
)
def test_times_have_units(text: str, value: float) -> None:
    assert seconds(text) == value


def test_options_may_stand_between_words_and_near_ones_are_named(run: Run, tiny: TinyServer) -> None:
    assert run("rm", "a", "-f", "b", "--host", tiny.url).code == 3, "both names were read"
    assert [asked.path for asked in tiny.asked] == ["/api/models/a"]
    assert "hint: did you mean --temperature" in run("run", "m", "hi", "--temprature", "1").err
