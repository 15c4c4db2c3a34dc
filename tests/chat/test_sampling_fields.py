"""One table of sampling parameters: the manifest, the requests and the engine have its fields and ranges."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.sampling_fields import SAMPLING_FIELDS, SamplingField, fold_seed
from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.dialects import DIALECTS
from mullama.dialects.sampling import SAMPLING
from mullama.engines.llamacpp.sampling.sampler import invalid_setting
from mullama.manifest.modelfile.spec import PARAMETERS
from mullama.manifest.spec.definitions import Parameters
from mullama.struct import replace

IN_MANIFEST = Parameters.model_json_schema()["properties"]
IN_REQUEST = {field.name: field for field in SAMPLING}
KINDS = {int: "integer", float: "number"}


def test_the_table_has_every_number_of_the_sampling_settings() -> None:
    numbers = [name for name, kind in Sampling.__annotations__.items() if kind.startswith(("int", "float"))]
    assert list(SAMPLING_FIELDS) == numbers


@pytest.mark.parametrize("field", SAMPLING_FIELDS.values(), ids=str)
def test_the_default_is_in_range(field: SamplingField) -> None:
    assert field.low <= field.default <= field.high
    assert type(field.default) is field.type


@pytest.mark.parametrize("field", SAMPLING_FIELDS.values(), ids=str)
def test_the_manifest_has_the_type_and_range(field: SamplingField) -> None:
    schema: dict[str, Any] = IN_MANIFEST[field.name]["anyOf"][0]
    assert schema["type"] == KINDS[field.type]
    if "enum" in schema:
        assert schema["enum"] == list(range(int(field.low), int(field.high) + 1))
    else:
        assert (schema["minimum"], schema["maximum"]) == (field.low, field.high)
    assert IN_MANIFEST[field.name]["description"].startswith(field.description)
    assert PARAMETERS[field.name] == {int: "whole", float: "number"}[field.type]


@pytest.mark.parametrize("field", SAMPLING_FIELDS.values(), ids=str)
def test_a_request_has_the_type_and_range(field: SamplingField) -> None:
    schema = IN_REQUEST[field.name].schema
    assert schema["type"] == KINDS[field.type]
    assert (schema["minimum"], schema["maximum"]) == (field.low, field.high)


def test_every_endpoint_has_the_ranges_of_the_table() -> None:
    checked = 0
    for dialect in DIALECTS.values():
        for endpoint in dialect.endpoints:
            schema: Any = endpoint.request_schema or {}
            options = schema.get("properties", {}).get("options", {})
            for name, found in {**options.get("properties", {}), **schema.get("properties", {})}.items():
                if name in SAMPLING_FIELDS and "minimum" in found:
                    field = SAMPLING_FIELDS[name]
                    assert (found["minimum"], found["maximum"]) == (field.low, field.high), (endpoint.path, name)
                    checked += 1
    assert checked > 100


@pytest.mark.parametrize("field", SAMPLING_FIELDS.values(), ids=str)
def test_the_engine_takes_the_range_and_no_more(field: SamplingField) -> None:
    for value in (field.low, field.high):
        assert invalid_setting(replace(DEFAULT_SAMPLING, **{field.name: value}), 100) is None
    for value in (field.low * 2 - 1, field.high * 2 + 1, float("nan")):
        assert field.name in str(invalid_setting(replace(DEFAULT_SAMPLING, **{field.name: value}), 100))


def test_seeds_are_folded_to_32_bits() -> None:
    assert [fold_seed(seed) for seed in (-1, 0, 7, 2**32 - 1, 2**53, -2)] == [
        None, 0, 7, 0, 2**53 % (2**32 - 1), 2**32 - 3,
    ]  # fmt: skip
