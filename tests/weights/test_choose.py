"""Which file of a repository is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import MullamaError, NotFound, Unsupported
from mullama.weights.choose import PREFERENCE, SUFFIXES, choose, choose_projector, quant_of, role

UPPER = ("README.md", "M-Q8_0.gguf", "M-Q4_K_M.gguf", "M-Q4_K_S.gguf", "M-F16.gguf", "mmproj-M-F16.gguf", "M.imatrix")
LOWER = ("m-q5_k_m.gguf", "m-q4_0.gguf", "m-fp16.gguf")
PARTS = ("m-q4_k_m-00002-of-00002.gguf", "m-q4_k_m-00001-of-00002.gguf", "m-q2_k.gguf")
FOLDERS = ("Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf", "BF16/m.gguf")


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("M-Q4_K_M.gguf", "Q4_K_M"),
        ("m.q4_k_m.gguf", "Q4_K_M"),
        ("m-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("M-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("M-IQ3_XXS.gguf", "IQ3_XXS"),
        ("m-fp16.gguf", "F16"),
        ("M-BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Qwen2.5-7B.gguf", ""),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("Q8_0/m-00001-of-00002.gguf", "Q8_0"),
        ("model-F16-Q8_0.gguf", "Q8_0"),
    ],
)
def test_a_name_tells_its_quantisation(name: str, quant: str) -> None:
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    ("names", "quants", "files"),
    [
        (UPPER, (), ("M-Q4_K_M.gguf",)),
        (LOWER, (), ("m-q5_k_m.gguf",)),
        (PARTS, (), ("m-q4_k_m-00001-of-00002.gguf", "m-q4_k_m-00002-of-00002.gguf")),
        (UPPER, ("q8_0",), ("M-Q8_0.gguf",)),
        (UPPER, SUFFIXES["q4"], ("M-Q4_K_M.gguf",)),
        (LOWER, SUFFIXES["q4"], ("m-q4_0.gguf",)),
        (LOWER, ("F16",), ("m-fp16.gguf",)),
        (FOLDERS, ("Q8_0",), ("Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf")),
        (("only.gguf", "mmproj.gguf"), (), ("only.gguf",)),
        ((*UPPER, "old/M-Q4_K_M.gguf"), (), ("M-Q4_K_M.gguf",)),
        (("M-UD-Q4_K_XL.gguf",), ("UD-Q4_K_XL",), ("M-UD-Q4_K_XL.gguf",)),
    ],
)
def test_a_wish_or_the_preference_picks_a_whole_set(
    names: tuple[str, ...], quants: tuple[str, ...], files: tuple[str, ...]
) -> None:
    assert choose(names, repo="r", quants=quants).files == files


@pytest.mark.parametrize(
    ("file", "files"),
    [
        ("M-Q8_0.gguf", ("M-Q8_0.gguf",)),
        ("m-q8_0.GGUF", ("M-Q8_0.gguf",)),
        ("mmproj-M-F16.gguf", ("mmproj-M-F16.gguf",)),
    ],
)
def test_a_named_file_is_found_whatever_its_case(file: str, files: tuple[str, ...]) -> None:
    assert choose(UPPER, repo="r", file=file).files == files


def test_any_named_part_stands_for_the_set() -> None:
    assert len(choose(PARTS, repo="r", file=PARTS[0]).files) == 2
    assert choose(FOLDERS, repo="r", file="m-00002-of-00002.gguf").files == FOLDERS[:2]


def test_a_missing_wish_says_what_the_repository_offers() -> None:
    with pytest.raises(NotFound, match=r"has no Q6_K file.*it has F16, Q4_K_M, Q4_K_S, Q8_0"):
        choose(UPPER, repo="org/r", quants=("Q6_K",))
    with pytest.raises(NotFound, match=r"no file 'M-Q4_KM.gguf'.*M-Q4_K_M.gguf") as caught:
        choose(UPPER, repo="org/r", file="M-Q4_KM.gguf")
    assert caught.value.near[0] == "M-Q4_K_M.gguf"
    with pytest.raises(NotFound, match=r"lacks 'x-00001-of-00002.gguf'"):
        choose(("x-00002-of-00002.gguf",), repo="r", file="x-00002-of-00002.gguf")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("model-00001-of-00002.safetensors", "config.json"), "safetensors"),
        (("pytorch_model.bin",), "PyTorch"),
        (("m-awq/model.safetensors",), "AWQ"),
        (("m.onnx",), "ONNX"),
    ],
)
def test_other_formats_are_refused_with_their_name(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        choose(names, repo="org/r")
    with pytest.raises(MullamaError):
        choose(names, repo="org/r", file=names[0])


def test_a_set_with_a_hole_is_never_offered() -> None:
    names = ("m-q4_k_m-00001-of-00002.gguf", "m-q8_0.gguf")
    assert choose(names, repo="r").files == ("m-q8_0.gguf",)


def test_projectors_are_chosen_among_projectors() -> None:
    assert choose_projector(UPPER, repo="r") == "mmproj-M-F16.gguf"
    assert choose_projector(("mmproj-a-bf16.gguf", "mmproj-a-f16.gguf"), repo="r") == "mmproj-a-f16.gguf"
    assert choose_projector(("x.gguf", "mmproj-b.gguf"), repo="r", file="MMPROJ-B.gguf") == "mmproj-b.gguf"
    with pytest.raises(NotFound):
        choose_projector(("x.gguf",), repo="r")


def test_roles_follow_from_names() -> None:
    names = ("a.gguf", "A.GGUF", "x/mmproj-f16.gguf", "m.imatrix.gguf", "a.bin")
    assert [role(name) for name in names] == ["weights", "weights", "projector", "other", "other"]


@given(st.lists(st.text(max_size=30), max_size=12), st.none() | st.text(max_size=30), st.sampled_from(PREFERENCE))
def test_any_list_of_names_gives_files_of_it_or_our_error(names: list[str], file: str | None, quant: str) -> None:
    try:
        choice = choose(names, repo="r", file=file, quants=(quant,))
    except MullamaError:
        return
    assert set(choice.files) <= set(names)
