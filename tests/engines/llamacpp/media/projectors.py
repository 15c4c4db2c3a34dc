"""Writes small random projectors of real shapes, for the weights of `builders`, and pictures and sounds to read.

The names of tensors and keys are those of llama.cpp's tools/mtmd/clip.cpp.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.engines.llamacpp.builders import EMBD


@dataclass(frozen=True)
class Encoder:
    """The size of an encoder."""

    width: int = 32
    hidden: int = 48
    heads: int = 2
    layers: int = 2


SMALL = Encoder()


class ProjectorWriter:
    """Writes one projector of one encoder, "v" for vision or "a" for audio."""

    def __init__(
        self, path: Path, kind: str, encoder: str, *, seed: int = 0, out: int = EMBD, size: Encoder = SMALL
    ) -> None:
        """kind: projector_type of clip.cpp. out: the width of the weights."""
        self.size, self.width = size, size.width
        self.writer = writer = gguf.GGUFWriter(str(path), "clip")
        self.encoder, self.out = encoder, out
        self._rng = np.random.default_rng(seed)
        name = "vision" if encoder == "v" else "audio"
        writer.add_name(f"random {kind}")
        writer.add_bool(f"clip.has_{name}_encoder", True)
        writer.add_string("clip.projector_type", kind)
        for key, value in (
            ("embedding_length", size.width), ("feed_forward_length", size.hidden), ("block_count", size.layers),
            ("projection_dim", out), ("attention.head_count", size.heads),
        ):  # fmt: skip
            writer.add_uint32(f"clip.{name}.{key}", value)
        writer.add_float32(f"clip.{name}.attention.layer_norm_epsilon", 1e-6)

    def vision(self, *, size: int, patch: int) -> None:
        """Add the keys of pictures. size: of the side of a picture, in pixels; patch: of a patch."""
        self.writer.add_uint32("clip.vision.image_size", size)
        self.writer.add_uint32("clip.vision.patch_size", patch)
        self.writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        self.writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        self.random("v.patch_embd.weight", self.width, 3, patch, patch, scale=3 * patch)

    def blocks(self, *, key_bias: bool = True, fused: bool = False, gated: bool = False) -> None:
        """Add the layers of a transformer. fused: queries, keys and values of one matrix. gated: a gate of each row."""
        for layer in range(self.size.layers):
            block = f"{self.encoder}.blk.{layer}."
            if fused:
                self.random(f"{block}attn_qkv.weight", 3 * self.width, self.width)
                self.full(f"{block}attn_qkv.bias", 3 * self.width, value=0.01)
            for name in ("attn_out",) if fused else ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.random(f"{block}{name}.weight", self.width, self.width)
                if key_bias or name != "attn_k":
                    self.full(f"{block}{name}.bias", self.width, value=0.01)
            self.norm(block + "ln1")
            self.norm(block + "ln2")
            if gated:
                self.random(block + "ffn_gate.weight", self.size.hidden, self.width)
            self.random(block + "ffn_up.weight", self.size.hidden, self.width)
            self.full(block + "ffn_up.bias", self.size.hidden, value=0.01)
            self.random(block + "ffn_down.weight", self.width, self.size.hidden)
            self.full(block + "ffn_down.bias", self.width, value=0.01)

    def norm(self, name: str) -> None:
        self.full(name + ".weight", self.width)
        self.full(name + ".bias", self.width, value=0.0)

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


def llava(path: Path, *, seed: int = 0, encoder: Encoder = SMALL, out: int = EMBD, size: int = 56) -> None:
    """Write CLIP with two layers (LLaVA 1.5): a vector for each patch of 14 pixels, 16 for a side of 56 pixels."""
    model = ProjectorWriter(path, "mlp", "v", seed=seed, out=out, size=encoder)
    model.vision(size=size, patch=14)
    model.random("v.class_embd", model.width)
    model.random("v.position_embd.weight", (size // 14) ** 2 + 1, model.width)
    model.norm("v.pre_ln")
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.0.weight", out, model.width)
    model.full("mm.0.bias", out, value=0.0)
    model.random("mm.2.weight", out, out)
    model.full("mm.2.bias", out, value=0.0)
    model.write()


def idefics3(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write SigLIP with pixel shuffle (SmolVLM): 4 vectors for each tile of 64 x 64 pixels."""
    model = ProjectorWriter(path, "idefics3", "v", seed=seed, size=encoder)
    model.vision(size=64, patch=16)
    model.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    model.writer.add_uint32("clip.vision.preproc_image_size", 128)
    model.writer.add_bool("clip.use_gelu", True)
    model.full("v.patch_embd.bias", model.width, value=0.0)
    model.random("v.position_embd.weight", 16, model.width)
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.model.fc.weight", EMBD, 4 * model.width)
    model.write()


def gemma3(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write SigLIP with pooling (Gemma 3): 16 vectors, each of which sees all."""
    model = ProjectorWriter(path, "gemma3", "v", seed=seed, size=encoder)
    model.vision(size=128, patch=16)
    model.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    model.writer.add_bool("clip.use_gelu", True)
    model.full("v.patch_embd.bias", model.width, value=0.0)
    model.random("v.position_embd.weight", 64, model.width)
    model.norm("v.post_ln")
    model.blocks()
    model.random("mm.input_projection.weight", model.width, EMBD)
    model.full("mm.soft_emb_norm.weight", model.width)
    model.write()


def qwen2vl(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write the encoder of Qwen2-VL: a vector for each 28 x 28 pixels, with positions in rows and columns (M-RoPE)."""
    model = ProjectorWriter(path, "qwen2vl_merger", "v", seed=seed, size=encoder)
    model.vision(size=560, patch=14)
    model.random("v.patch_embd.weight.1", model.width, 3, 14, 14, scale=3 * 14)
    model.norm("v.post_ln")
    model.blocks()
    _merger(model)
    model.write()


def qwen25vl(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write the encoder of Qwen2.5-VL, of whose layers most attend to windows: a vector for each 28 x 28 pixels."""
    model = ProjectorWriter(path, "qwen2.5vl_merger", "v", seed=seed, size=encoder)
    model.vision(size=560, patch=14)
    model.writer.add_bool("clip.use_silu", True)
    model.writer.add_uint32("clip.vision.n_wa_pattern", 8)
    model.random("v.patch_embd.weight.1", model.width, 3, 14, 14, scale=3 * 14)
    model.full("v.post_ln.weight", model.width)
    model.blocks(gated=True)
    _merger(model)
    model.write()


def qwen3vl(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write the encoder of Qwen3-VL: a vector for each 32 x 32 pixels."""
    model = ProjectorWriter(path, "qwen3vl_merger", "v", seed=seed, size=encoder)
    model.vision(size=256, patch=16)
    model.writer.add_bool("clip.use_gelu", True)
    model.random("v.patch_embd.weight.1", model.width, 3, 16, 16, scale=3 * 16)
    model.full("v.patch_embd.bias", model.width, value=0.0)
    model.random("v.position_embd.weight", 256, model.width)
    model.norm("v.post_ln")
    model.blocks(fused=True)
    _merger(model)
    model.write()


def _merger(model: ProjectorWriter) -> None:
    """Add the rows that make a vector of four patches."""
    model.random("mm.0.weight", 4 * model.width, 4 * model.width)
    model.full("mm.0.bias", 4 * model.width, value=0.0)
    model.random("mm.2.weight", EMBD, 4 * model.width)
    model.full("mm.2.bias", EMBD, value=0.0)


def pixtral(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write the encoder of Pixtral with merged patches (Mistral Small): a vector for each 32 x 32 pixels."""
    model = ProjectorWriter(path, "pixtral", "v", seed=seed, size=encoder)
    model.vision(size=256, patch=16)
    model.writer.add_bool("clip.use_silu", True)
    model.writer.add_uint32("clip.vision.spatial_merge_size", 2)
    model.full("v.pre_ln.weight", model.width)
    model.random("v.token_embd.img_break", EMBD)
    model.blocks(gated=True)
    model.full("mm.input_norm.weight", model.width)
    model.random("mm.patch_merger.weight", model.width, 4 * model.width)
    model.random("mm.1.weight", EMBD, model.width)
    model.full("mm.1.bias", EMBD, value=0.0)
    model.random("mm.2.weight", EMBD, EMBD)
    model.full("mm.2.bias", EMBD, value=0.0)
    model.write()


def internvl(path: Path, *, seed: int = 0, encoder: Encoder = SMALL) -> None:
    """Write the encoder of InternVL: tiles of 256 vectors, four of which are encoded together."""
    model = ProjectorWriter(path, "internvl", "v", seed=seed, size=encoder)
    model.vision(size=448, patch=14)
    model.writer.add_bool("clip.use_gelu", True)
    model.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    model.full("v.patch_embd.bias", model.width, value=0.0)
    model.random("v.class_embd", model.width)
    model.random("v.position_embd.weight", 32**2 + 1, model.width)
    model.blocks()
    for layer in range(encoder.layers):
        model.full(f"v.blk.{layer}.ls1.weight", model.width)
        model.full(f"v.blk.{layer}.ls2.weight", model.width)
    model.full("mm.model.mlp.0.weight", 4 * model.width)
    model.full("mm.model.mlp.0.bias", 4 * model.width, value=0.0)
    model.random("mm.model.mlp.1.weight", EMBD, 4 * model.width)
    model.full("mm.model.mlp.1.bias", EMBD, value=0.0)
    model.random("mm.model.mlp.3.weight", EMBD, EMBD)
    model.full("mm.model.mlp.3.bias", EMBD, value=0.0)
    model.write()


def qwen3a(path: Path, *, seed: int = 0, encoder: Encoder = SMALL, channels: int = 48) -> None:
    """Write the encoder of Qwen3-ASR: three convolutions over spectra and time, 13 vectors for each second."""
    model = ProjectorWriter(path, "qwen3a", "a", seed=seed, size=encoder)
    model.writer.add_uint32("clip.audio.num_mel_bins", 128)
    for layer, inputs in enumerate((1, channels, channels), start=1):
        model.random(f"a.conv2d.{layer}.weight", channels, inputs, 3, 3)
        model.full(f"a.conv2d.{layer}.bias", channels, value=0.0)
    model.random("a.conv_out.weight", model.width, 16 * channels)
    model.random("a.position_embd.weight", 1500, model.width)
    model.norm("a.post_ln")
    model.blocks()
    model.random("mm.a.mlp.1.weight", model.width, model.width)
    model.full("mm.a.mlp.1.bias", model.width, value=0.0)
    model.random("mm.a.mlp.2.weight", EMBD, model.width)
    model.full("mm.a.mlp.2.bias", EMBD, value=0.0)
    model.write()


def qwen2a(path: Path, *, seed: int = 0, encoder: Encoder = SMALL, positions: int = 1500) -> None:
    """Write the encoder of Whisper with pooled frames (Qwen2-Audio): 750 vectors for each 30 seconds.

    With fewer positions llama.cpp ends the process at the first sound.
    """
    model = ProjectorWriter(path, "qwen2a", "a", seed=seed, size=encoder)
    _whisper(model, positions)
    model.random("mm.a.fc.weight", EMBD, model.width)
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


def ultravox(path: Path, *, seed: int = 0, encoder: Encoder = SMALL, stack: int = 4) -> None:
    """Write the encoder of Whisper with stacked frames (Ultravox): 375 vectors for each 30 seconds."""
    model = ProjectorWriter(path, "ultravox", "a", seed=seed, size=encoder)
    _whisper(model)
    model.writer.add_uint32("clip.audio.projector.stack_factor", stack)
    model.full("mm.a.norm_pre.weight", stack * model.width)
    model.random("mm.a.mlp.1.weight", 2 * model.size.hidden, stack * model.width)
    model.full("mm.a.norm_mid.weight", model.size.hidden)
    model.random("mm.a.mlp.2.weight", EMBD, model.size.hidden)
    model.write()


def voxtral(path: Path, *, seed: int = 0, encoder: Encoder = SMALL, stack: int = 2) -> None:
    """Write the encoder of Whisper with pooled and stacked frames (Voxtral): 375 vectors for each 30 seconds."""
    model = ProjectorWriter(path, "voxtral", "a", seed=seed, size=encoder)
    _whisper(model)
    model.writer.add_uint32("clip.audio.projector.stack_factor", stack)
    model.random("mm.a.mlp.1.weight", model.size.hidden, stack * model.width)
    model.random("mm.a.mlp.2.weight", EMBD, model.size.hidden)
    model.write()


def _whisper(model: ProjectorWriter, positions: int = 1500) -> None:
    mels = 80
    model.writer.add_uint32("clip.audio.num_mel_bins", mels)
    model.random("a.conv1d.1.weight", model.width, mels, 3)
    model.full("a.conv1d.1.bias", model.width, 1, value=0.0)
    model.random("a.conv1d.2.weight", model.width, model.width, 3)
    model.full("a.conv1d.2.bias", model.width, 1, value=0.0)
    model.random("a.position_embd.weight", positions, model.width)
    model.norm("a.post_ln")
    model.blocks(key_bias=False)
