"""Short forms mean what their long forms mean, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.manifest.spec import RequestParameters, Route, RouteTarget
from mullama.manifest.tree import revision
from tests.manifest.builders import one, problems, read

SAME = [
    ("a: builtin:tiny", "a: {from: builtin:tiny}"),
    ("a: {from: x.gguf, template: '{{ m }}'}", "a: {from: x.gguf, template: {text: '{{ m }}'}}"),
    (
        "a: {from: x.gguf, template: {go: '{{ .P }}'}}",
        "a: {from: x.gguf, template: {text: '{{ .P }}', syntax: go}}",
    ),
    ("a: {from: x.gguf, parameters: {num_ctx: 4096}}", "a: {from: x.gguf, context: {size: 4096}}"),
    ("a: {from: x.gguf, parameters: {num_batch: 64}}", "a: {from: x.gguf, context: {batch: 64}}"),
    ("a: {from: x.gguf, parameters: {num_thread: 3}}", "a: {from: x.gguf, context: {threads: 3}}"),
    ("a: {from: x.gguf, parameters: {num_thread: 0}}", "a: {from: x.gguf}"),
    ("a: {from: x.gguf, parameters: {num_gpu: 33}}", "a: {from: x.gguf, gpu: {layers: 33}}"),
    ("a: {from: x.gguf, parameters: {num_gpu: -1}}", "a: {from: x.gguf, gpu: {layers: auto}}"),
    ("a: {from: x.gguf, parameters: {main_gpu: 1}}", "a: {from: x.gguf, gpu: {main: 1}}"),
    ("a: {from: x.gguf, parameters: {use_mmap: false}}", "a: {from: x.gguf, memory: {mmap: false}}"),
    ("a: {from: x.gguf, parameters: {use_mlock: true}}", "a: {from: x.gguf, memory: {mlock: true}}"),
    ("a: {from: x.gguf, context: {flash_attention: true}}", "a: {from: x.gguf, context: {flash_attention: on}}"),
    ("a: {from: x.gguf, context: {flash_attention: false}}", "a: {from: x.gguf, context: {flash_attention: off}}"),
    ("a: {from: x.gguf, parameters: {num_ctx: 64}, context: {size: 64}}", "a: {from: x.gguf, context: {size: 64}}"),
]


@pytest.mark.parametrize(("short", "long"), SAME)
def test_a_short_form_and_its_long_form_are_one_model(short: str, long: str) -> None:
    a, b = one(f"models: {{{short}}}"), one(f"models: {{{long}}}")
    assert a == b
    assert revision(a) == revision(b)


def test_a_spelling_in_a_model_wins_over_the_field_in_defaults() -> None:
    text = "defaults: {context: {size: 8192}}\nmodels: {a: {from: builtin:tiny, parameters: {num_ctx: 64}}}"
    assert one(text).context.size == 64


def test_a_field_in_a_profile_wins_over_the_spelling_in_the_manifest() -> None:
    text = (
        "models: {a: {from: builtin:tiny, parameters: {num_ctx: 64}}}\n"
        "profiles: {p: {models: {a: {context: {size: 32}}}}}"
    )
    assert one(text, profiles=["p"]).context.size == 32


def test_a_spelling_and_its_field_that_differ_are_a_mistake_with_both_places() -> None:
    assert problems("models: {a: {from: builtin:tiny, context: {size: 4}, parameters: {num_ctx: 5}}}") == [
        "m.yaml:2:67: models.a.parameters.num_ctx: context.size has another value at m.yaml:2:44 "
        "(num_ctx is a spelling of context.size: keep one of them)"
    ]


@pytest.mark.parametrize("other", ["'4'", "4.0", "true", "[4]"])
def test_equal_is_equal_in_type_too(other: str) -> None:
    said = problems(f"models: {{a: {{from: builtin:tiny, context: {{size: 4}}, parameters: {{num_ctx: {other}}}}}}}")
    assert any("has another value" in line for line in said)


ROUTES: list[tuple[str, Any]] = [
    ("r: a", "a"),
    ("r: {to: [{model: a}]}", "a"),
    ("r: {to: [{model: a, weight: 1}]}", "a"),
    ("r: {to: [{model: a}], fallback: [], on_error: []}", "a"),
    ("r: {to: a}", "a"),
    ("r: {to: [a]}", "a"),
]


@pytest.mark.parametrize(("text", "to"), ROUTES)
def test_a_route_to_one_model_is_its_name(text: str, to: str) -> None:
    assert read(f"models: {{a: builtin:tiny}}\nroutes: {{{text}}}").manifest.routes == {"r": to}


def test_the_targets_of_a_route_may_be_names() -> None:
    models = "models: {a: builtin:tiny, b: builtin:tiny}\n"
    short = read(models + "routes: {r: {to: [a, {model: b, weight: 3}]}, s: {to: a, force: {think: false}}}").manifest
    assert short.routes == {
        "r": Route(to=(RouteTarget(model="a"), RouteTarget(model="b", weight=3))),
        "s": Route(to=(RouteTarget(model="a"),), force=RequestParameters(think=False)),
    }


def test_a_model_with_nothing_behind_it_is_a_mistake() -> None:
    assert problems("models:\n  a:\n  b: builtin:tiny\n") == [
        "m.yaml:3:5: models.a: this name has no value (add its fields, or remove it)"
    ]
