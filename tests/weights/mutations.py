"""One-field changes of a right model: what the header check must survive, and refuse where native code would not."""

from __future__ import annotations

from collections.abc import Iterator

from mullama.weights.tensors import BY_NUMBER
from tests.ggufs import BOOL, F32, STRING, Entry, File, Stored, f32, floats, ints, string, u32

_WHOLE = (0, 1, 2, 3, 5, 7, 64, 255, 511, 512, 513, 1024, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_REAL = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e30, 1e-30)
_TOKENIZERS = ("", "llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "none", "gemma4", "whitespace", "hybriddna", "clip")


def mutations(file: File) -> Iterator[tuple[str, File]]:
    """(what was changed, the changed file), several hundred of them."""
    for key, entry in file.keys.items():
        yield f"without {key}", file.without_key(key)
        yield from ((f"{key} {what}", file.with_key(key, changed)) for what, changed in _entries(key, entry))
    yield from _added(file)
    for name, tensor in file.tensors.items():
        yield f"without {name}", File(file.keys, {n: t for n, t in file.tensors.items() if n != name})
        yield from ((f"{name} {what}", file.with_tensor(name, changed)) for what, changed in _tensors(tensor))
    yield "a tensor of a layer that is not there", file.with_tensor("blk.9.attn_q.weight", Stored((32, 32)))


def _entries(key: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
    if entry.array:
        yield from _arrays(entry)
    elif entry.kind == STRING:
        words = _TOKENIZERS if key.startswith(("tokenizer.ggml.", "general.arch")) else ("", "x" * 5000)
        yield from ((f"is {word[:20]!r}", string(word)) for word in words)
        yield "is not text", string(b"\xff\xfe")
    elif entry.kind == F32:
        yield from ((f"is {value}", f32(value)) for value in _REAL)
    elif entry.kind == BOOL:
        yield "is the other", Entry(BOOL, not entry.value)
    else:
        yield from ((f"is {value}", u32(value)) for value in _WHOLE if value != entry.value)
        yield "is text", string("x")
        yield "is a fraction", f32(1.0)
        yield "is an array", ints([1] * 6)


def _arrays(entry: Entry) -> Iterator[tuple[str, Entry]]:
    values = list(entry.value)
    yield "is empty", Entry(entry.kind, [], array=True)
    yield "lacks one", Entry(entry.kind, values[:-1], array=True)
    yield "has one more", Entry(entry.kind, values + values[:1], array=True)
    yield "is no array", u32(1)
    if entry.kind == STRING:
        count, middle = len(values), len(values) // 2
        one = {"not text": b"\xff\xfe", "a byte": b"<0x-1>", "huge": b"y" * 100_000, "NUL": b"\0", "empty": b""}
        for what, value in one.items():
            yield f"holds {what}", Entry(STRING, [*values[:middle], value, *values[middle + 1 :]], array=True)
        yield "is all empty", Entry(STRING, [b""] * count, array=True)
        yield "is all equal", Entry(STRING, [b"x"] * count, array=True)
        yield "is all not text", Entry(STRING, [b"\xff%d" % number for number in range(count)], array=True)
        yield "is backwards", Entry(STRING, values[::-1], array=True)
        yield "is numbers", Entry(STRING, [b"%d" % number for number in range(count)], array=True)
    else:
        numbers = (float("nan"), float("inf"), 0.0) if entry.kind == F32 else (0, 1, 2, 3, 4, 5, 6, 7, -1, 2**31 - 1)
        yield from ((f"is all {number}", Entry(entry.kind, [number] * len(values), array=True)) for number in numbers)


def _added(file: File) -> Iterator[tuple[str, File]]:
    architecture = _architecture(file)
    whole = {
        "expert_count": (1, 8, 1000, 2000), "expert_used_count": (1, 8), "nextn_predict_layers": (1, 6, 7),
        "attention.key_length": (0, 1, 32, 63, 65, 128), "attention.value_length": (0, 1, 63, 65, 128),
        "pooling_type": (0, 4, 5, 100),
        "attention.sliding_window": (0, 1, 16), "rope.dimension_count": (0, 1, 2, 63, 1000),
    }  # fmt: skip
    for key, values in whole.items():
        yield from ((f"with {key} {value}", file.with_key(f"{architecture}.{key}", u32(value))) for value in values)
    for key in ("rope.freq_base", "rope.scaling.factor", "rope.scale_linear", "attention.layer_norm_epsilon"):
        yield from ((f"with {key} {value}", file.with_key(f"{architecture}.{key}", f32(value))) for value in _REAL)
    for word in ("none", "linear", "yarn", "longrope", "foo"):
        yield f"with rope scaling {word}", file.with_key(f"{architecture}.rope.scaling.type", string(word))
    for value in (0, 1, 3, 8, 16, 64, 8192):
        yield f"with alignment {value}", file.with_key("general.alignment", u32(value))
    for value in (1, 2, 65535):
        yield f"with split count {value}", file.with_key("split.count", Entry(2, value))
    for kind in ("adapter", "imatrix", "mmproj"):
        yield f"as {kind}", file.with_key("general.type", string(kind))
    yield "with few scores", file.with_key("tokenizer.ggml.scores", floats([0.0]))


def _tensors(tensor: Stored) -> Iterator[tuple[str, Stored]]:
    for number, kind in BY_NUMBER.items():
        if number != tensor.type and tensor.shape[0] % kind.block == 0:
            yield f"as {kind.name}", Stored(tensor.shape, number)
    kind = BY_NUMBER[tensor.type]
    for shape in ((1,), (*tensor.shape, 1), tensor.shape[::-1], (tensor.shape[0] * 2, *tensor.shape[1:]), (32, 3)):
        if shape != tensor.shape and shape[0] % kind.block == 0:
            yield f"of shape {shape}", Stored(shape, tensor.type)


def _architecture(file: File) -> str:
    name = file.keys["general.architecture"].value
    return name.decode() if isinstance(name, bytes) else str(name)
