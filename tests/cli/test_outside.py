"""Each row of the page of refused things is refused in fact, with the text of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from mullama.cli.app import unsupported
from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.exit_codes import INVALID
from mullama.cli.app.main import load, main
from mullama.cli.console.terminal import Terminal
from mullama.manifest.spec.definitions import Manifest, Model
from tests.server.server_fixture import RunningServer, running_server

PAGE = (Path(__file__).parents[2] / "docs/reference/outside.md").read_text(encoding="utf-8")


def rows(section: str) -> list[tuple[str, str]]:
    """Return the table below a heading as pairs of name and text."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \| (.+) \|$", text, re.MULTILINE)


def refused(*arguments: str) -> str:
    """Run a command line that must end as a mistake of usage; return its output."""
    output = io.StringIO()
    terminal = Terminal(io.StringIO(), io.StringIO(), output, {})
    assert main(arguments, terminal) == INVALID, arguments
    return output.getvalue()


@pytest.mark.parametrize(("command", "text"), rows("Commands"))
def test_a_command_is_refused(command: str, text: str) -> None:
    assert refused(command, "x") == f"error: no command {command!r}\nhint: {text}\n"


@pytest.mark.parametrize(("line", "text"), rows("Arguments"))
def test_an_argument_of_one_command_is_refused(line: str, text: str) -> None:
    said = refused(*line.split(), "x")
    assert line.split()[1] in said.splitlines()[0]
    assert said.endswith(f"hint: {text}\n")


def without(option: str) -> str:
    """Return a command that does not have the option."""
    commands = {name: load(command)[1] for command in COMMANDS if (name := command.name) in ("run", "serve", "down")}
    return next(name for name, parser in commands.items() if option not in parser._option_string_actions)


@pytest.mark.parametrize(("option", "text"), rows("Options of every command"))
def test_an_option_is_refused_by_commands_that_do_not_have_it(option: str, text: str) -> None:
    command = without(option)
    for given in ([option, "x"], [f"{option}=x"], ["x", option]):
        wanted = f"error: {option} is not an option of mullama {command}\nhint: {text}\n"
        assert refused(command, *given) == wanted


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.mark.parametrize(("path", "text"), rows("Endpoints"))
def test_an_endpoint_is_refused(path: str, text: str, server: RunningServer) -> None:
    method, _, only = path.rpartition(" ")
    if method:
        answers = [server.ask(method, re.sub(r"\{\w+\}", "1", only), {})]
    else:
        answers = [server.ask(m, p, b) for p in (path, f"{path}/x/y") for m, b in (("GET", None), ("POST", {}))]
    for answer in answers:
        assert answer.status == 404 or (method and answer.status in (401, 501))
        assert text in str(answer.json["error"])


FIELD = re.compile(
    r"\b(?:server|limits|context|gpu|memory|hardware|sources|observability|auth|residency)(?:\.[a-z_*]+)+"
)
ALL_HINTS = [text for table in ("Commands", "Arguments", "Options of every command") for _, text in rows(table)]


def exists(path: str, model: type[BaseModel]) -> bool:
    kinds: list[Any] = [model]
    for name in path.split("."):
        found = [kind.model_fields[name].annotation for kind in kinds if name in getattr(kind, "model_fields", {})]
        if name == "*":
            found = kinds
        kinds = [part for kind in found for part in parts_of(kind)]
        if not found:
            return False
    return True


def parts_of(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from parts_of(part)


@pytest.mark.parametrize("field", sorted({field for text in ALL_HINTS for field in FIELD.findall(text)}))
def test_a_hint_names_a_setting_that_exists(field: str) -> None:
    assert exists(field, Manifest) or exists(field, Model), field


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["run", "x", "--temperatur", "1"], "did you mean --temperature?"),
        (["run", "x", "--max-token", "1"], "did you mean --max-tokens?"),
        (["run", "x", "--form"], "did you mean --format?"),
        (["serve", "--http-adr", "x"], "did you mean --http-addr?"),
        (["serve", "--http-prt", "1"], "did you mean --http-port?"),
        (["apply", "--profil", "x"], "did you mean --profile?"),
        (["run", "x", "--nothing-like-it"], "mullama run --help lists the options"),
        (["run", "x", "--thermometer"], "mullama run --help lists the options"),
        (["serve", "--reportport"], "mullama serve --help lists the options"),
        (["serv"], "did you mean serve?"),
        (["lst"], "did you mean list or ls?"),
        (["xyzzy"], "mullama --help lists the commands"),
        (["train"], "mullama --help lists the commands"),
    ],
)
def test_only_near_spellings_are_suggested(arguments: list[str], hint: str) -> None:
    assert refused(*arguments).endswith(f"hint: {hint}\n")


def test_layers_by_device_are_a_setting_of_the_manifest() -> None:
    said = refused("run", "x", "-n", "0:10;1:20")
    assert said == (
        "error: 0:10;1:20 is not a value of mullama run\n"
        'hint: set it in the manifest, in the model: gpu.layers, such as {"0": 10, "1": 20}\n'
    )


@pytest.mark.parametrize("name", [*unsupported.EVERYWHERE, *unsupported.COMMANDS])
def test_nothing_that_mullama_has_is_refused(name: str) -> None:
    commands = {known for command in COMMANDS for known in (command.name, *command.aliases)}
    assert name not in commands
    parsers = [load(command)[1] for command in COMMANDS if command.name in ("run", "serve", "bench")]
    for parser in parsers:
        if name in parser._option_string_actions:
            assert unsupported.refusal(parser, "run", [name]) is None
