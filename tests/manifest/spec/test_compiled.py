"""The compiled blocks do what their definitions, the pydantic models, do."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import ValidationError

from mullama.manifest import spec
from mullama.manifest.spec import compiled, definitions, emit
from tests.manifest.test_tree import EXTREMES, TREES, blocks

NAMES = tuple(name for name in definitions.__all__ if name != "Block")
FALLBACK = emit.blocks()
WRONG = st.dictionaries(st.sampled_from([*definitions.Model.model_fields, "from", "x"]), st.sampled_from(EXTREMES))


def outcome(block: Any, tree: Mapping[str, Any]) -> Any:
    """Return the values of a validated tree, or the errors in it."""
    try:
        made = block.model_validate(tree)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return [(e["type"], e["loc"], {name: str(value) for name, value in e.get("ctx", {}).items()}) for e in found]
    options = {"mode": "json", "by_alias": True, "exclude_none": True}
    return (
        made.model_dump(**options),
        made.model_dump(**options, exclude_defaults=True),
        made.model_dump(**options, exclude_unset=True),
        made.model_fields_set,
        repr(made),
    )


def same(name: str, tree: Mapping[str, Any]) -> None:
    expected = outcome(getattr(definitions, name), copy.deepcopy(tree))
    assert outcome(getattr(spec, name), copy.deepcopy(tree)) == expected
    assert outcome(FALLBACK[name], copy.deepcopy(tree)) == expected


def test_every_block_is_compiled() -> None:
    assert set(FALLBACK) >= set(NAMES)
    assert all(issubclass(getattr(spec, name), compiled.CompiledBlock) for name in NAMES)


def test_every_property_of_a_definition_is_compiled() -> None:
    for name in NAMES:
        declared = {key for key, value in vars(getattr(definitions, name)).items() if isinstance(value, property)}
        assert declared == set(compiled.DERIVED.get(name, {}))


@settings(max_examples=30)
@given(tree=TREES)
def test_a_model_is_read_as_its_definition_reads_it(tree: dict[str, Any]) -> None:
    same("Model", tree)


@pytest.mark.parametrize("name", ["Server", "Auth", "Sources", "Hardware", "Observability", "Sync", "Group"])
@settings(max_examples=8)
@given(data=st.data())
def test_a_block_is_read_as_its_definition_reads_it(name: str, data: st.DataObject) -> None:
    same(name, data.draw(blocks(name)))


@settings(max_examples=30)
@given(tree=WRONG)
def test_mistakes_are_those_of_the_definition(tree: dict[str, Any]) -> None:
    same("Model", tree)


@pytest.mark.parametrize(
    "limits", [{"timeout": "0s"}, {"timeout": -1}, {"timeout": "never"}, {"parallel": 0}, {"parallel": True}, {"x": 1}]
)
def test_bounds_are_those_of_the_definition(limits: dict[str, Any]) -> None:
    same("Limits", limits)


@pytest.mark.parametrize("listen", [[], ["127.0.0.1:1"], ["nowhere"], [1], "127.0.0.1:1"])
def test_lists_are_those_of_the_definition(listen: Any) -> None:
    same("Server", {"listen": listen})


@pytest.mark.parametrize("route", ["a", "", 1, {"to": []}, {"to": [{"model": "a"}]}, {"to": [{"model": 1}], "x": 2}])
def test_routes_are_those_of_the_definition(route: Any) -> None:
    same("Manifest", {"mullama": "v1", "routes": {"default": route}})


def test_a_route_that_is_validated_already_is_kept() -> None:
    route = spec.Route(to=({"model": "a"},))  # type: ignore[arg-type]
    assert spec.Manifest(mullama="v1", routes={"default": route}).routes["default"] == route


def test_a_block_is_immutable_and_compared_by_value() -> None:
    kv = spec.Kv(k="q8_0")
    with pytest.raises(ValidationError, match="frozen"):
        kv.k = "f16"  # type: ignore[misc]
    assert kv == spec.Kv(k="q8_0", v="f16") != spec.Kv()
    assert len({kv, spec.Kv(k="q8_0"), spec.Kv()}) == 2
    assert kv != definitions.Kv(k="q8_0")


def test_a_copy_has_the_new_values_and_counts_them_as_set() -> None:
    kv = spec.Kv(k="q8_0")
    copied = kv.model_copy(update={"v": "q4_0"})
    assert (copied.k, copied.v, copied.model_fields_set) == ("q8_0", "q4_0", {"k", "v"})
    assert (kv.v, kv.model_fields_set) == ("f16", {"k"})
    assert copy.deepcopy(copied) == copied


def test_a_block_has_the_text_of_its_definition() -> None:
    assert {name: inspect.getdoc(getattr(spec, name)) for name in NAMES} == {
        name: " ".join((inspect.getdoc(getattr(definitions, name)) or "").split()) for name in NAMES
    }


def test_a_manifest_is_read_without_pydantic() -> None:
    code = "import sys, mullama.manifest.load; print({'pydantic', 'pydantic_core.core_schema'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_pydantic_finds_its_core_whole_afterwards() -> None:
    code = "import mullama.manifest.spec, pydantic_core.core_schema as c, pydantic; print(c.str_schema()['type'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "str\n"
