"""Writes small random models of other architectures, with the built-in model's vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from tests.engines.conftest import TINY

EMBD, HEADS, FF = 64, 4, 96


class ModelWriter:
    """Writes one GGUF file of an architecture, with the built-in model's tokens."""

    def __init__(
        self, path: Path, architecture: str, *, layers: int = 2, seed: int = 0, renamed: int | None = None
    ) -> None:
        """renamed: a token with another text than in the built-in model."""
        self.writer = gguf.GGUFWriter(str(path), architecture)
        self.layers = layers
        self._rng = np.random.default_rng(seed)
        self.writer.add_name(f"random {architecture}")
        self.writer.add_context_length(512)
        self.writer.add_embedding_length(EMBD)
        self.writer.add_block_count(layers)
        self.vocabulary = self._copy_vocabulary(renamed)

    def _copy_vocabulary(self, renamed: int | None) -> int:
        size = 0
        for key, entry in gguf.GGUFReader(str(TINY)).fields.items():
            if not key.startswith("tokenizer."):
                continue
            value = entry.contents()
            if key == "tokenizer.ggml.tokens":
                size = len(value)
                if renamed is not None:
                    value[renamed] += "?"
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


def llama(path: Path, *, seed: int = 0, embedding: bool = False, renamed: int | None = None) -> None:
    """Write a plain decoder; with `embedding`, its pooling is the last token."""
    model = ModelWriter(path, "llama", seed=seed, renamed=renamed)
    model.attention()
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_rope_dimension_count(EMBD // HEADS)
    if embedding:
        model.writer.add_pooling_type(gguf.PoolingType.LAST)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        _decoder_block(model, layer)
    model.full("output_norm.weight", EMBD)
    model.write()


def _decoder_block(model: ModelWriter, layer: int) -> None:
    head = EMBD // HEADS
    block = f"blk.{layer}."
    model.full(block + "attn_norm.weight", EMBD)
    model.full(block + "ffn_norm.weight", EMBD)
    model.random(block + "attn_q.weight", EMBD, EMBD)
    model.random(block + "attn_k.weight", 2 * head, EMBD)
    model.random(block + "attn_v.weight", 2 * head, EMBD)
    model.random(block + "attn_output.weight", EMBD, EMBD)
    model.random(block + "ffn_gate.weight", FF, EMBD)
    model.random(block + "ffn_up.weight", FF, EMBD)
    model.random(block + "ffn_down.weight", EMBD, FF)


def experts(path: Path, *, used: int = 2) -> None:
    """Write a decoder of four layers, which route each token to some of eight experts, two if not given.

    With all eight, near ties of the router change no answer.
    """
    model = ModelWriter(path, "qwen3moe", layers=4)
    model.attention()
    head, count, width = EMBD // HEADS, 8, 32
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_rope_dimension_count(head)
    model.writer.add_expert_count(count)
    model.writer.add_expert_used_count(used)
    model.writer.add_expert_feed_forward_length(width)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.full(block + "attn_norm.weight", EMBD)
        model.full(block + "ffn_norm.weight", EMBD)
        model.full(block + "attn_q_norm.weight", head)
        model.full(block + "attn_k_norm.weight", head)
        model.random(block + "attn_q.weight", EMBD, EMBD)
        model.random(block + "attn_k.weight", 2 * head, EMBD)
        model.random(block + "attn_v.weight", 2 * head, EMBD)
        model.random(block + "attn_output.weight", EMBD, EMBD)
        model.random(block + "ffn_gate_inp.weight", count, EMBD)
        model.random(block + "ffn_gate_exps.weight", count, width, EMBD)
        model.random(block + "ffn_up_exps.weight", count, width, EMBD)
        model.random(block + "ffn_down_exps.weight", count, EMBD, width)
    model.full("output_norm.weight", EMBD)
    model.write()


def window(path: Path) -> None:
    """Write a decoder with a sliding window of 32 tokens."""
    model = ModelWriter(path, "gemma2")
    model.attention()
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_key_length(EMBD // HEADS)
    model.writer.add_value_length(EMBD // HEADS)
    model.writer.add_sliding_window(32)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        _decoder_block(model, layer)
        model.full(f"blk.{layer}.post_attention_norm.weight", EMBD)
        model.full(f"blk.{layer}.post_ffw_norm.weight", EMBD)
    model.full("output_norm.weight", EMBD)
    model.write()


def recurrent(path: Path) -> None:
    """Write a state-space model: its memory is one state per sequence, which cannot be cut."""
    model = ModelWriter(path, "mamba")
    inner, state, conv, rank = 2 * EMBD, 16, 4, 8
    model.writer.add_ssm_conv_kernel(conv)
    model.writer.add_ssm_inner_size(inner)
    model.writer.add_ssm_state_size(state)
    model.writer.add_ssm_time_step_rank(rank)
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_head_count(0)
    model.writer.add_feed_forward_length(0)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.full(block + "attn_norm.weight", EMBD)
        model.random(block + "ssm_in.weight", 2 * inner, EMBD)
        model.random(block + "ssm_conv1d.weight", inner, conv)
        model.full(block + "ssm_conv1d.bias", inner, value=0.0)
        model.random(block + "ssm_x.weight", rank + 2 * state, inner)
        model.random(block + "ssm_dt.weight", inner, rank)
        model.full(block + "ssm_dt.bias", inner, value=0.1)
        model.full(block + "ssm_a", inner, state, value=-1.0)
        model.full(block + "ssm_d", inner)
        model.random(block + "ssm_out.weight", EMBD, inner)
    model.full("output_norm.weight", EMBD)
    model.write()


def hybrid(path: Path, *, window: int = 0) -> None:
    """Write a model with a short convolution in its first layer and attention in its second, with a window if given."""
    model = ModelWriter(path, "lfm2")
    head, kernel = EMBD // HEADS, 3
    model.writer.add_feed_forward_length(FF)
    model.writer.add_head_count(HEADS)
    model.writer.add_head_count_kv([0, 2])
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_shortconv_l_cache(kernel)
    if window:
        model.writer.add_sliding_window(window)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.full(block + "attn_norm.weight", EMBD)
        model.full(block + "ffn_norm.weight", EMBD)
        for name, *shape in (("ffn_gate", FF, EMBD), ("ffn_up", FF, EMBD), ("ffn_down", EMBD, FF)):
            model.random(f"{block}{name}.weight", *shape)
    model.random("blk.0.shortconv.conv.weight", EMBD, kernel)
    model.random("blk.0.shortconv.in_proj.weight", 3 * EMBD, EMBD)
    model.random("blk.0.shortconv.out_proj.weight", EMBD, EMBD)
    model.full("blk.1.attn_q_norm.weight", head)
    model.full("blk.1.attn_k_norm.weight", head)
    for name, width in (("attn_q", EMBD), ("attn_k", 2 * head), ("attn_v", 2 * head), ("attn_output", EMBD)):
        model.random(f"blk.1.{name}.weight", width, EMBD)
    model.full("token_embd_norm.weight", EMBD)
    model.write()


class _WordPieceWriter(ModelWriter):
    """Writes a file whose vocabulary has the letters of one Hangul syllable and of `e`, as BERT's has them."""

    TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581\u1112", "\u1161", "\u11ab", "\u2581e", "e")

    def _copy_vocabulary(self, renamed: int | None) -> int:
        assert not renamed
        self.writer.add_tokenizer_model("bert")
        self.writer.add_tokenizer_pre("default")
        self.writer.add_token_list(self.TOKENS)
        self.writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * 5)
        self.writer.add_pad_token_id(0)
        self.writer.add_unk_token_id(1)
        self.writer.add_bos_token_id(2)
        self.writer.add_sep_token_id(3)
        self.writer.add_vocab_size(len(self.TOKENS))
        return len(self.TOKENS)


def wordpiece(path: Path) -> None:
    """Write a BERT with its own kind of vocabulary."""
    _write_encoder(_WordPieceWriter(path, "bert"), rank=False)


def encoder(path: Path, *, rank: bool = False) -> None:
    """Write a BERT: vectors by the mean, or scores of a rank head."""
    _write_encoder(ModelWriter(path, "bert"), rank=rank)


def _write_encoder(model: ModelWriter, *, rank: bool) -> None:
    model.attention(heads_kv=HEADS)
    model.writer.add_layer_norm_eps(1e-5)
    model.writer.add_causal_attention(False)
    model.writer.add_token_type_count(2)
    model.writer.add_pooling_type(gguf.PoolingType.RANK if rank else gguf.PoolingType.MEAN)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    model.random("position_embd.weight", 512, EMBD)
    model.random("token_types.weight", 2, EMBD)
    model.full("token_embd_norm.weight", EMBD)
    model.full("token_embd_norm.bias", EMBD, value=0.0)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            model.random(block + name + ".weight", EMBD, EMBD)
            model.full(block + name + ".bias", EMBD, value=0.0)
        model.random(block + "ffn_up.weight", FF, EMBD)
        model.full(block + "ffn_up.bias", FF, value=0.0)
        model.random(block + "ffn_down.weight", EMBD, FF)
        model.full(block + "ffn_down.bias", EMBD, value=0.0)
        for name in ("attn_output_norm", "layer_output_norm"):
            model.full(block + name + ".weight", EMBD)
            model.full(block + name + ".bias", EMBD, value=0.0)
    if rank:
        model.random("cls.weight", EMBD, EMBD)
        model.full("cls.bias", EMBD, value=0.0)
        model.random("cls.output.weight", 1, EMBD)
        model.full("cls.output.bias", 1, value=0.0)
    model.write()


def adapter(path: Path, *, seed: int = 3, weights: Path = TINY) -> None:
    """Write a LoRA of rank 4 over some matrices of each kind of layer of these weights."""
    reader = gguf.GGUFReader(str(weights))
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    rng = np.random.default_rng(seed)
    for tensor in reader.tensors:
        if any(f"{name}.weight" in tensor.name for name in ("attn_q", "ffn_down", "ssm_in", "shortconv.in_proj")):
            inputs, outputs = int(tensor.shape[0]), int(tensor.shape[1])
            left = rng.standard_normal((4, inputs), dtype=np.float32) * 0.2
            right = rng.standard_normal((outputs, 4), dtype=np.float32) * 0.2
            writer.add_tensor(tensor.name + ".lora_a", left)
            writer.add_tensor(tensor.name + ".lora_b", right)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


BUILDERS: dict[str, Callable[[Path], None]] = {
    "llama": llama,
    "window": window,
    "recurrent": recurrent,
    "hybrid": hybrid,
}


def split(source: Path, parts: list[Path]) -> None:
    """Write the same model to several files, as `gguf-split` does."""
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


def mrope(path: Path) -> None:
    """Write a decoder with positions in time, rows and columns (Qwen2-VL)."""
    model = ModelWriter(path, "qwen2vl")
    model.attention()
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_rope_dimension_count(EMBD // HEADS)
    model.writer.add_rope_dimension_sections([2, 3, 3, 0])
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        _decoder_block(model, layer)
    model.full("output_norm.weight", EMBD)
    model.write()


def gemma3(path: Path, *, window: int = 64) -> None:
    """Write a decoder with a sliding window in five of its six layers (Gemma 3)."""
    model = ModelWriter(path, "gemma3", layers=6)
    head = EMBD // HEADS
    model.attention()
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.writer.add_key_length(head)
    model.writer.add_value_length(head)
    model.writer.add_sliding_window(window)
    model.random("token_embd.weight", model.vocabulary, EMBD)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        _decoder_block(model, layer)
        model.full(block + "post_attention_norm.weight", EMBD)
        model.full(block + "post_ffw_norm.weight", EMBD)
        model.full(block + "attn_k_norm.weight", head)
        model.full(block + "attn_q_norm.weight", head)
    model.full("output_norm.weight", EMBD)
    model.write()
