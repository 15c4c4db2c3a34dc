"""Writes small random projectors of real shapes, for the weights of `builders`, and pictures and sounds to read.

The names of tensors and keys are those of llama.cpp's tools/mtmd/clip.cpp.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import gguf
import numpy as np

from tests.engines.llamacpp.builders import EMBD

WIDTH, FF, HEADS, LAYERS = 32, 48, 2, 2  # of the encoders


class ProjectorWriter:
    """Writes one projector of one encoder, "v" for vision or "a" for audio."""

    def __init__(self, path: Path, kind: str, encoder: str, *, seed: int = 0, out: int = EMBD) -> None:
        """kind: projector_type of clip.cpp. out: the width of the weights."""
        self.writer = writer = gguf.GGUFWriter(str(path), "clip")
        self.encoder, self.out = encoder, out
        self._rng = np.random.default_rng(seed)
        name = "vision" if encoder == "v" else "audio"
        writer.add_name(f"random {kind}")
        writer.add_bool(f"clip.has_{name}_encoder", True)
        writer.add_string("clip.projector_type", kind)
        for key, value in (
            ("embedding_length", WIDTH), ("feed_forward_length", FF), ("block_count", LAYERS),
            ("projection_dim", out), ("attention.head_count", HEADS),
        ):  # fmt: skip
            writer.add_uint32(f"clip.{name}.{key}", value)
        writer.add_float32(f"clip.{name}.attention.layer_norm_epsilon", 1e-6)

    def vision(self, *, size: int, patch: int) -> None:
        """Add the keys of pictures. size: of the side of a picture, in pixels; patch: of a patch."""
        self.writer.add_uint32("clip.vision.image_size", size)
        self.writer.add_uint32("clip.vision.patch_size", patch)
        self.writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        self.writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        self.random("v.patch_embd.weight", WIDTH, 3, patch, patch, scale=3 * patch)

    def blocks(self, *, key_bias: bool = True) -> None:
        """Add the layers of a plain transformer."""
        for layer in range(LAYERS):
            block = f"{self.encoder}.blk.{layer}."
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.random(f"{block}{name}.weight", WIDTH, WIDTH)
                if key_bias or name != "attn_k":
                    self.full(f"{block}{name}.bias", WIDTH, value=0.01)
            self.norm(block + "ln1")
            self.norm(block + "ln2")
            self.random(block + "ffn_up.weight", FF, WIDTH)
            self.full(block + "ffn_up.bias", FF, value=0.01)
            self.random(block + "ffn_down.weight", WIDTH, FF)
            self.full(block + "ffn_down.bias", WIDTH, value=0.01)

    def norm(self, name: str) -> None:
        self.full(name + ".weight", WIDTH)
        self.full(name + ".bias", WIDTH, value=0.0)

    def random(self, name: str, *shape: int, scale: float = 1.0) -> None:
        values = self._rng.standard_normal(shape, dtype=np.float32) * scale / np.sqrt(shape[-1])
        self.writer.add_tensor(name, values.astype(np.float32))

    def full(self, name: str, *shape: int, value: float = 1.0) -> None:
        self.writer.add_tensor(name, np.full(shape, value, np.float32))

    def write(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def llava(path: Path, *, seed: int = 0, out: int = EMBD, size: int = 56) -> None:
    """Write CLIP with two layers (LLaVA 1.5): a vector for each patch of 14 pixels, 16 for a side of 56 pixels."""
    model = ProjectorWriter(path, "mlp", "v", seed=seed, out=out)
    model.vision(size=size, patch=14)
    model.random("v.class_embd", WIDTH)
    model.random("v.position_embd.weight", (size // 14) ** 2 + 1, WIDTH)
    model.norm("v.pre_ln")
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.0.weight", out, WIDTH)
    model.full("mm.0.bias", out, value=0.0)
    model.random("mm.2.weight", out, out)
    model.full("mm.2.bias", out, value=0.0)
    model.write()


def idefics3(path: Path, *, seed: int = 0) -> None:
    """Write SigLIP with pixel shuffle (SmolVLM): 4 vectors for each tile of 64 x 64 pixels."""
    model = ProjectorWriter(path, "idefics3", "v", seed=seed)
    model.vision(size=64, patch=16)
    model.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    model.writer.add_uint32("clip.vision.preproc_image_size", 128)
    model.writer.add_bool("clip.use_gelu", True)
    model.full("v.patch_embd.bias", WIDTH, value=0.0)
    model.random("v.position_embd.weight", 16, WIDTH)
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.model.fc.weight", EMBD, 4 * WIDTH)
    model.write()


def gemma3(path: Path, *, seed: int = 0) -> None:
    """Write SigLIP with pooling (Gemma 3): 16 vectors, each of which sees all."""
    model = ProjectorWriter(path, "gemma3", "v", seed=seed)
    model.vision(size=128, patch=16)
    model.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    model.writer.add_bool("clip.use_gelu", True)
    model.full("v.patch_embd.bias", WIDTH, value=0.0)
    model.random("v.position_embd.weight", 64, WIDTH)
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.input_projection.weight", WIDTH, EMBD)
    model.full("mm.soft_emb_norm.weight", WIDTH)
    model.write()


def qwen2vl(path: Path, *, seed: int = 0) -> None:
    """Write the encoder of Qwen2-VL: a vector for each 28 x 28 pixels, with positions in rows and columns (M-RoPE)."""
    model = ProjectorWriter(path, "qwen2vl_merger", "v", seed=seed)
    model.vision(size=560, patch=14)
    model.random("v.patch_embd.weight.1", WIDTH, 3, 14, 14, scale=3 * 14)
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.0.weight", 4 * WIDTH, 4 * WIDTH)
    model.full("mm.0.bias", 4 * WIDTH, value=0.0)
    model.random("mm.2.weight", EMBD, 4 * WIDTH)
    model.full("mm.2.bias", EMBD, value=0.0)
    model.write()


def qwen2a(path: Path, *, seed: int = 0, positions: int = 1500) -> None:
    """Write the encoder of Whisper with pooled frames (Qwen2-Audio): 750 vectors for each 30 seconds.

    With fewer positions llama.cpp ends the process at the first sound.
    """
    model = ProjectorWriter(path, "qwen2a", "a", seed=seed)
    _whisper(model, positions)
    model.random("mm.a.fc.weight", EMBD, WIDTH)
    model.full("mm.a.fc.bias", EMBD, value=0.0)
    model.write()


def png(width: int, height: int, *, seed: int = 0) -> bytes:
    """Return a picture of coarse noise as a PNG file."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    pixels = coarse[rows][:, columns]
    raw = b"".join(b"\x00" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def wav(seconds: float, *, rate: int = 16_000, hertz: float = 440.0) -> bytes:
    """Return a tone as a WAV file of one channel of 16 bits."""
    times = np.arange(int(seconds * rate)) / rate
    body = (np.sin(2 * np.pi * hertz * times) * 16_000).astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16,
                       b"data", len(body))  # fmt: skip
    return head + body


def ultravox(path: Path, *, seed: int = 0, stack: int = 4) -> None:
    """Write the encoder of Whisper with stacked frames (Ultravox): 375 vectors for each 30 seconds."""
    model = ProjectorWriter(path, "ultravox", "a", seed=seed)
    _whisper(model)
    model.writer.add_uint32("clip.audio.projector.stack_factor", stack)
    model.full("mm.a.norm_pre.weight", stack * WIDTH)
    model.random("mm.a.mlp.1.weight", 2 * FF, stack * WIDTH)
    model.full("mm.a.norm_mid.weight", FF)
    model.random("mm.a.mlp.2.weight", EMBD, FF)
    model.write()


def voxtral(path: Path, *, seed: int = 0, stack: int = 2) -> None:
    """Write the encoder of Whisper with pooled and stacked frames (Voxtral): 375 vectors for each 30 seconds."""
    model = ProjectorWriter(path, "voxtral", "a", seed=seed)
    _whisper(model)
    model.writer.add_uint32("clip.audio.projector.stack_factor", stack)
    model.random("mm.a.mlp.1.weight", FF, stack * WIDTH)
    model.random("mm.a.mlp.2.weight", EMBD, FF)
    model.write()


def _whisper(model: ProjectorWriter, positions: int = 1500) -> None:
    mels = 80
    model.writer.add_uint32("clip.audio.num_mel_bins", mels)
    model.random("a.conv1d.1.weight", WIDTH, mels, 3)
    model.full("a.conv1d.1.bias", WIDTH, 1, value=0.0)
    model.random("a.conv1d.2.weight", WIDTH, WIDTH, 3)
    model.full("a.conv1d.2.bias", WIDTH, 1, value=0.0)
    model.random("a.position_embd.weight", positions, WIDTH)
    model.norm("a.post_ln")
    model.blocks(key_bias=False)
