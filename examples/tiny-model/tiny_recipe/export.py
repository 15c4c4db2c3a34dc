"""Writes the trained network, its tokenizer and its chat template as one GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
from tokenizers import Tokenizer

from tiny_recipe.corpus import LONGEST
from tiny_recipe.network import (
    EPSILON,
    HEAD,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    ROPE_BASE,
    WIDTH,
    Tiny,
)
from tiny_recipe.rendering import CHAT_TEMPLATE
from tiny_recipe.tokenizer import CONTROL, PRE, VISIBLE, VOCABULARY

SPECIAL_IDS = {
    "bos": "<|endoftext|>",
    "eos": "<|im_end|>",
    "eot": "<|im_end|>",
    "padding": "<|endoftext|>",
    "fim_pre": "<|fim_prefix|>",
    "fim_suf": "<|fim_suffix|>",
    "fim_mid": "<|fim_middle|>",
}


def export(model: Tiny, tokenizer: Tokenizer, path: Path, *, sees: bool = False) -> None:
    """Write the file. sees: the model reads pictures and sounds, and its layers are Q5_0 in place of Q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer)
    if sees:
        writer.add_name("mullama tiny vision")
        writer.add_description("The tiny model, trained further on generated pictures and sounds")
    else:
        writer.add_name("mullama tiny")
        writer.add_description("A tiny language model, trained on synthetic text only")
    types = gguf.GGMLQuantizationType
    write_vocabulary(writer, tokenizer)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        if values.ndim == 2:
            kind = types.Q5_0 if sees and name.startswith("blk.") else types.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    tokens += [f"<|unused_{i}|>" for i in range(len(tokens), VOCABULARY)]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE)
    writer.add_token_list(tokens)
    writer.add_token_types([kind_of(token) for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_add_bos_token(False)
    for key, token in SPECIAL_IDS.items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", vocabulary[token])


def kind_of(token: str) -> gguf.TokenType:
    if token in CONTROL:
        return gguf.TokenType.CONTROL
    if token in VISIBLE:
        return gguf.TokenType.USER_DEFINED
    return gguf.TokenType.UNUSED if token.startswith("<|unused_") else gguf.TokenType.NORMAL
