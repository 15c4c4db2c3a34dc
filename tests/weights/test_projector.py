"""A projector tells by its header what it reads, and how wide its vectors are where llama.cpp reads the same tensor."""

from __future__ import annotations

import pytest

from mullama.errors import BadWeights
from mullama.weights.choose import projector_beside
from mullama.weights.facts import EncoderWork, ProjectorFacts
from mullama.weights.inspect import inspect
from mullama.weights.record import for_lock, from_json, to_json
from tests import ggufs


def facts(file: ggufs.File) -> ProjectorFacts | None:
    return inspect([ggufs.reader(file.bytes())]).projector


def test_the_keys_of_the_encoders_decide() -> None:
    assert facts(ggufs.projector(96)) == ProjectorFacts(vision=True, width=96)
    assert facts(ggufs.projector(96, vision=False, audio=True)) == ProjectorFacts(
        audio=True, audio_type="ultravox", width=96
    )
    assert facts(ggufs.projector(96, audio=True)) == ProjectorFacts(vision=True, audio=True, width=96)
    assert facts(ggufs.model()) is None


def test_a_file_without_these_keys_has_the_encoders_of_its_tensors() -> None:
    bare = ggufs.File({"general.architecture": ggufs.string("clip")}, {"a.conv1d.0.weight": ggufs.Stored((32, 4))})
    assert facts(bare) == ProjectorFacts(audio=True)


@pytest.mark.parametrize(
    ("kind", "tensor", "shape"),
    [
        ("mlp", "mm.3.bias", (80,)),
        ("qwen2vl_merger", "mm.2.bias", (80,)),
        ("gemma3", "mm.input_projection.weight", (80, 32)),
        ("idefics3", "mm.model.fc.weight", (32, 80)),
        ("resampler", "resampler.proj.weight", (80, 64)),
        ("ultravox", "mm.a.mlp.2.weight", (32, 80)),
        ("janus_pro", "mm.1.bias", (80,)),
        ("qwen3a", "mm.a.mlp.2.weight", (32, 80)),
    ],
)
def test_the_width_is_read_where_llama_cpp_reads_it(kind: str, tensor: str, shape: tuple[int, ...]) -> None:
    keys = {"general.architecture": ggufs.string("clip"), "clip.projector_type": ggufs.string(kind)}
    file = ggufs.File(keys, {"v.patch_embd.weight": ggufs.Stored((32, 4)), tensor: ggufs.Stored(shape)})
    found = facts(file)
    assert found is not None
    assert found.width == 80


def test_the_width_of_an_unknown_type_is_not_told() -> None:
    keys = {"general.architecture": ggufs.string("clip"), "clip.projector_type": ggufs.string("new")}
    found = facts(ggufs.File(keys, {"v.patch_embd.weight": ggufs.Stored((32, 4))}))
    assert found == ProjectorFacts(vision=True)


@pytest.mark.parametrize(
    "keys",
    [
        {"clip.projector_type": ggufs.string("qwen3tts_spkenc")},
        {"clip.audio.projector_type": ggufs.string("pockettts_spkenc")},
        {"clip.has_gen_audio_encoder": ggufs.Entry(ggufs.BOOL, True)},
    ],
)
def test_a_projector_that_makes_speech_hears_no_words(keys: dict[str, ggufs.Entry]) -> None:
    file = ggufs.File({"general.architecture": ggufs.string("clip"), **keys}, {"a.x": ggufs.Stored((32, 4))})
    with pytest.raises(BadWeights, match="makes speech"):
        facts(file)


def test_the_facts_of_a_projector_come_back_from_a_lock_file() -> None:
    whole = inspect([ggufs.reader(ggufs.projector(96).bytes())])
    assert from_json(to_json(for_lock(whole))).projector == whole.projector


@pytest.mark.parametrize(
    ("weights", "files", "found"),
    [
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf", "mmproj-model-f16.gguf"), "mmproj-model-f16.gguf"),
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-F16.gguf"), "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"), "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf", "other-Q4_K_M.gguf", "mmproj-F16.gguf"), None),
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf", "other.gguf", "mmproj-other-F16.gguf"), None),
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf", "other.gguf", "m-mmproj-f16.gguf"), "m-mmproj-f16.gguf"),
        ("m-00001-of-00002.gguf", ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-m.gguf"), "mmproj-m.gguf"),
        ("m.gguf", ("m.gguf", "notes.txt"), None),
    ],
)
def test_the_projector_beside_weights_is_the_only_one_or_that_of_their_name(
    weights: str, files: tuple[str, ...], found: str | None
) -> None:
    assert projector_beside(weights, files) == found


def encoder(kind: str, *, size: int = 448, **numbers: int) -> EncoderWork:
    """The work of an encoder of images with rows of 8 and 32 numbers."""
    keys = {"embedding_length": 8, "feed_forward_length": 32, "image_size": size, "patch_size": 14, **numbers}
    file = ggufs.File(
        {
            "general.architecture": ggufs.string("clip"),
            "clip.projector_type": ggufs.string(kind),
            **{f"clip.vision.{name}": ggufs.u32(number) for name, number in keys.items()},
        },
        {"v.patch_embd.weight": ggufs.Stored((32, 4))},
    )
    found = facts(file)
    assert found is not None
    (work,) = found.work
    return work


MERGED = "spatial_merge_size"


@pytest.mark.parametrize(
    ("kind", "numbers", "positions", "merged"),
    [
        ("mlp", {}, 1024, 0),
        ("gemma3", {"size": 896}, 4096, 0),
        ("qwen2vl_merger", {}, 4096 * 4, 4),
        ("qwen3vl_merger", {MERGED: 3}, 4096 * 9, 9),
        ("pixtral", {MERGED: 2}, 1024 * 4, 4),
        ("lfm2", {"projector.scale_factor": 2}, 256 * 4, 4),
        ("internvl", {"projector.scale_factor": 2}, 4 * 1024, 0),
        ("paddleocr", {"image_max_pixels": 14 * 14 * 500}, 500, 4),
        ("gemma4uv", {"projector.scale_factor": 3}, 1120, 1),
        ("new", {}, 1024, 0),
    ],
)
def test_the_largest_image_of_an_encoder(kind: str, numbers: dict[str, int], positions: int, merged: int) -> None:
    work = encoder(kind, **numbers)
    assert (work.positions, work.merged) == (positions, merged)
    assert work.bytes(2**20) >= positions * 4 * (32 + 2 * 8)


def test_an_encoder_with_windows_has_a_mask_over_pairs_of_patches() -> None:
    assert encoder("qwen2.5vl_merger").bytes(4096) > (4096 * 4) ** 2 * 4 > 8 * encoder("qwen2vl_merger").bytes(4096)


@pytest.mark.parametrize("value", [ggufs.string("14"), ggufs.Entry(ggufs.BOOL, True)])
def test_a_header_without_the_sizes_of_an_encoder_has_no_work(value: ggufs.Entry) -> None:
    keys = {"general.architecture": ggufs.string("clip"), "clip.vision.embedding_length": ggufs.u32(8)}
    file = ggufs.File({**keys, "clip.vision.patch_size": value}, {"v.patch_embd.weight": ggufs.Stored((32, 4))})
    assert facts(file) == ProjectorFacts(vision=True)


def whisper(kind: str, **changes: int) -> ggufs.File:
    """A header of a projector of sounds: stack, width, positions and the number of biases of keys."""
    numbers = {"stack": 8, "width": 1280, "positions": 1500, "keys": 0, **changes}
    biases = ("attn_q.bias", "attn_v.bias", *(("attn_k.bias",) if numbers["keys"] else ()))
    return ggufs.File(
        {
            "general.architecture": ggufs.string("clip"),
            "clip.projector_type": ggufs.string(kind),
            "clip.audio.projector.stack_factor": ggufs.u32(numbers["stack"]),
            "clip.audio.embedding_length": ggufs.u32(numbers["width"]),
        },
        {
            "a.position_embd.weight": ggufs.Stored((32, numbers["positions"])),
            "a.blk.0.attn_q.weight": ggufs.Stored((32, 32)),
            **{f"a.blk.0.{name}": ggufs.Stored((32,)) for name in biases},
        },
    )


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("ultravox", {}), ("voxtral", {"stack": 4}), ("qwen2a", {"stack": 1}), ("ultravox", {"stack": 4, "width": 32})],
)
def test_projectors_of_real_sizes_pass(kind: str, changes: dict[str, int]) -> None:
    found = facts(whisper(kind, **changes))
    assert found is not None
    assert found.audio


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("ultravox", {"stack": 0}, "stack_factor"),
        ("ultravox", {"width": 1024}, "libmtmd counts 187 vectors of a sound and makes 188"),
        ("voxtral", {"stack": 4, "width": 32}, "libmtmd counts 187 vectors of a sound and makes 188"),
        ("qwen2a", {"positions": 100}, "has 100 positions, and a sound takes 1500"),
        ("glma", {"keys": 1}, "needs biases of queries and values, and none of keys"),
    ],
)
def test_a_header_with_which_libmtmd_would_end_its_process_is_refused(
    kind: str, changes: dict[str, int], words: str
) -> None:
    with pytest.raises(BadWeights, match=words):
        facts(whisper(kind, **changes))
