"""Writes the encoders and their projectors as one GGUF file that libmtmd reads (mmproj)."""

from __future__ import annotations

from pathlib import Path

from collections.abc import Mapping
from dataclasses import dataclass

import gguf
import numpy as np
from torch import Tensor, nn

from tiny_recipe.media import hearing, pictures, speech, vision


@dataclass(frozen=True, slots=True)
class Form:
    """How libmtmd names the tensors of an encoder: the first prefix that a name begins with is replaced.

    `from_one`: what it counts from one in place of zero.
    """

    prefixes: Mapping[str, str]
    from_one: tuple[str, ...] = ()

    def stored(self, name: str) -> str:
        for prefix in self.from_one:
            if name.startswith(prefix):
                number, _, rest = name.removeprefix(prefix).partition(".")
                name = f"{prefix}{int(number) + 1}.{rest}"
        old, new = next((old, new) for old, new in self.prefixes.items() if name.startswith(old))
        return new + name.removeprefix(old)


FORMS = {
    "vision": Form({"mm.": "mm.", "position_embd": "v.position_embd.weight", "": "v."}),
    "hearing": Form({"mlp.": "mm.a.mlp.", "position_embd": "a.position_embd.weight", "": "a."}, ("conv2d.", "mlp.")),
}


def export(seeing: vision.Vision | None, listening: hearing.Hearing | None, path: Path) -> None:
    """Write the file; matrices and filters as float16, all else as float32."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("mullama tiny projector")
    writer.add_description("Sees simple drawings and hears single words; trained on generated data only")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", seeing is not None)
    writer.add_bool("clip.has_audio_encoder", listening is not None)
    writer.add_bool("clip.use_gelu", True)
    if seeing is not None:
        describe(writer, "vision", "janus_pro", vision, seeing.mm[1].out_features)
        writer.add_uint32("clip.vision.image_size", pictures.SIDE)
        writer.add_uint32("clip.vision.patch_size", vision.PATCH)
        writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        put(writer, seeing, FORMS["vision"])
    if listening is not None:
        describe(writer, "audio", "qwen3a", hearing, listening.mlp[1].out_features)
        writer.add_uint32("clip.audio.num_mel_bins", speech.BANDS)
        put(writer, listening, FORMS["hearing"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter, prefix: str, kind: str, sizes: object, language_width: int) -> None:
    """The keys that both encoders have; `sizes` is the module of the encoder."""
    writer.add_string(f"clip.{prefix}.projector_type", kind)
    writer.add_uint32(f"clip.{prefix}.embedding_length", sizes.WIDTH)
    writer.add_uint32(f"clip.{prefix}.feed_forward_length", sizes.HIDDEN)
    writer.add_uint32(f"clip.{prefix}.block_count", sizes.LAYERS)
    writer.add_uint32(f"clip.{prefix}.attention.head_count", sizes.HEADS)
    writer.add_uint32(f"clip.{prefix}.projection_dim", language_width)
    writer.add_float32(f"clip.{prefix}.attention.layer_norm_epsilon", sizes.EPSILON)


def put(writer: gguf.GGUFWriter, network: nn.Module, form: Form) -> None:
    for name, weight in network.state_dict().items():
        writer.add_tensor(form.stored(name), stored(name, weight))


def stored(name: str, weight: Tensor) -> np.ndarray:
    """Float16 for what is multiplied, float32 for what is added. A filter's bias is added per channel."""
    values = weight.float().numpy()
    return values.astype(np.float16) if values.ndim > 1 and "position" not in name else values
