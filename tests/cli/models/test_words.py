# ruff: noqa: E501 - tables of cases read better on one line each
"""Words that people bring from other tools: flags with a value, short names of quantisations, `NAME:SOURCE`."""

from __future__ import annotations

import pytest

from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.context import UsageError
from mullama.cli.app.main import load
from mullama.cli.models.load import named_source
from mullama.cli.models.quantize import type_named
from mullama.errors import Invalid


def parser(name: str):  # type: ignore[no-untyped-def]
    return load(next(command for command in COMMANDS if command.name == name))[1]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (["--download=false"], ["--no-download"]), (["--download=true"], ["--download"]), (["--download=FALSE"], ["--no-download"]),
        (["--no-download=true"], ["--no-download"]), (["--quiet=true"], ["--quiet"]), (["--quiet=0"], []),
        (["--modelfile=true"], ["--modelfile", "true"]),
    ],
)  # fmt: skip
def test_a_flag_may_have_true_or_false_as_its_value(given: list[str], plain: list[str]) -> None:
    assert parser("create").parse_words(["m", *given]) == parser("create").parse_words(["m", *plain])


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("pull -- -dash.gguf", "source", "-dash.gguf"),
        ("pull --name n -- --json", "source", "--json"),
        ("rm -f -- -a --yes", "names", ["-a", "--yes"]),
        ("run m -- --help me -5 --", "prompt", ["--help", "me", "-5", "--"]),
        ("run -n 3 m -- --temperature=2", "prompt", ["--temperature=2"]),
        ("tokenize -m m -- -h", "text", ["-h"]),
        ("tokenize -m m -- --", "text", ["--"]),
    ],
)
def test_an_argument_after_two_dashes_is_no_option(line: str, field: str, value: object) -> None:
    command, *words = line.split()
    assert getattr(parser(command).parse_words(words), field) == value


def test_an_argument_too_many_after_two_dashes_is_shown_as_it_was_written() -> None:
    with pytest.raises(UsageError, match=r"^unrecognized arguments: --c "):
        parser("cp").parse_words(["a", "b", "--", "--c"])


def test_another_value_of_a_flag_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="--download is true or false, not 'maybe'"):
        parser("create").parse_words(["m", "--download=maybe"])


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Q4_K_M", "Q4_K_M"), ("q4_k_m", "Q4_K_M"), ("q4km", "Q4_K_M"), ("q4_k", "Q4_K_M"), ("q4k", "Q4_K_M"), ("q4", "Q4_K_M"),
        ("4", "Q4_K_M"), ("8", "Q8_0"), ("q8", "Q8_0"), ("q8_0", "Q8_0"), ("q6k", "Q6_K"), ("q2k", "Q2_K"), ("q3_k", "Q3_K_M"),
        ("iq4xs", "IQ4_XS"), ("bf16", "BF16"), ("f16", "F16"), ("q5-k-s", "Q5_K_S"),
    ],
)  # fmt: skip
def test_short_names_of_quantisations_are_known(word: str, name: str) -> None:
    assert type_named(word) == name


@pytest.mark.parametrize(
    ("word", "hint"), [("Q4_K_N", "did you mean Q4_K_"), ("afq4", "for example"), ("Q9_9", "for example")]
)
def test_an_unknown_quantisation_is_refused_with_at_most_three_names(word: str, hint: str) -> None:
    with pytest.raises(Invalid, match="is not a quantization") as caught:
        type_named(word)
    assert caught.value.hint.startswith(hint)
    assert caught.value.hint.count("_") < 12


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("chat:./x.gguf", "chat", "./x.gguf"), ("chat:/m/x.gguf", "chat", "/m/x.gguf"), ("chat:~/x.gguf", "chat", "~/x.gguf"),
        ("chat:hf:org/repo:Q4_K_M", "chat", "hf:org/repo:Q4_K_M"), ("chat:builtin:tiny", "chat", "builtin:tiny"),
        ("llama3.2:1b", "", "llama3.2:1b"), ("hf:org/repo:Q4_K_M", "", "hf:org/repo:Q4_K_M"), ("https://h/x.gguf", "", "https://h/x.gguf"),
        ("file:///m/x.gguf", "", "file:///m/x.gguf"), ("./x.gguf", "", "./x.gguf"), ("builtin:tiny", "", "builtin:tiny"),
    ],
)  # fmt: skip
def test_a_source_may_have_a_name_in_front(text: str, name: str, source: str) -> None:
    assert named_source(text) == (name, source)


@pytest.mark.parametrize("command", ["list", "show", "pull", "load", "unload", "default", "cp", "tokenize", "ping"])
@pytest.mark.parametrize("option", ["-f", "--file", "--manifest"])
def test_a_command_whose_f_has_no_other_meaning_takes_a_manifest_as_the_others_do(command: str, option: str) -> None:
    positional = {"show": ["m"], "pull": ["m"], "load": ["m"], "unload": ["m"], "cp": ["m", "n"]}.get(command, [])
    assert parser(command).parse_words([*positional, option, "x.yaml"]).file == "x.yaml"


@pytest.mark.parametrize("command", ["rm m -f", "stop -f", "daemon logs -f"])
def test_f_of_other_commands_keeps_its_meaning(command: str) -> None:
    name, *words = command.split()
    assert parser(name).parse_words([*words, "--manifest", "x.yaml"]).file == "x.yaml"
