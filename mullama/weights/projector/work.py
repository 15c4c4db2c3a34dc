"""The work buffers of a projector: the memory that libmtmd takes at the first image or sound, beside the weights. Pure.

The graph of an encoder is computed for all positions at once: patches of an image, or pairs of spectra of a sound. Its
buffer is that of the largest set of live tensors, which is one of five stages: the convolution of the input, the
attention, the feed-forward rows, the rows of the output, and a mask over pairs of positions where layers have windows.
The sizes of the largest image are those of tools/mtmd/clip.cpp. The tests compare the estimate with the sizes that
libmtmd reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mullama.struct import Struct
from mullama.weights.facts import EncoderWork
from mullama.weights.keys import Keys
from mullama.weights.tensors import Tensor


class _Images(Struct, frozen=True, kw_only=True):
    """The largest image of one type of projector."""

    tokens: int = 0
    """Vectors of it; 0 for tiles that have the size of the file."""
    pixels: bool = False
    """True where a key of the file has its pixels."""
    merge: int = 1
    """Patches of each side that become one vector, where no key of the file says so."""
    windows: bool = False
    """True for a mask over pairs of patches."""
    batch: int = 0
    """Most vectors of the tiles that are encoded together."""


_BATCH: Final = 1024  # batch_max_tokens of mtmd_context_params_default
# By clip.projector_type, see clip_model_loader::load_hparams, and `support_batch` of models/models.h. All others have
# tiles of image_size, which are encoded one by one.
_IMAGES: Final[Mapping[str, _Images]] = {
    "qwen2vl_merger": _Images(tokens=4096, merge=2),
    "qwen2.5vl_merger": _Images(tokens=4096, merge=2, windows=True),
    "qwen2.5o": _Images(tokens=4096, merge=2, windows=True),
    "qwen3vl_merger": _Images(tokens=4096, merge=2),
    "ling3vl": _Images(tokens=4096, merge=2),
    "glm4v": _Images(tokens=4096, merge=2),
    "glm5v": _Images(pixels=True, merge=2),
    "muse-glimmer": _Images(tokens=4096, merge=2, windows=True),
    "kimik25": _Images(tokens=4096, pixels=True),
    "kimivl": _Images(tokens=1024),
    "pixtral": _Images(tokens=1024),
    "lfm2": _Images(tokens=256),
    "gemma3": _Images(merge=4),
    "gemma4v": _Images(tokens=1120, merge=3, batch=_BATCH),
    "gemma4uv": _Images(tokens=1120, merge=3),
    "minimax_m3": _Images(tokens=576, merge=2),
    "hunyuanvl": _Images(tokens=16384, pixels=True, merge=2),
    "youtuvl": _Images(tokens=62500, merge=2, windows=True),
    "internvl": _Images(batch=_BATCH),
    "deepseekocr": _Images(batch=_BATCH),
    "deepseekocr2": _Images(batch=_BATCH),
    "exaone4_5": _Images(pixels=True, merge=2, windows=True),
    "mimovl": _Images(pixels=True, merge=2, windows=True),
    "paddleocr": _Images(pixels=True, merge=2),
    "dots_ocr": _Images(pixels=True),
    "dots3note_v": _Images(pixels=True),
    "phi4": _Images(pixels=True),
}
_POSITIONS: Final = 1500
"""Positions of a sound of 30 seconds, each of two spectra. A longer sound is cut, or filled up to as many."""
_CHUNK, _CHUNKS = (100, 128), 30
"""Spectra and bins of the chunks of such a sound that the convolutions of `qwen3a` read."""
_KERNEL: Final = 4  # dimensions of the matrix of a convolution over two: width, height, inputs, outputs
_NUMBER, _HALF = 4, 2  # bytes of numbers of 32 and 16 bits


class _Encoder(Struct, frozen=True, kw_only=True):
    """The numbers of the rows of an encoder."""

    width: int
    hidden: int
    """Of the feed-forward rows."""
    gated: bool
    fused: bool
    """True for queries, keys and values of one matrix."""
    output: int
    """Of a vector that the weights read."""


def encoder_work(keys: Keys, tensors: Sequence[Tensor], *, vision: bool, audio: bool) -> tuple[EncoderWork, ...]:
    """Return the work of each encoder of a projector, without those whose sizes the header lacks."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    output = max((tensor.shape[-1] for tensor in tensors if _gives_vectors(tensor)), default=0)
    found = []
    if vision and (encoder := _encoder(keys, shapes, "vision", "v", output)):
        found.append(_of_images(keys, shapes, encoder))
    if audio and (encoder := _encoder(keys, shapes, "audio", "a", output)):
        found.append(_of_sounds(keys, shapes, encoder))
    return tuple(work for work in found if work is not None)


def _gives_vectors(tensor: Tensor) -> bool:
    return tensor.name.startswith("mm.") and tensor.name.endswith(".weight") and len(tensor.shape) == 2


def _encoder(keys: Keys, shapes: Mapping[str, tuple[int, ...]], name: str, prefix: str, output: int) -> _Encoder | None:
    width, hidden = (_number(keys, f"clip.{name}.{key}") for key in ("embedding_length", "feed_forward_length"))
    if not width:
        return None
    block = f"{prefix}.blk.0."
    return _Encoder(
        width=width,
        hidden=hidden,
        gated=f"{block}ffn_gate.weight" in shapes,
        fused=f"{block}attn_qkv.weight" in shapes,
        output=output,
    )


def _of_images(keys: Keys, shapes: Mapping[str, tuple[int, ...]], encoder: _Encoder) -> EncoderWork | None:
    kind = keys.text("clip.projector_type") or keys.text("clip.vision.projector_type")
    images, patch = _IMAGES.get(kind, _Images()), _number(keys, "clip.vision.patch_size")
    if not patch:
        return None
    merge = next(filter(None, (_number(keys, key) for key in _MERGES)), images.merge)
    if kind == "gemma4uv":
        patch, merge = patch * merge, 1
    side = _number(keys, "clip.vision.image_size")
    if kind == "lightonocr":
        side = _number(keys, "clip.vision.preproc_image_size") or side
    largest = _number(keys, "clip.vision.image_max_pixels") // patch**2 if images.pixels else 0
    largest = largest or images.tokens * merge**2
    positions = largest or (side // patch) ** 2
    if images.batch and positions:
        positions *= max(1, images.batch * merge**2 // positions)
    numbers = 3 * patch**2  # of a patch: those of the image, and the same with 16 bits for the convolution
    rows = {
        "input": _NUMBER * numbers + max(_HALF * numbers, 2 * _NUMBER * encoder.width),
        "output": _NUMBER * (encoder.width + 2 * encoder.output // merge**2),
    }
    return EncoderWork(
        positions=positions,
        merged=merge**2 if largest else 0,
        stages=tuple(_stages(encoder, rows, windows=images.windows and _has_windows(keys, kind))),
    )


_MERGES: Final = ("clip.vision.spatial_merge_size", "clip.vision.projector.scale_factor")


def _has_windows(keys: Keys, kind: str) -> bool:
    """Return True if layers attend to windows; some files of the type have none."""
    return kind != "exaone4_5" or _number(keys, "clip.vision.n_wa_pattern") > 0


def _of_sounds(keys: Keys, shapes: Mapping[str, tuple[int, ...]], encoder: _Encoder) -> EncoderWork:
    bins = _number(keys, "clip.audio.num_mel_bins")
    # Two spectra, and the three of each that the first convolution reads, with 16 bits; then the same of its result.
    first, second = 2 * _NUMBER + 2 * 3 * _HALF, 2 * _NUMBER + 3 * _HALF + _NUMBER
    rows = {"input": max(first * bins, second * encoder.width), "output": 0}
    stages = tuple(_stages(encoder, rows, windows=False))
    kernel = shapes.get("a.conv2d.2.weight", ())
    if len(kernel) < _KERNEL:
        return EncoderWork(positions=_POSITIONS, stages=stages)
    spectra, heights = _CHUNK
    vectors = -(-spectra // 8)  # of a chunk, after three convolutions that halve both sides
    places = (spectra // 2) * (heights // 2)  # of the result of the first one
    # That result, the nine numbers of it that the second convolution reads for every fourth place, and its result.
    convolved = places * kernel[2] * (_NUMBER + 9 * _HALF // 4 + _NUMBER // 4)
    return EncoderWork(positions=_CHUNKS * vectors, merged=1, stages=(*stages, (-(-convolved // vectors), 0)))


def _stages(encoder: _Encoder, rows: Mapping[str, int], *, windows: bool) -> Iterator[tuple[int, int]]:
    """Yield (bytes for each position, bytes for each pair of positions)."""
    width = encoder.width
    attention = _NUMBER * 6 * width + _HALF * width if encoder.fused else _NUMBER * 5 * width + _HALF * width
    forward = _NUMBER * (3 * width + (3 if encoder.gated else 1) * encoder.hidden)
    yield rows["input"], (_NUMBER + _HALF) * windows
    # The mask is copied to 16 bits and then free; the rows that come next seldom fit into all of its place.
    yield max(attention, forward, rows["output"]), _NUMBER * windows


def _number(keys: Keys, key: str) -> int:
    """Return the number of a key, 0 for a file without it; libmtmd refuses other values."""
    value = keys.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0
