"""Small random models of other kinds than the built-in one, over its vocabulary: for tests of what they cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from tests.engines.conftest import TINY

EMBD, HEADS, FF = 64, 4, 96


class Maker:
    """Writes one GGUF file of an architecture, with the built-in model's tokens."""

    def __init__(self, path: Path, architecture: str, *, layers: int = 2, seed: int = 0) -> None:
        self.writer = gguf.GGUFWriter(str(path), architecture)
        self.layers = layers
        self._rng = np.random.default_rng(seed)
        self.writer.add_name(f"random {architecture}")
        self.writer.add_context_length(512)
        self.writer.add_embedding_length(EMBD)
        self.writer.add_block_count(layers)
        self.vocabulary = self._copy_vocabulary()

    def _copy_vocabulary(self) -> int:
        size = 0
        for key, entry in gguf.GGUFReader(str(TINY)).fields.items():
            if not key.startswith("tokenizer."):
                continue
            value = entry.contents()
            if key == "tokenizer.ggml.tokens":
                size = len(value)
            if entry.types[0] == gguf.GGUFValueType.ARRAY:
                self.writer.add_array(key, value)
            else:
                self.writer.add_key_value(key, value, entry.types[0])
        self.writer.add_vocab_size(size)
        return size

    def attention(self, *, heads_kv: int = 2) -> None:
        self.writer.add_feed_forward_length(FF)
        self.writer.add_head_count(HEADS)
        self.writer.add_head_count_kv(heads_kv)

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


def llama(path: Path, *, seed: int = 0, embedding: bool = False) -> None:
    """A plain decoder; with `embedding` one that says it pools by the last token."""
    make = Maker(path, "llama", seed=seed)
    make.attention()
    make.writer.add_layer_norm_rms_eps(1e-5)
    make.writer.add_rope_dimension_count(EMBD // HEADS)
    if embedding:
        make.writer.add_pooling_type(gguf.PoolingType.LAST)
    make.random("token_embd.weight", make.vocabulary, EMBD)
    for layer in range(make.layers):
        _decoder_block(make, layer)
    make.full("output_norm.weight", EMBD)
    make.write()


def _decoder_block(make: Maker, layer: int) -> None:
    head = EMBD // HEADS
    block = f"blk.{layer}."
    make.full(block + "attn_norm.weight", EMBD)
    make.full(block + "ffn_norm.weight", EMBD)
    make.random(block + "attn_q.weight", EMBD, EMBD)
    make.random(block + "attn_k.weight", 2 * head, EMBD)
    make.random(block + "attn_v.weight", 2 * head, EMBD)
    make.random(block + "attn_output.weight", EMBD, EMBD)
    make.random(block + "ffn_gate.weight", FF, EMBD)
    make.random(block + "ffn_up.weight", FF, EMBD)
    make.random(block + "ffn_down.weight", EMBD, FF)


def window(path: Path) -> None:
    """A decoder whose layers look at a sliding window of 32 tokens only."""
    make = Maker(path, "gemma2")
    make.attention()
    make.writer.add_layer_norm_rms_eps(1e-5)
    make.writer.add_key_length(EMBD // HEADS)
    make.writer.add_value_length(EMBD // HEADS)
    make.writer.add_sliding_window(32)
    make.random("token_embd.weight", make.vocabulary, EMBD)
    for layer in range(make.layers):
        _decoder_block(make, layer)
        make.full(f"blk.{layer}.post_attention_norm.weight", EMBD)
        make.full(f"blk.{layer}.post_ffw_norm.weight", EMBD)
    make.full("output_norm.weight", EMBD)
    make.write()


def recurrent(path: Path) -> None:
    """A state-space model: its memory is one state per sequence, which cannot be cut."""
    make = Maker(path, "mamba")
    inner, state, conv, rank = 2 * EMBD, 16, 4, 8
    make.writer.add_ssm_conv_kernel(conv)
    make.writer.add_ssm_inner_size(inner)
    make.writer.add_ssm_state_size(state)
    make.writer.add_ssm_time_step_rank(rank)
    make.writer.add_layer_norm_rms_eps(1e-5)
    make.writer.add_head_count(0)
    make.writer.add_feed_forward_length(0)
    make.random("token_embd.weight", make.vocabulary, EMBD)
    for layer in range(make.layers):
        block = f"blk.{layer}."
        make.full(block + "attn_norm.weight", EMBD)
        make.random(block + "ssm_in.weight", 2 * inner, EMBD)
        make.random(block + "ssm_conv1d.weight", inner, conv)
        make.full(block + "ssm_conv1d.bias", inner, value=0.0)
        make.random(block + "ssm_x.weight", rank + 2 * state, inner)
        make.random(block + "ssm_dt.weight", inner, rank)
        make.full(block + "ssm_dt.bias", inner, value=0.1)
        make.full(block + "ssm_a", inner, state, value=-1.0)
        make.full(block + "ssm_d", inner)
        make.random(block + "ssm_out.weight", EMBD, inner)
    make.full("output_norm.weight", EMBD)
    make.write()


def encoder(path: Path, *, rank: bool = False) -> None:
    """A BERT: vectors by the mean, or scores of a rank head."""
    make = Maker(path, "bert")
    make.attention(heads_kv=HEADS)
    make.writer.add_layer_norm_eps(1e-5)
    make.writer.add_causal_attention(False)
    make.writer.add_token_type_count(2)
    make.writer.add_pooling_type(gguf.PoolingType.RANK if rank else gguf.PoolingType.MEAN)
    make.random("token_embd.weight", make.vocabulary, EMBD)
    make.random("position_embd.weight", 512, EMBD)
    make.random("token_types.weight", 2, EMBD)
    make.full("token_embd_norm.weight", EMBD)
    make.full("token_embd_norm.bias", EMBD, value=0.0)
    for layer in range(make.layers):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            make.random(block + name + ".weight", EMBD, EMBD)
            make.full(block + name + ".bias", EMBD, value=0.0)
        make.random(block + "ffn_up.weight", FF, EMBD)
        make.full(block + "ffn_up.bias", FF, value=0.0)
        make.random(block + "ffn_down.weight", EMBD, FF)
        make.full(block + "ffn_down.bias", EMBD, value=0.0)
        for name in ("attn_output_norm", "layer_output_norm"):
            make.full(block + name + ".weight", EMBD)
            make.full(block + name + ".bias", EMBD, value=0.0)
    if rank:
        make.random("cls.weight", EMBD, EMBD)
        make.full("cls.bias", EMBD, value=0.0)
        make.random("cls.output.weight", 1, EMBD)
        make.full("cls.output.bias", 1, value=0.0)
    make.write()


def adapter(path: Path, *, seed: int = 3) -> None:
    """A LoRA of rank 4 over the attention of the built-in model."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    rng = np.random.default_rng(seed)
    for tensor in gguf.GGUFReader(str(TINY)).tensors:
        if "attn_q" in tensor.name or "ffn_down" in tensor.name:
            inputs, outputs = int(tensor.shape[0]), int(tensor.shape[1])
            left = rng.standard_normal((4, inputs), dtype=np.float32) * 0.2
            right = rng.standard_normal((outputs, 4), dtype=np.float32) * 0.2
            writer.add_tensor(tensor.name + ".lora_a", left)
            writer.add_tensor(tensor.name + ".lora_b", right)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


MAKERS: dict[str, Callable[[Path], None]] = {"llama": llama, "window": window, "recurrent": recurrent}


def split(source: Path, parts: list[Path]) -> None:
    """The same model in several files, as `gguf-split` would part it."""
    reader = gguf.GGUFReader(str(source))
    tensors = list(reader.tensors)
    size = -(-len(tensors) // len(parts))
    for number, path in enumerate(parts):
        writer = gguf.GGUFWriter(str(path), "llama")
        if number == 0:
            for key, entry in reader.fields.items():
                if key.startswith("GGUF.") or key == "general.architecture":
                    continue
                value = entry.contents()
                if entry.types[0] == gguf.GGUFValueType.ARRAY:
                    writer.add_array(key, value)
                else:
                    writer.add_key_value(key, value, entry.types[0])
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", len(parts))
        writer.add_int32("split.tensors.count", len(tensors))
        for tensor in tensors[number * size : (number + 1) * size]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
