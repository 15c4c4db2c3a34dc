"""Names of models: what clients may call the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.names import ModelName, model_name_of, parse_source


@pytest.mark.parametrize(
    "text", ["qwen3", "Qwen3", "qwen3:latest", "library/qwen3", "registry.ollama.ai/library/qwen3:latest"]
)
def test_one_model_has_ollamas_longer_names_too(text: str) -> None:
    assert ModelName.parse(text).key == "qwen3"


@pytest.mark.parametrize("text", ["qwen3:8b", "mine/qwen3", "hf.co/library/qwen3", "library/mine/qwen3"])
def test_other_models_keep_their_names(text: str) -> None:
    assert ModelName.parse(text).key == text


def test_a_namespace_of_ollamas_registry_stays() -> None:
    assert ModelName.parse("registry.ollama.ai/mine/qwen3").key == "mine/qwen3"


@pytest.mark.parametrize("text", ["", "/a", "a//b", "../a", "a:b:c", "a b", "a/", "e\u0301", "a\0"])
def test_what_could_mean_something_else_is_no_name(text: str) -> None:
    with pytest.raises(Invalid, match="not a model name"):
        ModelName.parse(text)


@given(st.text(max_size=400), st.integers(min_value=2, max_value=10**6))
def test_any_text_becomes_a_name_that_clients_can_call(text: str, number: int) -> None:
    name = ModelName.fitting(text)
    assert ModelName.parse(name.text) == name
    assert ModelName.parse(name.numbered(number).text) == name.numbered(number) != name


@pytest.mark.parametrize("text", ["qwen3:8b", "mine/qwen3", "a" * 80, "a/b/c/d:e"])
def test_a_name_fits_as_it_is(text: str) -> None:
    assert ModelName.fitting(text).text == text


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("./my model (v2).gguf", "my-model-v2"),
        ("/m/m\u00f6del.gguf", "m-del"),
        ("./\u65e5\u672c.gguf", "model"),
        ("/m/" + "x" * 100 + ".gguf", "x" * 80),
        ("./folder/", "folder"),
        ("https://h/My%20Model.gguf?sig=1", "My-Model"),
        ("https://h/m.gguf#a", "m"),
        ("hf:org/repo:Q4_K_M", "org/repo:Q4_K_M"),
        ("hf:org/repo:sub/m-Q8_0.gguf", "org/repo:m-Q8_0"),
        ("ollama:qwen3:8b", "qwen3:8b"),
        ("builtin:tiny", "tiny"),
    ],
)
def test_a_source_without_a_name_has_one_of_its_own(source: str, name: str) -> None:
    assert model_name_of(source) == name


@pytest.mark.parametrize("text", ["./b\udcff.gguf", "/m/\ud800/x.gguf", "hf:org/r:\udcff.gguf", "\udcff"])
def test_a_name_that_is_not_utf8_is_refused_by_that_name(text: str) -> None:
    with pytest.raises(Invalid, match="is not UTF-8"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://example.org/x.gguf", "not encrypted"), ("http://127.evil.example/x.gguf", "not encrypted"),
        ("https://h/x.bin", "does not end in .gguf"), ("https://h:port/x.gguf", "not a URL"),
        ("https://[::1/x.gguf", "not a URL"), ("ftp://h/x.gguf", "not a URL"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_downloaded_is_refused_where_it_is_read(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        parse_source(text)


@pytest.mark.parametrize("text", ["http://localhost:1/x.gguf", "http://[::1]:2/x%2Egguf", "https://h/x.GGUF?sig=1"])
def test_an_address_of_a_gguf_file_is_a_source(text: str) -> None:
    assert str(parse_source(text)) == text
