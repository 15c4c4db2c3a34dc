"""Which file of a repository is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid, MullamaError, NotFound, Unsupported
from mullama.weights.choose import PREFERENCE, SUFFIXES, choose, choose_projector, header_role, quant_of, role

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


UNSLOTH = (
    "Big-Q4_K_M.gguf", "Big-UD-Q4_K_M.gguf", "Big-UD-Q4_K_XL.gguf", "Big-Q8_0.gguf", "mmproj-F16.gguf",
    "BF16/Big-BF16-00001-of-00002.gguf", "BF16/Big-BF16-00002-of-00002.gguf", "mmproj-BF16.gguf",
    "imatrix_unsloth.gguf",
)  # fmt: skip
DRAFTED = ("Big-UD-Q4_K_XL.gguf", "MTP/Big-draft-Q4_K_M.gguf")
PHI = ("Phi-3-mini-4k-instruct-fp16.gguf", "Phi-3-mini-4k-instruct-q4.gguf", "README.md")
TTS = ("OuteTTS-0.3-500M-Q8_0.gguf", "WavTokenizer-Large-75-F16.gguf", "WavTokenizer-Large-75-Q4_K_M.gguf")
LORA = ("base-Q8_0.gguf", "lora/style-Q4_K_M.gguf", "ggml-adapter-model-Q4_K_M.gguf", "style-lora-Q4_K_M.gguf")
LLAVA = ("llava-v1.6-mistral-7b.Q3_K_XS.gguf", "llava-v1.6-mistral-7b.Q6_K.gguf", "mmproj/model-Q4_K_M.gguf")
SMALL_DRAFT = ("R1-DRAFT-0.6B-Q4_0.gguf", "R1-DRAFT-0.6B-Q8_0.gguf")
IMATRIX = ("Model-Q4_K_M-imatrix.gguf", "Model.imatrix.gguf", "imatrix.gguf")
FORKS = ("m-IQ4_KS.gguf", "m-Q4_0_4_4.gguf", "m-IQ1_S.gguf")


@pytest.mark.parametrize(
    ("names", "repo", "wish", "chosen"),
    [
        (UNSLOTH, "hf:u/Big-GGUF", "", "Big-Q4_K_M.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "Q4_K_M", "Big-Q4_K_M.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "UD-Q4_K_M", "Big-UD-Q4_K_M.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "ud-q4_k_xl", "Big-UD-Q4_K_XL.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "Q4_K_XL", "Big-UD-Q4_K_XL.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "bf16", "BF16/Big-BF16-00001-of-00002.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "Q8", "Big-Q8_0.gguf"),
        (UNSLOTH, "hf:u/Big-GGUF", "Q4_K", "Big-Q4_K_M.gguf"),
        (DRAFTED, "hf:u/Big-GGUF", "", "Big-UD-Q4_K_XL.gguf"),
        (DRAFTED, "hf:u/Big-GGUF", "draft-Q4_K_M", "MTP/Big-draft-Q4_K_M.gguf"),
        (PHI, "hf:microsoft/Phi-3-mini-4k-instruct-gguf", "", "Phi-3-mini-4k-instruct-q4.gguf"),
        (PHI, "hf:microsoft/Phi-3-mini-4k-instruct-gguf", "Q4", "Phi-3-mini-4k-instruct-q4.gguf"),
        (PHI, "hf:microsoft/Phi-3-mini-4k-instruct-gguf", "fp16", "Phi-3-mini-4k-instruct-fp16.gguf"),
        (PHI, "hf:microsoft/Phi-3-mini-4k-instruct-gguf", "F16", "Phi-3-mini-4k-instruct-fp16.gguf"),
        (TTS, "hf:OuteAI/OuteTTS-0.3-500M-GGUF", "", "OuteTTS-0.3-500M-Q8_0.gguf"),
        (LORA, "hf:acme/base-GGUF", "", "base-Q8_0.gguf"),
        (LLAVA, "hf:cjpais/llava-1.6-mistral-7b-gguf", "", "llava-v1.6-mistral-7b.Q6_K.gguf"),
        (SMALL_DRAFT, "hf:j/R1-DRAFT-0.6B-GGUF", "", "R1-DRAFT-0.6B-Q4_0.gguf"),
        (SMALL_DRAFT, "hf:j/small", "", "R1-DRAFT-0.6B-Q4_0.gguf"),
        (IMATRIX, "hf:l/Model-GGUF-Imatrix", "", "Model-Q4_K_M-imatrix.gguf"),
        (FORKS, "hf:i/m", "", "m-IQ1_S.gguf"),
        (FORKS, "hf:i/m", "iq4_ks", "m-IQ4_KS.gguf"),
        (("m-NVFP4.gguf", "m-BF16.gguf"), "hf:n/m", "", "m-NVFP4.gguf"),
        (("m-Q6_K_L.gguf", "m-F16.gguf", "m-f32.gguf"), "hf:b/m", "", "m-Q6_K_L.gguf"),
        (("m-Q3_K_XL.gguf", "m-Q2_K_XL.gguf"), "hf:b/m", "", "m-Q3_K_XL.gguf"),
        (("m-Q4_K_M_v2.gguf", "m-Q8_0.gguf"), "hf:b/m", "", "m-Q4_K_M_v2.gguf"),
        (("m-q5_k_m.gguf", *(f"m-q5_k_m-0000{part}-of-00002.gguf" for part in (1, 2))), "hf:q/m", "", "m-q5_k_m.gguf"),
        (("7b-Q8_0.gguf", "13b-Q8_0.gguf"), "hf:b/m", "13b", "13b-Q8_0.gguf"),
    ],
)  # fmt: skip
def test_real_listings(names: tuple[str, ...], repo: str, wish: str, chosen: str) -> None:
    assert choose(names, repo=repo, quants=(wish,) if wish else ()).files[0] == chosen
    assert choose(tuple(reversed(names)), repo=repo, quants=(wish,) if wish else ()).files[0] == chosen


@pytest.mark.parametrize(
    ("names", "wish"),
    [
        (("7b-Q4_K_M.gguf", "13b-Q4_K_M.gguf"), ""),
        (("7b-Q4_K_M.gguf", "13b-Q4_K_M.gguf"), "Q4_K_M"),
        (("a.gguf", "b.gguf"), ""),
        (("v1/m-Q8_0.gguf", "v2/m-Q8_0.gguf"), ""),
        (("m-Q8_0.gguf", "m-abliterated-Q8_0.gguf", "m-Q2_K.gguf"), "q8_0"),
    ],
)
def test_a_tie_lists_the_files_that_fit(names: tuple[str, ...], wish: str) -> None:
    with pytest.raises(Invalid, match="2 files that fit equally well") as caught:
        choose(names, repo="hf:org/r", quants=(wish,) if wish else ())
    assert all(name in caught.value.hint for name in names[:2])


@pytest.mark.parametrize("wish", ["Q4_K_M", "UD-Q8_0"])
def test_neither_a_companion_nor_a_plain_file_stands_in_for_a_wish(wish: str) -> None:
    with pytest.raises(NotFound, match=rf"has no {wish} file.*it has Q8_0, UD-Q4_K_XL"):
        choose((*DRAFTED, "Big-Q8_0.gguf"), repo="hf:u/Big-GGUF", quants=(wish,))


def test_in_a_part_of_the_files_of_a_repository_a_companion_is_not_the_model() -> None:
    with pytest.raises(NotFound):
        choose(("MTP/Big-draft-Q4_K_M.gguf",), repo="hf:u/Big-GGUF", complete=False)


@pytest.mark.parametrize(
    ("architecture", "kind", "tensors", "expected"),
    [
        ("llama", "model", 5, "weights"), ("clip", "model", 5, "projector"), ("llama", "adapter", 5, "adapter"),
        ("gemma4-assistant", "model", 5, "drafter"), ("wavtokenizer-dec", "model", 5, "vocoder"),
        ("", "imatrix", 5, "imatrix"), ("llama", "model", 0, "vocabulary"), ("qwen2", "mmproj", 5, "projector"),
    ],
)  # fmt: skip
def test_a_header_tells_the_role(architecture: str, kind: str, tensors: int, expected: str) -> None:
    assert header_role(architecture, kind, tensors) == expected


def test_the_header_has_precedence_over_a_name() -> None:
    names = ("main-Q8_0.gguf", "extra-Q4_K_M.gguf")
    assert choose(names, repo="r", by_header={names[1]: "drafter", names[0]: "weights"}).files == names[:1]
