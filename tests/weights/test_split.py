"""Part numbers in file names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.weights.split import split_name, stem


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("m.gguf", ("m.gguf",)),
        ("m-00001-of-00002.gguf", ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")),
        ("a/m-00002-of-00002.GGUF", ("a/m-00001-of-00002.GGUF", "a/m-00002-of-00002.GGUF")),
        ("m-00001-of-00001.gguf", ("m-00001-of-00001.gguf",)),
        ("m-1-of-2.gguf", ("m-1-of-2.gguf",)),
        ("m-00001-of-00002.bin", ("m-00001-of-00002.bin",)),
    ],
)
def test_any_part_names_its_whole_set(name: str, parts: tuple[str, ...]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["m-00003-of-00002.gguf", "m-00000-of-00002.gguf", "m-00001-of-99999.gguf"])
def test_impossible_parts_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        split_name(name)


@given(st.text(max_size=20), st.integers(1, 20), st.data())
def test_all_parts_of_a_set_name_the_same_set(prefix: str, count: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, count))
    parts = split_name(f"{prefix}-{number:05d}-of-{count:05d}.gguf")
    assert len(parts) == count
    assert all(split_name(part) == parts for part in parts)
    assert {stem(part) for part in parts} == {prefix}
