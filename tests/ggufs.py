"""Makes GGUF files for tests: right ones of any architecture, and ones with a single field made wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mullama.weights.tensors import BY_NUMBER

_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class Entry:
    """One key: `kind` as stored; for arrays `kind` is that of the elements and `value` a list."""

    kind: int
    value: Any
    array: bool = False

    def bytes(self) -> bytes:
        if not self.array:
            return struct.pack("<I", self.kind) + one(self.kind, self.value)
        body = b"".join(one(self.kind, item) for item in self.value)
        return struct.pack("<IIQ", ARRAY, self.kind, len(self.value)) + body


@dataclass(frozen=True)
class Stored:
    """One tensor: shape, number of its type, and how many bytes of data follow (None: as many as it needs)."""

    shape: tuple[int, ...]
    type: int = 0
    data: bytes | None = None

    def size(self) -> int:
        kind = BY_NUMBER[self.type]
        count = self.shape[0] // kind.block * kind.bytes
        for dimension in self.shape[1:]:
            count *= dimension
        return count


@dataclass(frozen=True)
class File:
    keys: dict[str, Entry]
    tensors: dict[str, Stored] = field(default_factory=dict)
    version: int = 3

    def with_key(self, name: str, entry: Entry) -> File:
        return replace(self, keys={**self.keys, name: entry})

    def without_key(self, name: str) -> File:
        return replace(self, keys={key: entry for key, entry in self.keys.items() if key != name})

    def with_tensor(self, name: str, tensor: Stored) -> File:
        return replace(self, tensors={**self.tensors, name: tensor})

    def bytes(self) -> bytes:
        """The whole file; tensor data are zeros unless given."""
        header = struct.pack("<4sIQQ", b"GGUF", self.version, len(self.tensors), len(self.keys))
        header += b"".join(text(name) + entry.bytes() for name, entry in self.keys.items())
        data = b""
        for name, tensor in self.tensors.items():
            header += text(name) + struct.pack("<I", len(tensor.shape))
            header += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type, len(data))
            body = tensor.data if tensor.data is not None else bytes(tensor.size())
            data += body + bytes(-len(body) % 32)
        return header + bytes(-len(header) % 32) + data


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def one(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack(f"<{_CODES[kind]}", value)


def u32(value: int) -> Entry:
    return Entry(U32, value)


def f32(value: float) -> Entry:
    return Entry(F32, value)


def string(value: str | bytes) -> Entry:
    return Entry(STRING, value)


def texts(values: list[bytes] | list[str]) -> Entry:
    return Entry(STRING, values, array=True)


def ints(values: list[int]) -> Entry:
    return Entry(I32, values, array=True)


def floats(values: list[float]) -> Entry:
    return Entry(F32, values, array=True)


def parse(raw: bytes) -> File:
    """The reverse of `File.bytes`, for right files: what a mutation starts from."""
    at = [4]

    def take(code: str) -> Any:
        value = struct.unpack_from(f"<{code}", raw, at[0])[0]
        at[0] += struct.calcsize(f"<{code}")
        return value

    def take_text() -> bytes:
        length = take("Q")
        at[0] += length
        return raw[at[0] - length : at[0]]

    def element(kind: int) -> Any:
        return take_text() if kind == STRING else take(_CODES[kind])

    version, tensor_count, key_count = take("I"), take("Q"), take("Q")
    keys: dict[str, Entry] = {}
    for _ in range(key_count):
        name, kind = take_text().decode(), take("I")
        if kind == ARRAY:
            kind, length = take("I"), take("Q")
            keys[name] = Entry(kind, [element(kind) for _ in range(length)], array=True)
        else:
            keys[name] = Entry(kind, element(kind))
    described = []
    for _ in range(tensor_count):
        name = take_text().decode()
        shape = tuple(take("Q") for _ in range(take("I")))
        described.append((name, shape, take("I"), take("Q")))
    start = -(-at[0] // 32) * 32
    tensors = {}
    for name, shape, kind, offset in described:
        stored = Stored(shape, kind)
        tensors[name] = replace(stored, data=raw[start + offset : start + offset + stored.size()])
    return File(keys, tensors, version)


def reader(raw: bytes) -> tuple[Callable[[int, int], bytes], int]:
    """A whole file in memory as one part for `inspect`."""
    return (lambda offset, length: raw[offset : offset + length]), len(raw)


WIDTH, FORWARD, TOKENS = 64, 128, 260


def byte_vocabulary() -> list[bytes]:
    """A vocabulary that fits a `llama` tokenizer: three control tokens, all bytes, one word."""
    return [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % value for value in range(256)), "▁hi".encode()]


def model(architecture: str = "llama", *, layers: int = 2, heads: int = 4, kv_heads: int = 2) -> File:
    """A small right model of any architecture: the keys that all have, and tensors of a plain decoder."""
    head = WIDTH // heads
    keys = {
        "general.architecture": string(architecture),
        "general.name": string("small"),
        "general.file_type": u32(0),
        f"{architecture}.context_length": u32(2048),
        f"{architecture}.embedding_length": u32(WIDTH),
        f"{architecture}.block_count": u32(layers),
        f"{architecture}.feed_forward_length": u32(FORWARD),
        f"{architecture}.attention.head_count": u32(heads),
        f"{architecture}.attention.head_count_kv": u32(kv_heads),
        f"{architecture}.attention.layer_norm_rms_epsilon": f32(1e-5),
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.tokens": texts(byte_vocabulary()),
        "tokenizer.ggml.scores": floats([0.0] * TOKENS),
        "tokenizer.ggml.token_type": ints([2, 3, 3, *[6] * 256, 1]),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
    }
    tensors = {"token_embd.weight": Stored((WIDTH, TOKENS)), "output_norm.weight": Stored((WIDTH,))}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            f"{block}attn_norm.weight": Stored((WIDTH,)),
            f"{block}attn_q.weight": Stored((WIDTH, heads * head)),
            f"{block}attn_k.weight": Stored((WIDTH, kv_heads * head)),
            f"{block}attn_v.weight": Stored((WIDTH, kv_heads * head)),
            f"{block}attn_output.weight": Stored((heads * head, WIDTH)),
            f"{block}ffn_norm.weight": Stored((WIDTH,)),
            f"{block}ffn_gate.weight": Stored((WIDTH, FORWARD)),
            f"{block}ffn_up.weight": Stored((WIDTH, FORWARD)),
            f"{block}ffn_down.weight": Stored((FORWARD, WIDTH)),
        }
    return File(keys, tensors)


def adapter(architecture: str = "llama", *, alpha: float = 8.0, **keys: Entry) -> File:
    """A LoRA adapter of rank 4 over the query weights of the first layer of `model`."""
    found = {
        "general.architecture": string(architecture),
        "general.type": string("adapter"),
        "adapter.type": string("lora"),
        "adapter.lora.alpha": f32(alpha),
    }
    name = "blk.0.attn_q.weight"
    tensors = {f"{name}.lora_a": Stored((64, 4)), f"{name}.lora_b": Stored((4, 64))}
    return File(keys={**found, **keys}, tensors=tensors)


def projector(width: int = 64, *, vision: bool = True, audio: bool = False, **keys: Entry) -> File:
    """Return a projector of the type `mlp`, or `ultravox` for sound alone; `width` is that of its vectors."""
    flags = {"vision": vision, "audio": audio}
    entries = {
        "general.architecture": string("clip"),
        "clip.projector_type": string("mlp" if vision else "ultravox"),
        **{f"clip.has_{name}_encoder": Entry(BOOL, flag) for name, flag in flags.items()},
        **keys,
    }
    last = "mm.2.weight" if vision else "mm.a.mlp.2.weight"
    return File(entries, {"v.patch_embd.weight": Stored((32, 4)), last: Stored((32, width))})


def split(file: File, parts: int) -> list[bytes]:
    """The same model as a split set: all keys in the first part, tensors shared out."""
    names = list(file.tensors)
    count = Entry(2, parts)
    total = Entry(I32, len(names))
    found = []
    for number in range(parts):
        mine = {name: file.tensors[name] for name in names[number::parts]}
        keys = {**(file.keys if number == 0 else {}), "split.no": Entry(2, number), "split.count": count}
        found.append(File({**keys, "split.tensors.count": total}, mine).bytes())
    return found
