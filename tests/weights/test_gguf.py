"""The container of a GGUF file: every length is checked before it is used, and right files are read exactly."""

from __future__ import annotations

import struct
from importlib import resources
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.errors import BadWeights
from mullama.weights.gguf import MAX_HEADER, Array, read_header
from tests import ggufs
from tests.processor_time import processor_time

BUILTIN = Path(str(resources.files("mullama.sources") / "builtin_models" / "tiny.gguf"))
RIGHT = ggufs.model().bytes()


def refused(raw: bytes) -> str:
    with pytest.raises(BadWeights) as caught:
        read_header(*ggufs.reader(raw))
    return str(caught.value)


def head(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys)


def key(name: str, kind: int, rest: bytes) -> bytes:
    return ggufs.text(name) + struct.pack("<I", kind) + rest


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", ["file is empty"]),
        (b"GGU", ["first four bytes", "3 bytes"]),
        (b"GGML" + bytes(20), ["b'GGML'"]),
        (b"\x80\x02PK" + bytes(20), ["not with b'GGUF'"]),
        (head(1), ["version 1"]),
        (head(4), ["version 4"]),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), ["big endian"]),
        (head(3, tensors=65_537), ["65537", "65536"]),
        (head(3, keys=2**63), ["keys", str(2**63)]),
        (head(3, keys=1), ["key 0", "byte 32", "24 bytes"]),
        (head(3, keys=1) + struct.pack("<Q", 2**40), [str(2**40)]),
        (head(3, keys=1) + ggufs.text(""), ["key 0", "empty"]),
        (head(3, keys=1) + ggufs.text(b"\xff\xfe"), ["name of key 0", "UTF-8"]),
        (head(3, keys=2) + key("a", 4, bytes(4)) * 2, ["second 'a'"]),
        (head(3, keys=1) + key("a", 13, b""), ["key a", "type 13"]),
        (head(3, keys=1) + key("a", 9, struct.pack("<IQ", 9, 1)), ["key a", "arrays"]),
        (head(3, keys=1) + key("a", 9, struct.pack("<IQ", 99, 1)), ["key a", "99"]),
        (head(3, keys=1) + key("a", 9, struct.pack("<IQ", 4, 2**61)), ["key a", "ends at byte"]),
        (head(3, keys=1) + key("a", 9, struct.pack("<IQ", 8, 2**33)), ["key a", str(2**33)]),
        (head(3, keys=1) + key("a", 9, struct.pack("<IQQ", 8, 2, 5) + b"xxxxx"), ["key a, element 1"]),
        (head(3, keys=1) + key("a", 8, struct.pack("<Q", 50)), ["key a", "ends at byte"]),
        (head(3, keys=1) + key("general.alignment", 4, struct.pack("<I", 3)), ["general.alignment is 3"]),
        (head(3, keys=1) + key("general.alignment", 10, struct.pack("<Q", 32)), ["uint64"]),
        (head(3, keys=1) + key("general.alignment", 4, struct.pack("<I", 8192)), ["8192"]),
        (head(3, tensors=1) + ggufs.text("x" * 64), ["name of tensor 0", "64"]),
        (head(3, tensors=1) + ggufs.text("x") + struct.pack("<I", 5), ["tensor x", "5, more than 4"]),
    ],
)
def test_a_damaged_container_is_refused_with_the_place_and_the_numbers(raw: bytes, words: list[str]) -> None:
    said = refused(raw)
    for word in words:
        assert word in said


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return ggufs.text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ([tensor("x", (), 0, 0)], ["tensor x", "shape []"]),
        ([tensor("x", (0, 4), 0, 0)], ["tensor x", "[0, 4]"]),
        ([tensor("x", (2**32, 2**32), 0, 0)], ["impossible shape"]),
        ([tensor("x", (2**63,), 0, 0)], ["impossible shape"]),
        ([tensor("x", (4,), 77, 0)], ["tensor x", "type 77"]),
        ([tensor("x", (4,), 31, 0)], ["Q4_0_4_4"]),
        ([tensor("x", (33,), 8, 0)], ["rows of 33", "32", "Q8_0"]),
        ([tensor("x", (32, 10**9), 8, 0)], ["tensor x ends at byte"]),
        ([tensor("x", (8,), 0, 0), tensor("x", (8,), 0, 32)], ["two tensors x"]),
        ([tensor("x", (8,), 0, 0), tensor("y", (8,), 0, 0)], ["tensor y is at offset 0", "expected 32"]),
        ([tensor("x", (8,), 0, 0), tensor("y", (8,), 0, 64)], ["tensor y is at offset 64", "expected 32"]),
        ([tensor("x", (8,), 0, 2**63)], ["tensor x is at offset"]),
    ],
)
def test_a_damaged_tensor_is_refused_by_name(described: list[bytes], words: list[str]) -> None:
    raw = head(3, tensors=len(described)) + b"".join(described)
    said = refused(raw + bytes(-len(raw) % 32 + 96))
    for word in words:
        assert word in said


def test_every_cut_of_a_right_file_is_refused() -> None:
    for length in (*range(400), *range(400, len(RIGHT), 1511), len(RIGHT) - 1):
        with pytest.raises(BadWeights):
            read_header(*ggufs.reader(RIGHT[:length]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_damage_never_raises_anything_but_our_error(data: st.DataObject) -> None:
    raw = bytearray(RIGHT)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, 9000))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        header = read_header(*ggufs.reader(bytes(raw)))
    except BadWeights:
        return
    assert header.size == len(RIGHT)


def test_a_file_is_read_as_the_reference_reader_reads_it() -> None:
    reference = gguf.GGUFReader(BUILTIN)
    header = read_header(*ggufs.reader(BUILTIN.read_bytes()))
    expected = {name: field.contents() for name, field in reference.fields.items() if not name.startswith("GGUF.")}
    found = {}
    for name, value in header.metadata.items():
        if isinstance(value, Array):
            strings = value.kind == "string"
            found[name] = [s.decode() for s in value.strings()] if strings else list(value.numbers())
        else:
            found[name] = value
    assert found == expected
    assert [(t.name, t.type, t.bytes, t.offset) for t in header.tensors] == [
        (t.name, t.tensor_type.name, t.n_bytes, t.data_offset) for t in reference.tensors
    ]


def test_a_file_written_by_the_reference_writer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint64("a", 2**63)
    writer.add_int8("b", -1)
    writer.add_bool("c", True)
    writer.add_float64("d", 0.5)
    writer.add_array("e", [1, -2, 3])
    writer.add_array("f", ["x", "ü", ""])
    writer.add_tensor("t.weight", np.ones((3, 32), dtype=np.float32))
    writer.add_tensor("u", np.ones(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(*ggufs.reader(path.read_bytes()))
    values = {k: header.metadata[k] for k in "abcd"}
    assert values == {"a": 2**63, "b": -1, "c": True, "d": 0.5}
    numbers, strings = header.metadata["e"], header.metadata["f"]
    assert isinstance(numbers, Array)
    assert isinstance(strings, Array)
    assert numbers.numbers() == (1, -2, 3)
    assert strings.strings() == [b"x", "ü".encode(), b""]
    assert [(t.name, t.shape, t.bytes) for t in header.tensors] == [("t.weight", (32, 3), 384), ("u", (5,), 10)]


def test_only_the_header_is_read() -> None:
    raw = ggufs.model().with_tensor("big", ggufs.Stored((32, 2**22), 8)).bytes()
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return raw[offset : offset + length]

    header = read_header(read, len(raw))
    assert len(raw) > 100 * 1024**2
    assert sum(length for _, length in asked) < 3 * 1024**2
    assert header.tensors[-1].name == "big"


def test_a_header_without_end_is_cut_off_at_the_bound() -> None:
    start = head(3, keys=1) + key("a", 9, struct.pack("<IQ", 0, 2**40))
    size = 2**41
    with pytest.raises(BadWeights, match=str(MAX_HEADER)):
        read_header(lambda offset, length: (start + bytes(length))[offset : offset + length], size)


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    with pytest.raises(BadWeights, match="could be read"):
        read_header(lambda offset, length: RIGHT[offset : offset + length - 1], len(RIGHT))


@pytest.mark.timeout(60)  # it bounds its own processor time
def test_a_vocabulary_of_150_000_tokens_is_read_and_checked_in_a_moment() -> None:
    tokens = [b"token %d" % number for number in range(151_936)]
    merges = [b"a %d" % number for number in range(151_387)]
    file = ggufs.model().with_key("tokenizer.ggml.model", ggufs.string("gpt2"))
    file = file.without_key("tokenizer.ggml.scores").with_key("tokenizer.ggml.tokens", ggufs.texts(tokens))
    file = file.with_key("tokenizer.ggml.merges", ggufs.texts(merges))
    file = file.with_key("tokenizer.ggml.token_type", ggufs.ints([1] * len(tokens)))
    file = file.with_tensor("token_embd.weight", ggufs.Stored((ggufs.WIDTH, len(tokens)), 8))
    raw = file.bytes()
    from mullama.weights.inspect import inspect

    with processor_time() as cost:
        facts = inspect([ggufs.reader(raw)])
    assert cost.seconds < 5.0  # a tenth of a second on an idle machine of 2025
    assert facts.vocabulary == 151_936
