"""Makes small GGUF files of the architectures that differ from a plain transformer, with random weights.

Their layers have real shape: the tensors, the states and the masks are those of the published models, only narrower.
The vocabulary is that of another GGUF file. Names and sizes of the tensors follow `src/models/*.cpp` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize

from benches.model import TEMPLATE, copy_vocabulary

CONTEXT = 32768
# The template of a model that thinks: the reasoning of earlier answers is left out of the history.
THINKING = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{%- if message.role == 'assistant' and '</think>' in message.content %}\n"
    "{{- message.content.split('</think>')[-1].lstrip('\\n') }}"
    "{%- else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
)

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]


class _Weights:
    """Draws tensors; every file is the same each time it is made."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def matrix(self, *shape: int, scale: float = 1.0) -> Array:
        """Weights of (…, rows, columns), scaled so that a product has the variance of its input times `scale` ** 2."""
        return self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale / np.sqrt(shape[-1]))

    def vector(self, *shape: int, low: float, high: float) -> Array:
        return self.random.uniform(low, high, shape).astype(np.float32)


def _ones(*shape: int) -> Array:
    return np.ones(shape, dtype=np.float32)


def _attention(
    draw: _Weights, block: str, width: int, *, heads: int, kv_heads: int, head: int, gated: bool = False
) -> Tensors:
    query = heads * head * (2 if gated else 1)
    return {
        f"{block}attn_q.weight": draw.matrix(query, width),
        f"{block}attn_k.weight": draw.matrix(kv_heads * head, width),
        f"{block}attn_v.weight": draw.matrix(kv_heads * head, width),
        f"{block}attn_output.weight": draw.matrix(width, heads * head),
    }


def _head_norms(block: str, head: int) -> Tensors:
    return {f"{block}attn_q_norm.weight": _ones(head), f"{block}attn_k_norm.weight": _ones(head)}


def _feed_forward(draw: _Weights, block: str, width: int, hidden: int) -> Tensors:
    return {
        f"{block}ffn_gate.weight": draw.matrix(hidden, width),
        f"{block}ffn_up.weight": draw.matrix(hidden, width),
        f"{block}ffn_down.weight": draw.matrix(width, hidden),
    }


def _experts(draw: _Weights, block: str, width: int, hidden: int, count: int) -> Tensors:
    """A router is as sure as a trained one.

    Two computations that round differently may choose another last expert, where two are almost equal. With half of
    the experts in use, the last one has about a thousandth of the sum, so its exchange does not change an answer.
    """
    return {
        f"{block}ffn_gate_inp.weight": draw.matrix(count, width, scale=6.0),
        f"{block}ffn_gate_exps.weight": draw.matrix(count, hidden, width),
        f"{block}ffn_up_exps.weight": draw.matrix(count, hidden, width),
        f"{block}ffn_down_exps.weight": draw.matrix(count, width, hidden, scale=0.5),
    }


def _qwen35(out: gguf.GGUFWriter, draw: _Weights, tokens: int, *, nextn: bool = False) -> Tensors:
    """Gated delta net in three of four layers, gated attention in the fourth, as Qwen 3.5 has it.

    With `nextn`, a block for multi-token prediction follows, and the weights make the next token depend mostly on the
    present one, so that what the block drafts is accepted more often than not.
    """
    width, layers, heads, kv_heads, head, hidden = 320, 8, 4, 2, 128, 896
    state, groups, value_heads = 128, 2, 4
    inner = state * value_heads
    out.add_block_count(layers + nextn)
    out.add_embedding_length(width)
    out.add_feed_forward_length(hidden)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_rope_dimension_count(head // 4)
    out.add_rope_dimension_sections([6, 5, 5, 0])
    out.add_rope_freq_base(1e7)
    out.add_ssm_conv_kernel(4)
    out.add_ssm_inner_size(inner)
    out.add_ssm_state_size(state)
    out.add_ssm_time_step_rank(value_heads)
    out.add_ssm_group_count(groups)
    out.add_full_attention_interval(4)
    tensors: Tensors = {}
    share = 0.1 if nextn else 1.0
    for layer in range(layers + nextn):
        block = f"blk.{layer}."
        tensors |= {f"{block}attn_norm.weight": _ones(width), f"{block}post_attention_norm.weight": _ones(width)}
        if layer == layers or layer % 4 == 3:
            tensors |= _attention(draw, block, width, heads=heads, kv_heads=kv_heads, head=head, gated=True)
            tensors |= _head_norms(block, head)
        else:
            channels = 2 * groups * state + inner
            tensors |= {
                f"{block}attn_qkv.weight": draw.matrix(channels, width),
                f"{block}attn_gate.weight": draw.matrix(inner, width),
                f"{block}ssm_conv1d.weight": draw.matrix(channels, 4),
                f"{block}ssm_dt.bias": draw.vector(value_heads, low=-4, high=0),
                f"{block}ssm_a": draw.vector(value_heads, low=-1, high=-0.1),
                f"{block}ssm_beta.weight": draw.matrix(value_heads, width),
                f"{block}ssm_alpha.weight": draw.matrix(value_heads, width),
                f"{block}ssm_norm.weight": _ones(state),
                f"{block}ssm_out.weight": draw.matrix(width, inner),
            }
        tensors |= _feed_forward(draw, block, width, hidden)
        for name in ("attn_output", "ssm_out", "ffn_down"):
            if f"{block}{name}.weight" in tensors:
                tensors[f"{block}{name}.weight"] *= share
    embeddings = draw.matrix(tokens, width, scale=np.sqrt(width))
    tensors |= {"token_embd.weight": embeddings, "output_norm.weight": _ones(width)}
    if not nextn:
        tensors["output.weight"] = draw.matrix(tokens, width)
    else:
        out.add_nextn_predict_layers(1)
        block = f"blk.{layers}.nextn."
        follows = np.zeros_like(embeddings)
        follows[draw.random.permutation(tokens)] = embeddings / width
        only_the_token = np.concatenate([np.eye(width, dtype=np.float32), draw.matrix(width, width, scale=0.1)], axis=1)
        tensors |= {
            "output.weight": follows,
            f"{block}eh_proj.weight": only_the_token,
            f"{block}enorm.weight": _ones(width),
            f"{block}hnorm.weight": _ones(width),
            f"{block}shared_head_norm.weight": _ones(width),
        }
    return tensors


def _mamba2(out: gguf.GGUFWriter, draw: _Weights, tokens: int) -> Tensors:
    """Recurrent layers alone: a state of fixed size and no cache of keys and values."""
    width, layers, state, groups, head = 384, 12, 128, 1, 64
    inner = 2 * width
    out.add_block_count(layers)
    out.add_embedding_length(width)
    out.add_feed_forward_length(0)
    out.add_head_count(0)
    out.add_ssm_conv_kernel(4)
    out.add_ssm_inner_size(inner)
    out.add_ssm_state_size(state)
    out.add_ssm_time_step_rank(inner // head)
    out.add_ssm_group_count(groups)
    channels = inner + 2 * groups * state
    tensors: Tensors = {}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            f"{block}attn_norm.weight": _ones(width),
            f"{block}ssm_in.weight": draw.matrix(inner + channels + inner // head, width),
            f"{block}ssm_conv1d.weight": draw.matrix(channels, 4),
            f"{block}ssm_conv1d.bias": draw.vector(channels, low=-0.1, high=0.1),
            f"{block}ssm_dt.bias": draw.vector(inner // head, low=-4, high=0),
            f"{block}ssm_a": draw.vector(inner // head, 1, low=-1, high=-0.1),
            f"{block}ssm_d": _ones(inner // head, 1),
            f"{block}ssm_norm.weight": _ones(groups, inner // groups),
            f"{block}ssm_out.weight": draw.matrix(width, inner),
        }
    return tensors | {"token_embd.weight": draw.matrix(tokens, width), "output_norm.weight": _ones(width)}


def _gpt_oss(out: gguf.GGUFWriter, draw: _Weights, tokens: int) -> Tensors:
    """Experts with biases, attention sinks, and a sliding window of 128 tokens in every second layer."""
    width, layers, heads, kv_heads, head, hidden, experts = 256, 8, 8, 2, 64, 256, 8
    out.add_block_count(layers)
    out.add_embedding_length(width)
    out.add_feed_forward_length(hidden)
    out.add_expert_feed_forward_length(hidden)
    out.add_expert_count(experts)
    out.add_expert_used_count(4)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_rope_dimension_count(head)
    out.add_rope_freq_base(150000.0)
    out.add_sliding_window(128)
    tensors: Tensors = {}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            f"{block}attn_norm.weight": _ones(width),
            f"{block}post_attention_norm.weight": _ones(width),
            f"{block}attn_sinks.weight": draw.vector(heads, low=-1, high=1),
        }
        tensors |= _attention(draw, block, width, heads=heads, kv_heads=kv_heads, head=head)
        tensors |= _experts(draw, block, width, hidden, experts)
        biases = {"attn_q": (heads * head,), "attn_k": (kv_heads * head,), "attn_v": (kv_heads * head,)}
        biases |= {"attn_output": (width,), "ffn_gate_inp": (experts,), "ffn_gate_exps": (experts, hidden)}
        biases |= {"ffn_up_exps": (experts, hidden), "ffn_down_exps": (experts, width)}
        tensors |= {f"{block}{name}.bias": draw.vector(*size, low=-0.1, high=0.1) for name, size in biases.items()}
    return tensors | {
        "token_embd.weight": draw.matrix(tokens, width, scale=np.sqrt(width)),
        "output.weight": draw.matrix(tokens, width),
        "output_norm.weight": _ones(width),
    }


def _qwen3moe(out: gguf.GGUFWriter, draw: _Weights, tokens: int) -> Tensors:
    """A plain transformer with experts in each layer."""
    width, layers, heads, kv_heads, head, hidden, experts = 256, 8, 4, 2, 128, 128, 16
    out.add_block_count(layers)
    out.add_embedding_length(width)
    out.add_feed_forward_length(hidden * 4)
    out.add_expert_feed_forward_length(hidden)
    out.add_expert_count(experts)
    out.add_expert_used_count(8)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_rope_dimension_count(head)
    out.add_rope_freq_base(1e6)
    tensors: Tensors = {}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {f"{block}attn_norm.weight": _ones(width), f"{block}ffn_norm.weight": _ones(width)}
        tensors |= _attention(draw, block, width, heads=heads, kv_heads=kv_heads, head=head)
        tensors |= _head_norms(block, head)
        tensors |= _experts(draw, block, width, hidden, experts)
    return tensors | {
        "token_embd.weight": draw.matrix(tokens, width, scale=np.sqrt(width)),
        "output.weight": draw.matrix(tokens, width),
        "output_norm.weight": _ones(width),
    }


def _qwen35_nextn(out: gguf.GGUFWriter, draw: _Weights, tokens: int) -> Tensors:
    return _qwen35(out, draw, tokens, nextn=True)


# The name of a file's architecture, its chat template, and the maker of its keys and tensors.
ARCHITECTURES: dict[str, tuple[str, str, Callable[[gguf.GGUFWriter, _Weights, int], Tensors]]] = {
    "qwen35": ("qwen35", THINKING, _qwen35),
    "gpt-oss": ("gpt-oss", TEMPLATE, _gpt_oss),
    "mamba2": ("mamba2", TEMPLATE, _mamba2),
    "qwen3moe": ("qwen3moe", TEMPLATE, _qwen3moe),
    "qwen35-nextn": ("qwen35", THINKING, _qwen35_nextn),
}


def write(name: str, vocabulary: Path, out: Path, *, seed: int = 0, quantised: bool = False) -> None:
    """Write one of ARCHITECTURES with weights of 32 bits, so that two computations of an answer round almost alike.

    quantised: matrices are stored as Q8_0, as far as their rows allow, so that speed is that of files in use.
    """
    architecture, template, make = ARCHITECTURES[name]
    writer = gguf.GGUFWriter(out, architecture)
    writer.add_name(f"random weights, {name}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_layer_norm_rms_eps(1e-6)
    tokens = copy_vocabulary(gguf.GGUFReader(vocabulary), writer)
    writer.add_vocab_size(tokens)
    writer.add_chat_template(template)
    for tensor, values in make(writer, _Weights(seed), tokens).items():
        if quantised and _can_be_quantised(values):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _can_be_quantised(values: Array) -> bool:
    """Norms, biases and small kernels stay F32, as llama.cpp's operations need."""
    return values.ndim >= 2 and values.shape[-1] % 32 == 0 and values.shape[-2] >= 32
