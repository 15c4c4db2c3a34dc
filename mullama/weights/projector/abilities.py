"""The abilities of a projector (mmproj) and the width of its vectors, by the header of its file. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mullama.errors import BadWeights
from mullama.weights.facts import ProjectorFacts
from mullama.weights.keys import Keys
from mullama.weights.projector.work import encoder_work
from mullama.weights.tensors import Tensor

# The tensor and its dimension with the width, as clip_n_mmproj_embd of llama.cpp (tools/mtmd/clip.cpp) reads them. The
# key clip.vision.projection_dim does not tell: in older LLaVA files it is the width of CLIP's own space.
_WIDTHS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "mlp": (("mm.3.bias", 0), ("mm.2.weight", 1)),
    "ldpv2": (("mm.model.peg.0.bias", 0),),
    "resampler": (("resampler.proj.weight", 0),),
    "qwen2vl_merger": (("mm.2.bias", 0),),
    "qwen2.5vl_merger": (("mm.2.bias", 0),),
    "qwen3vl_merger": (("mm.2.bias", 0),),
    "gemma3": (("mm.input_projection.weight", 0),),
    "idefics3": (("mm.model.fc.weight", 1),),
    "pixtral": (("mm.2.weight", 1),),
    "lfm2": (("mm.2.weight", 1),),
    "kimivl": (("mm.2.weight", 1),),
    "internvl": (("mm.model.mlp.3.weight", 1),),
    "llama4": (("mm.model.fc.weight", 1),),
    "ultravox": (("mm.a.mlp.2.weight", 1),),
    "voxtral": (("mm.a.mlp.2.weight", 1),),
    "qwen2a": (("mm.a.fc.weight", 1),),
    "qwen3a": (("mm.a.mlp.2.weight", 1),),
    "janus_pro": (("mm.1.bias", 0),),
}
# Encoders that llama.cpp computes as Whisper's (clip_graph_whisper_enc), and those among them with stacked or pooled
# vectors.
_WHISPER: Final = frozenset(("ultravox", "voxtral", "qwen2a", "glma", "meralion", "musicflamingo"))
_STACKED: Final = frozenset(("ultravox", "voxtral", "meralion"))
_POOLED: Final = frozenset(("qwen2a", "voxtral", "musicflamingo"))
_SPEAKING: Final = ("qwen3tts_", "pockettts_")
"""Types of projectors that make speech. Their encoders of sound take a voice to imitate, and hear no words."""
_SPECTRA, _POSITIONS = 3000, 1500
"""Spectra of 30 seconds, to which every sound is filled up, and the vectors that Whisper makes of them."""


def projector_facts(keys: Keys, tensors: Sequence[Tensor]) -> ProjectorFacts:
    """Return the abilities of a projector. A file without the keys of its encoders has those of its tensors.

    Raises `BadWeights` for a header with which libmtmd ends its process at the first image or sound, and for a
    projector that makes speech.
    """
    kind = keys.text("clip.audio.projector_type") or keys.text("clip.projector_type")
    if keys.flag("clip.has_gen_audio_encoder") or kind.startswith(_SPEAKING):
        raise BadWeights(
            "the projector makes speech, and mullama generates none",
            hint="llama.cpp's own generation of speech is experimental; let another program speak the text of answers",
        )
    if kind in _WHISPER:
        _check_whisper(kind, keys, {tensor.name: tensor.shape for tensor in tensors})
    sees, hears = keys.flag("clip.has_vision_encoder"), keys.flag("clip.has_audio_encoder")
    vision = _begins(tensors, "v.") if sees is None else sees
    audio = _begins(tensors, "a.") if hears is None else hears
    alone = keys.text("clip.projector_type") if audio and not vision else ""
    return ProjectorFacts(
        vision=vision,
        audio=audio,
        audio_type=keys.text("clip.audio.projector_type") or alone,
        width=_width(keys, tensors),
        work=encoder_work(keys, tensors, vision=vision, audio=audio),
    )


def _check_whisper(kind: str, keys: Keys, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `BadWeights` where an assertion of clip_graph_whisper_enc or clip_n_output_tokens would fail."""
    positions = shapes.get("a.position_embd.weight", ())
    if len(positions) > 1 and positions[1] < _POSITIONS:
        raise BadWeights(f"a.position_embd.weight has {positions[1]} positions, and a sound takes {_POSITIONS}")
    query = {f"a.blk.0.attn_{name}.bias" in shapes: name for name in "qv"}
    if "a.blk.0.attn_q.weight" in shapes and (False in query or "a.blk.0.attn_k.bias" in shapes):
        raise BadWeights(f"the attention of a projector {kind} needs biases of queries and values, and none of keys")
    if kind not in _STACKED:
        return
    stack = keys.integer("clip.audio.projector.stack_factor", 1, low=1, high=_POSITIONS)
    width = keys.integer("clip.audio.embedding_length", 1, low=1, high=2**20)
    counted = -(-_SPECTRA // stack) // 2 // (2 if kind in _POOLED else 1)
    made = _stacked(_POSITIONS // (2 if kind in _POOLED else 1), stack, width)
    if counted != made:
        raise BadWeights(
            f"libmtmd counts {counted} vectors of a sound and makes {made} with a stack_factor of {stack} and vectors "
            f"of {width} numbers",
            hint="it would end its process; no projector with these sizes can be used",
        )


def _stacked(vectors: int, stack: int, width: int) -> int:
    """Return the vectors that `build_stack` makes, whose GGML_PAD rounds to powers of two whatever the size is."""
    size = stack * width
    return vectors if stack == 1 else (vectors * width + size - 1 & ~(size - 1)) // size


def _width(keys: Keys, tensors: Sequence[Tensor]) -> int:
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for key in ("clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type"):
        for name, dimension in _WIDTHS.get(keys.text(key), ()):
            if len(shape := shapes.get(name, ())) > dimension:
                return shape[dimension]
    return 0


def _begins(tensors: Sequence[Tensor], prefix: str) -> bool:
    return any(tensor.name.startswith(prefix) for tensor in tensors)
