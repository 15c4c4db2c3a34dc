"""The layer and the line from which each value of a model comes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.provenance import origin_of, origins
from mullama.manifest.tree import block_to_tree
from tests.manifest.builders import read

TEXT = """mullama: v1
include: [more.yaml]
hardware:
  profiles:
    cpu: {gpu: {layers: 0}, context: {threads: 8}}
defaults:
  hardware: cpu
  context: {size: 8192, kv: {k: q8_0, v: q8_0}}
  parameters: {stop: [x, y], seed: 1}
models:
  a:
    from: builtin:tiny
    system: ${WORDS:-Hi}
    context:
      kv: {v: f16}
  b: {like: a, parameters: {stop: [z]}, context: {threads: 2}, template: {file: t.jinja}}
profiles:
  small:
    models: {b: {context: {size: 512}}}
    defaults: {parameters: {seed: 7}}
"""
FILES = {"more.yaml": "models: {c: {from: builtin:tiny, limits: {parallel: 2}}}\n", "t.jinja": "{{ messages }}"}


def found(model: str, text: str = TEXT, **options: Any) -> dict[str, str]:
    """Return each origin in short: layer, name, file and line."""
    loaded = read(text, files=FILES, env={}, **options)
    assert loaded.written is not None
    return {
        path: f"{one.layer} {one.name} {one.place.file}:{one.place.line}".replace("  ", " ")
        for path, one in origins(loaded.written, model).items()
    }


def test_each_value_names_its_layer_and_line() -> None:
    assert found("a") == {
        "from": "model a m.yaml:12",
        "system": "model a m.yaml:13",
        "context.kv.v": "model a m.yaml:15",
        "context.kv.k": "defaults m.yaml:8",
        "context.size": "defaults m.yaml:8",
        "parameters.stop": "defaults m.yaml:9",
        "parameters.seed": "defaults m.yaml:9",
        "gpu.layers": "hardware cpu m.yaml:5",
        "context.threads": "hardware cpu m.yaml:5",
    }


def test_like_profiles_and_included_files_are_named() -> None:
    b = found("b", profiles=["small"])
    assert b["from"] == "like a m.yaml:12"
    assert b["context.size"] == "profile small m.yaml:19"
    assert b["parameters.seed"] == "profile small m.yaml:20"
    assert b["parameters.stop"] == "model b m.yaml:16"
    assert b["context.threads"] == "model b m.yaml:16"
    assert b["template.file"] == "model b m.yaml:16"
    assert found("c")["limits.parallel"] == "model c more.yaml:1"
    assert found("nobody") == {}


def test_a_null_removes_the_origin_of_the_layer_below() -> None:
    text = "mullama: v1\ndefaults: {context: {size: 9, batch: 64}}\nmodels: {a: {from: builtin:tiny, context: null}}\n"
    assert found("a", text) == {"from": "model a m.yaml:3"}


def test_a_value_from_the_environment_shows_its_reference() -> None:
    loaded = read(TEXT, files=FILES, env={"WORDS": "Hello"})
    assert loaded.written is not None
    system = origins(loaded.written, "a")["system"]
    assert (system.reference, loaded.manifest.models["a"].system) == ("${WORDS:-Hi}", "Hello")


def test_values_that_are_made_of_others_have_their_origin() -> None:
    loaded = read(TEXT, files=FILES, env={})
    assert loaded.written is not None
    b = origins(loaded.written, "b")
    for path in ("template.text", "template.syntax"):
        origin = origin_of(b, path)
        assert origin is not None
        assert origin.place.line == 16
    assert origin_of(b, "limits.parallel") is None
    assert origin_of(b, "parameters.stop") is b["parameters.stop"]


KEYS = ("size", "batch", "threads")
NUMBERS = st.dictionaries(st.sampled_from(KEYS), st.integers(1, 64), max_size=3)
LAYER = st.dictionaries(st.sampled_from(KEYS), st.one_of(st.none(), st.integers(1, 64)), max_size=3)
Numbers = dict[str, int | None]


@given(NUMBERS, LAYER, LAYER)
def test_the_place_of_an_origin_holds_the_value(defaults: Numbers, other: Numbers, own: Numbers) -> None:
    lines = ["mullama: v1"]
    values: dict[int, int | None] = {}

    def write(*head: str, context: Numbers) -> None:
        lines.extend([*head, "    context:" + ("" if context else " {}")])
        for key, value in context.items():
            lines.append(f"      {key}: {'null' if value is None else value}")
            values[len(lines)] = value

    write("defaults:", context=defaults)
    write("models:", "  a:", "    from: builtin:tiny", context=other)
    write("  b:", "    like: a", context=own)
    loaded = read("\n".join(lines))
    assert loaded.written is not None
    stated = {path: one for path, one in origins(loaded.written, "b").items() if path.startswith("context.")}
    expected = {f"context.{key}": v for key, v in {**defaults, **other, **own}.items() if v is not None}
    assert {path: values[one.place.line] for path, one in stated.items()} == expected
    resolved = block_to_tree(loaded.manifest.models["b"].context)
    assert {path: resolved[path.removeprefix("context.")] for path in stated} == expected
