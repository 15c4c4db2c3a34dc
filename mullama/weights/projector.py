"""The abilities of a projector (mmproj) and the width of its vectors, by the header of its file. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mullama.weights.facts import ProjectorFacts
from mullama.weights.keys import Keys
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
}


def projector_facts(keys: Keys, tensors: Sequence[Tensor]) -> ProjectorFacts:
    """Return the abilities of a projector. A file without the keys of its encoders has those of its tensors."""
    vision, audio = keys.flag("clip.has_vision_encoder"), keys.flag("clip.has_audio_encoder")
    return ProjectorFacts(
        vision=_begins(tensors, "v.") if vision is None else vision,
        audio=_begins(tensors, "a.") if audio is None else audio,
        width=_width(keys, tensors),
    )


def _width(keys: Keys, tensors: Sequence[Tensor]) -> int:
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for key in ("clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type"):
        for name, dimension in _WIDTHS.get(keys.text(key), ()):
            if len(shape := shapes.get(name, ())) > dimension:
                return shape[dimension]
    return 0


def _begins(tensors: Sequence[Tensor], prefix: str) -> bool:
    return any(tensor.name.startswith(prefix) for tensor in tensors)
