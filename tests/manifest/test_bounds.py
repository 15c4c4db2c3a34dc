"""Small well-formed manifests that expand to many values, or have thousands of mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mullama.errors import ManifestError
from mullama.manifest.load import load_text
from mullama.problems import Problem
from tests.manifest.builders import BASE, HEAD, MemoryFiles, problems
from tests.processor_time import processor_time

pytestmark = pytest.mark.timeout(60)  # large documents; a few seconds on an idle machine


def mistakes(text: str) -> Sequence[Problem]:
    try:
        load_text(HEAD + text, name="m.yaml", base_dir=BASE, env={}, files=MemoryFiles({"t": "{{ x }}"}))
    except ManifestError as error:
        return error.problems
    return ()


def lines(form: str, number: int) -> str:
    return "".join(form.format(i=i) for i in range(number))


def wide(part: int) -> dict[str, str]:
    """Manifests that cost the square of their length in a careless loader; each is the largest one over `part`."""
    some, many = 5_000 // part, 12_000 // part
    models = lines("  m{i}: x.gguf\n", some)

    def scopes(form: str) -> str:
        return f"models:\n{models}auth: {{keys: {{k: {{secret: {{from_env: K}}, models: [{lines(form, some)}]}}}}}}\n"

    return {
        "unknown keys": lines("k{i}: 1\n", many),
        "unknown keys in a block": "server:\n" + lines("  k{i}: 1\n", many),
        "wrong routes": f"models:\n{models}routes:\n" + lines("  r{i}: n{i}\n", some),
        "wrong patterns": scopes("a{i}*, "),
        "patterns of everything": scopes("'*a{i}', "),
        "wrong scopes": scopes("n{i}, "),
        "a chain of moves": "moved:\n" + lines("  - {{from: m{i}, to: n{i}}}\n", 900),
        "too many moves": "moved:\n" + lines("  - {{from: m{i}, to: n{i}}}\n", 9_000 // part),
        "like a model that is not there": "models:\n" + lines("  m{i}: {{like: n{i}}}\n", some),
        "large defaults": "defaults: {gpu: {layers: {" + lines("{i}: 1, ", 2 * some) + "}}}\nmodels:\n" + models,
        "a template for many": "defaults: {template: {file: ./t}}\nmodels:\n" + models,
        "many references": "models: {a: {from: x.gguf, system: '" + "${A:-" * (100_000 // part) + "'}}",
        "many unset references": "models: {a: {from: x.gguf, system: '" + "${A}" * (100_000 // part) + "'}}",
        "dollars": "models: {a: {from: x.gguf, system: '${A:-" + "$" * (500_000 // part) + "'}}",
        "deep under long names": "metadata: {labels: "
        + lines("{{" + "k" * 500 + "{i}: ", 15)
        + "{"
        + lines("a{i}: b, ", 7_000 // part)
        + "}" * 18,
        "the same name in other cases": "models:\n" + lines("  a{i}: x.gguf\n  A{i}: x.gguf\n", 3_000 // part),
        "a long word for a choice": "models: {a: {from: x.gguf, task: " + "x" * (900_000 // part) + "}}",
    }


@pytest.mark.parametrize(
    ("part", "name"),
    [
        *((6, name) for name in wide(1000)),
        *(pytest.param(1, name, marks=pytest.mark.soak) for name in wide(1000)),
    ],
)
def test_what_is_wide_costs_seconds_at_most_and_its_mistakes_are_counted(part: int, name: str) -> None:
    text = wide(part)[name]
    with processor_time() as cost:
        found = mistakes(text)
    assert cost.seconds < 10 / part
    assert len(found) <= 201
    assert all(len(str(problem)) < 2000 for problem in found)


def test_defaults_and_models_together_are_bounded() -> None:
    large = lines("{{role: user, content: x}}, ", 4_000)
    (said,) = problems(
        "models:\n  a: {from: x.gguf, messages: [" + large + "]}\n" + lines("  m{i}: {{like: a}}\n", 100)
    )
    assert said.startswith("m.yaml:3:3: models: the models have more than 300,000 values together (shorten")


def test_a_key_is_at_most_512_characters() -> None:
    assert problems(f"x-{'k' * 511}: 1") == ["m.yaml:2:1: a key of 513 characters (the limit is 512)"]


def test_a_pattern_that_looks_everywhere_is_refused() -> None:
    files = MemoryFiles({f"d{i}/f{j}.yaml": "" for i in range(150) for j in range(80)})
    assert problems("include: ['*/*.yaml']", files=files) == [
        "m.yaml:2:11: include: the pattern searches more than 10,000 names (write the name of the folder)"
    ]


def test_only_the_first_mistakes_have_suggestions() -> None:
    said = problems("models: {chat: builtin:tiny}\nroutes:\n" + lines("  r{i}: chta\n", 30))
    assert sum("did you mean chat?" in line for line in said) == 20
    assert len(said) == 30
