"""Writes the encoders and their projectors as one GGUF file that libmtmd reads (mmproj)."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from torch import Tensor, nn

from tiny_recipe.media import hearing, pictures, speech, vision


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
        put(writer, seeing, {"mm.": "mm.", "position_embd": "v.position_embd.weight", "": "v."})
    if listening is not None:
        describe(writer, "audio", "qwen3a", hearing, listening.mlp[1].out_features)
        writer.add_uint32("clip.audio.num_mel_bins", speech.BANDS)
        numbers = {"conv2d.": 1, "mlp.": 1}  # libmtmd counts these from one
        put(writer, listening, {"mlp.": "mm.a.mlp.", "position_embd": "a.position_embd.weight", "": "a."}, numbers)
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


def put(
    writer: gguf.GGUFWriter, network: nn.Module, prefixes: dict[str, str], numbers: dict[str, int] | None = None
) -> None:
    """Add the tensors; the first prefix that a name begins with is replaced."""
    for name, weight in network.state_dict().items():
        for prefix, first in (numbers or {}).items():
            if name.startswith(prefix):
                number, _, rest = name.removeprefix(prefix).partition(".")
                name = f"{prefix}{int(number) + first}.{rest}"
        old, new = next((old, new) for old, new in prefixes.items() if name.startswith(old))
        writer.add_tensor(new + name.removeprefix(old), stored(name, weight))


def stored(name: str, weight: Tensor) -> np.ndarray:
    """Float16 for what is multiplied, float32 for what is added. A filter's bias is added per channel."""
    values = weight.float().numpy()
    return values.astype(np.float16) if values.ndim > 1 and "position" not in name else values
