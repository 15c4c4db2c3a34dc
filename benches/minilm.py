"""Writes the GGUF file of a BERT embedding model from its safetensors, as llama.cpp's own converter does.

That converter needs PyTorch; this one needs NumPy and the `gguf` package. Vectors and normalisation gains stay F32,
and so do the embeddings of positions and segments; other matrices become F16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Names in the safetensors file and in GGUF; the pooler, which embeddings do not use, is left out.
_OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_F32 = ("position_embd.weight", "token_types.weight")


def read_safetensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of a file by name, as maps of the file. Only F32 and I64, which such files hold, are read."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    kinds = {"F32": "<f4", "I64": "<i8"}
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)
    return {
        name: data[slice(*entry["data_offsets"])].view(kinds[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def write(folder: Path, out: Path) -> None:
    """Write the model of a folder with `config.json`, `tokenizer.json` and `model.safetensors`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(out, "bert")
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_causal_attention(False)
    mean = pooling["pooling_mode_mean_tokens"]
    writer.add_pooling_type(gguf.PoolingType.MEAN if mean else gguf.PoolingType.CLS)
    _add_vocabulary(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    for name, values in read_safetensors(folder / "model.safetensors").items():
        found = _name(name)
        if found is not None:
            stays = values.ndim == 1 or found in _F32
            writer.add_tensor(found, np.array(values, dtype=np.float32 if stays else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    if name in _OUTER:
        return _OUTER[name]
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{kind}"
    if stem.startswith("encoder.layer."):
        number, _, part = stem.removeprefix("encoder.layer.").partition(".")
        return f"blk.{number}.{_LAYER[part]}.{kind}"
    return None


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    """Add a WordPiece vocabulary; llama.cpp marks the first piece of a word, the file marks the others with `##`."""
    control = {token["content"]: token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    texts, kinds = [], []
    for text in sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__):
        special = text in control
        texts.append(text if special else text[2:] if text.startswith("##") else "\u2581" + text)
        kinds.append(gguf.TokenType.CONTROL if special else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(control["[CLS]"])
    writer.add_sep_token_id(control["[SEP]"])
    writer.add_unk_token_id(control["[UNK]"])
    writer.add_pad_token_id(control["[PAD]"])
    writer.add_mask_token_id(control["[MASK]"])
