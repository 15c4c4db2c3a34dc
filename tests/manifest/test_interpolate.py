"""References to the environment."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manifest.builders import one, problems, read

ENV = {"NAME": "x", "EMPTY": "", "N": "33", "YES": "true", "TEXT": "1.10", "TRICK": "${NAME}", "YAML": "{a: b}"}

VALUES = [
    ("${NAME}", "x"),
    ("a${NAME}b${N}", "axb33"),
    ("${NONE:-d}", "d"),
    ("${EMPTY:-d}", "d"),
    ("${EMPTY}", ""),
    ("${NONE:-}", ""),
    ("${NAME:-d}", "x"),
    ("${NAME:?is needed}", "x"),
    ("$${NAME}", "${NAME}"),
    ("$$${NAME}", "$${NAME}"),
    ("a lone $ and $NAME and }", "a lone $ and $NAME and }"),
    ("${TRICK}", "${NAME}"),
    ("${YAML}", "{a: b}"),
    ("${TEXT}", "1.10"),
    ("${NONE:-a:-b}", "a:-b"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_references_are_replaced_once_and_stay_text_in_a_text_field(text: str, value: str) -> None:
    assert one(f"models: {{a: {{from: builtin:tiny, system: '{text}'}}}}", env=ENV).system == value


FIELDS: list[tuple[str, Any, Any]] = [
    ("gpu: {layers: '${N}'}", "gpu.layers", 33),
    ("gpu: {layers: '${NONE:-all}'}", "gpu.layers", "all"),
    ("gpu: {layers: {'0': '${N}'}}", "gpu.layers", {"0": 33}),
    ("memory: {mlock: '${YES}'}", "memory.mlock", True),
    ("parameters: {temperature: '${TEXT}'}", "parameters.temperature", 1.1),
    ("parameters: {num_ctx: '${N}'}", "context.size", 33),
    ("residency: {ttl: '${N}m'}", "residency.ttl", 33 * 60.0),
    ("residency: {ttl: '${NONE:-never}'}", "residency.ttl", float("inf")),
    ("parameters: {stop: ['${N}']}", "parameters.stop", ("33",)),
    ("task: '${NONE:-embedding}'", "task", "embedding"),
]


@pytest.mark.parametrize(("text", "path", "value"), FIELDS)
def test_a_whole_reference_takes_the_type_of_its_field(text: str, path: str, value: object) -> None:
    found: Any = one(f"models: {{a: {{from: builtin:tiny, {text}}}}}", env=ENV)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


MISTAKES = [
    ("system: '${NONE}'", "the environment variable NONE is not set (set it, or give a default: ${NONE:-…})"),
    ("system: '${NONE:?ask ops for it}'", "the environment variable NONE is not set (ask ops for it)"),
    ("system: '${EMPTY:?ask ops for it}'", "the environment variable EMPTY is empty (ask ops for it)"),
    ("system: '${1X}'", "`${` does not begin a reference (write ${NAME}, or $${ for a literal ${)"),
    ("system: '${A B}'", "`${` does not begin a reference"),
    ("system: 'x ${'", "`${` does not begin a reference"),
    ("system: '${A:+b}'", "`${` does not begin a reference"),
    ("gpu: {layers: '${NAME}'}", "expected auto, all, a number of layers"),
    ("memory: {mmap: '${N}'}", "expected true or false, got 33"),
    ("parameters: {temperature: '${NONE:-.inf}'}", "infinity and not-a-number are not allowed"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_reference_that_cannot_be_followed_is_one_mistake(text: str, expected: str) -> None:
    (said,) = problems(f"models: {{a: {{from: builtin:tiny, {text}}}}}", env=ENV)
    assert expected in said


def test_keys_are_never_replaced() -> None:
    assert "models.${NAME}" in problems("models: {'${NAME}': builtin:tiny}", env=ENV)[0]


def test_an_unset_source_is_one_mistake_and_not_three() -> None:
    assert problems("models: {a: '${NONE}'}") == [
        "m.yaml:2:13: models.a.from: the environment variable NONE is not set (set it, or give a default: ${NONE:-…})"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "auth: {keys: {k: {secret: '${CANARY}'}}}",
        "auth: {keys: {k: {secret: {from_env: '${CANARY}'}}}}",
        "auth: {keys: {k: {secret: {from_file: '${CANARY}'}}}}",
        "sources: {hf: {token: '${CANARY}'}}",
        "sources: {hf: {token: {from_env: '${CANARY}'}}}",
    ],
)
def test_a_secret_takes_no_reference_and_its_value_is_never_looked_up(text: str) -> None:
    said = problems(text, env={"CANARY": "sk-canary"})
    assert len(said) == 1
    assert "a secret cannot contain ${…}" in said[0]
    assert "sk-canary" not in said[0]


def test_a_profile_that_is_not_chosen_needs_no_environment() -> None:
    text = "models: {a: builtin:tiny}\nprofiles: {p: {models: {a: {system: '${NONE}'}}}}"
    assert not problems(text)
    assert problems(text, profiles=["p"])


def test_what_a_profile_replaces_needs_no_environment() -> None:
    text = "models: {a: {from: builtin:tiny, system: '${NONE}'}}\nprofiles: {p: {models: {a: {system: hi}}}}"
    assert read(text, profiles=["p"]).manifest.models["a"].system == "hi"


def test_notes_need_no_environment() -> None:
    assert not problems("x-note: '${NONE}'\nmodels: {a: {from: builtin:tiny, x-note: ['${NONE}']}}")


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,4}", fullmatch=True), st.text(max_size=20)), st.text(max_size=40))
def test_no_value_of_the_environment_changes_the_structure(env: dict[str, str], tail: str) -> None:
    """Whatever the variables hold, there is one model with one system prompt, or a mistake of that field."""
    quoted = "${A:-x}" + tail.replace("'", "''").replace("$", "")
    text = f"models: {{a: {{from: builtin:tiny, system: '{quoted}'}}}}"
    if not all(c.isprintable() for c in tail):
        return
    assert list(read(text, env=env).manifest.models) == ["a"]
    assert one(text, env=env).system == (env.get("A") or "x") + tail.replace("$", "")
