"""Makes a GGUF with random weights over a real vocabulary: its text is noise, its sizes and speed are real.

    python -m benches.model VOCABULARY.gguf OUT.gguf [--shape half]

The vocabulary is copied from a file that holds only one, such as `models/ggml-vocab-qwen2.gguf` of llama.cpp's tree.
Weights are written as F16; `llama-quantize OUT.gguf QUANTISED.gguf Q4_K_M` makes the file that most people run.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The sizes of a model."""

    width: int
    """Length of the residual stream."""
    layers: int
    heads: int
    kv_heads: int
    """Keys and values; several heads share one."""
    hidden: int
    """Length of the feed-forward layer."""
    context: int = 32768


SHAPES = {
    "half": Geometry(width=896, layers=24, heads=14, kv_heads=2, hidden=4864),  # 0.5 B
    "tenth": Geometry(width=512, layers=8, heads=8, kv_heads=2, hidden=1408),  # 0.1 B, most of it vocabulary
    "one": Geometry(width=2048, layers=16, heads=32, kv_heads=8, hidden=8192),  # 1.3 B, as Llama 3.2 1B
    "eight": Geometry(width=4096, layers=32, heads=32, kv_heads=8, hidden=14336),  # 7.6 B, as Llama 3.1 8B
}

BLOCK = 32
"""Values of one block of Q8_0: a scale of 16 bits, then one byte each."""


def write(vocabulary: Path, out: Path, shape: Geometry, seed: int = 0, *, quantised: bool = False) -> None:
    """Write a file of the llama architecture with tied embeddings. quantised: in Q8_0, which takes a tenth of the time.

    The time is that of drawing numbers: normal ones for F16, bytes for Q8_0.
    """
    source, writer = gguf.GGUFReader(vocabulary), gguf.GGUFWriter(out, "llama")
    head = shape.width // shape.heads
    writer.add_name("random weights")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e6)
    writer.add_rope_dimension_count(head)
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(kind)
    count = copy_vocabulary(source, writer)
    writer.add_vocab_size(count)
    writer.add_chat_template(TEMPLATE)
    matrices = {"token_embd": (count, shape.width)}
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        matrices |= {
            block + "attn_q": (shape.width, shape.width),
            block + "attn_k": (shape.kv_heads * head, shape.width),
            block + "attn_v": (shape.kv_heads * head, shape.width),
            block + "attn_output": (shape.width, shape.width),
            block + "ffn_gate": (shape.hidden, shape.width),
            block + "ffn_up": (shape.hidden, shape.width),
            block + "ffn_down": (shape.width, shape.hidden),
        }
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(shape.width, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(shape.width, dtype=np.float32))
    random = np.random.default_rng(seed)
    for name, size in matrices.items():
        if quantised:
            blocks = random_blocks(random, *size)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            continue
        values = random.standard_normal(size, dtype=np.float32) / np.sqrt(size[1])
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(random: np.random.Generator, rows: int, columns: int) -> np.ndarray[tuple[int, ...], Any]:
    """Return a matrix in Q8_0 with values of the size that normal ones have: (rows, bytes of a row)."""
    count = rows * columns // BLOCK
    blocks = np.empty((count, 2 + BLOCK), dtype=np.uint8)
    # Bytes are uniform from -128 to 127, whose standard deviation is 74.
    blocks[:, :2] = np.array([1 / (74 * np.sqrt(columns))], dtype=np.float16).view(np.uint8)
    blocks[:, 2:] = np.frombuffer(random.bytes(count * BLOCK), dtype=np.uint8).reshape(count, BLOCK)
    return blocks.reshape(rows, columns // BLOCK * (2 + BLOCK))


def copy_vocabulary(source: gguf.GGUFReader, writer: gguf.GGUFWriter) -> int:
    """Copy every tokenizer key except the template; return the number of tokens."""
    count = 0
    for name, field in source.fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        value = field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, field.types[0])
        if name == "tokenizer.ggml.tokens":
            count = len(value)
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="half")
    parser.add_argument("--quantised", action="store_true", help="write Q8_0 instead of F16")
    options = parser.parse_args()
    write(options.vocabulary, options.out, SHAPES[options.shape], quantised=options.quantised)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.0f} MB")
