"""Makes a projector with random weights: CLIP with two layers as of LLaVA 1.5, in the sizes that are used.

    python -m benches.projector OUT.gguf WIDTH [--shape base]

WIDTH is the embedding length of the weights. Matrices are F16, as in most projectors.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """The sizes of a vision transformer."""

    width: int
    layers: int
    heads: int
    hidden: int
    side: int
    """Pixels of a side of a picture."""
    patch: int

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2


ENCODERS = {
    "base": Encoder(width=768, layers=12, heads=12, hidden=3072, side=224, patch=16),  # CLIP ViT-B/16: 196 vectors
    "large": Encoder(width=1024, layers=24, heads=16, hidden=4096, side=336, patch=14),  # ViT-L/14, LLaVA 1.5: 576
}


def write_projector(out: Path, width: int, encoder: Encoder, seed: int = 0) -> None:
    """Write the file. width: numbers of one vector that the weights read."""
    rng, writer = np.random.default_rng(seed), gguf.GGUFWriter(out, "clip")

    def matrix(name: str, *shape: int, kind: type = np.float16) -> None:
        fan_in = int(np.prod(shape[1:]))
        writer.add_tensor(name, (rng.standard_normal(shape, np.float32) / np.sqrt(fan_in)).astype(kind))

    def vector(name: str, size: int, value: float = 0.0) -> None:
        writer.add_tensor(name, np.full(size, value, np.float32))

    def norm(name: str) -> None:
        vector(f"{name}.weight", encoder.width, 1.0)
        vector(f"{name}.bias", encoder.width)

    writer.add_name("random projector")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    for key, value in (
        ("embedding_length", encoder.width), ("feed_forward_length", encoder.hidden), ("block_count", encoder.layers),
        ("projection_dim", width), ("attention.head_count", encoder.heads), ("image_size", encoder.side),
        ("patch_size", encoder.patch),
    ):  # fmt: skip
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    matrix("v.patch_embd.weight", encoder.width, 3, encoder.patch, encoder.patch)
    vector("v.class_embd", encoder.width)
    matrix("v.position_embd.weight", encoder.patches + 1, encoder.width, kind=np.float32)
    norm("v.pre_ln")
    norm("v.post_ln")
    for layer in range(encoder.layers):
        block = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            matrix(f"{block}{name}.weight", encoder.width, encoder.width)
            vector(f"{block}{name}.bias", encoder.width)
        norm(block + "ln1")
        norm(block + "ln2")
        for name, rows, columns in (
            ("ffn_up", encoder.hidden, encoder.width),
            ("ffn_down", encoder.width, encoder.hidden),
        ):
            matrix(f"{block}{name}.weight", rows, columns)
            vector(f"{block}{name}.bias", rows)
    matrix("mm.0.weight", width, encoder.width)
    vector("mm.0.bias", width)
    matrix("mm.2.weight", width, width)
    vector("mm.2.bias", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("width", type=int)
    parser.add_argument("--shape", choices=ENCODERS, default="base")
    options = parser.parse_args()
    write_projector(options.out, options.width, ENCODERS[options.shape])


if __name__ == "__main__":
    main()
