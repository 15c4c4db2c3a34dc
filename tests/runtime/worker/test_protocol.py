"""What goes between the server and a worker comes out as it went in, in whatever cuts."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.types import DEFAULT_SAMPLING, Constraint, TokenLogprob
from mullama.engines import base
from mullama.errors import EngineFailed, Kind
from mullama.runtime.worker import protocol

LOGPROB = TokenLogprob(
    id=3, text="é", bytes="é".encode()[:1], logprob=float("-inf"),
    top=(TokenLogprob(id=4, text="x", bytes=b"x", logprob=-0.5),),
)  # fmt: skip
VALUES: list[Any] = [
    base.Generate(id=1, context="c", prompt="héllo \x00", sampling=DEFAULT_SAMPLING, stop=("a", "b"), logprobs=2,
                  constraint=Constraint(grammar="start: /x/", triggers=("<t>",), after="</think>")),
    base.Generate(id=2, context="c", prompt=(1, 2, 3), sampling=DEFAULT_SAMPLING),
    base.Embed(id=3, context="c", inputs=("a", (1, 2)), pairs=(("q", "d"),)),
    base.WeightsOptions(gpu_layers=-1, tensor_split=(3.0, 1.0)),
    base.ContextOptions(size=5, adapters=(base.Adapter(path="/a", scale=0.5),), prefixes=(base.Prefix(text="x"),)),
    base.EngineChoice(name="scripted", files=("/f",), options=base.WeightsOptions(mlock=True)),
    base.EngineStats(steps=3, contexts=("a",), held=(("a", 7),)),
]  # fmt: skip
OUTPUTS: list[base.Output] = [
    base.Begun(id=1, prompt_tokens=3, cached_tokens=1),
    base.Prefilled(id=1, done=2, total=3),
    base.Piece(id=1, text="plain", count=2),
    base.Piece(id=1, text="é", count=1, logprobs=(LOGPROB,)),
    base.Piece(id=1, text="x", count=1, echo=True),
    base.Ended(id=1, reason="stop", tokens=(1, 2)),
    base.Embedded(id=1, vectors=((1.0, float("nan")),), tokens=2),
    base.Failed(id=1, kind=Kind.INVALID, message="no", numbers=(("prompt_tokens", 5),)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_a_value_of_the_seam_survives_the_wire(value: Any) -> None:
    tree = json.loads(protocol.pack({"t": "x", "v": protocol.dump(value)})[4:])["v"]

    assert protocol.load(type(value), tree) == value


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda v: type(v).__name__)
def test_an_output_survives_the_wire(output: base.Output) -> None:
    assert repr(received(protocol.pack_outputs([output]))) == repr([output])


def received(data: bytes) -> list[base.Output]:
    """As a server reads it."""
    return [output for message in protocol.Unpacker().feed(data) for output in message["o"]]


def test_outputs_keep_their_order_whatever_they_are() -> None:
    assert repr(received(protocol.pack_outputs([*OUTPUTS, *OUTPUTS[::-1]]))) == repr([*OUTPUTS, *OUTPUTS[::-1]])


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.text(), st.integers(0, 2**32 - 1)), max_size=5))
def test_pieces_of_text_survive_the_wire(said: list[tuple[int, str, int]]) -> None:
    pieces = [base.Piece(id=id, text=text, count=count) for id, text, count in said]
    there = [(piece.id, piece.text, piece.count) for piece in received(protocol.pack_outputs(pieces))]  # type: ignore[union-attr]

    assert there == [(id, text.encode("utf-8", "replace").decode(), count) for id, text, count in said]


@given(texts=st.lists(st.text(), max_size=6), data=st.data())
def test_frames_come_out_whole_however_they_are_cut(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(protocol.pack({"t": "x", "text": text}) for text in texts)
    unpacker, found = protocol.Unpacker(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += [message["text"] for message in unpacker.feed(stream[:size])]
        stream = stream[size:]

    assert found == [text.encode("utf-8", "replace").decode() for text in texts]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", protocol.MAX_FRAME + 1),
        struct.pack("<I", 3) + b"nop",
        struct.pack("<I", 2) + b"[]",
        struct.pack("<I", 2) + b"{}",
        struct.pack("<I", 1) + b"\xff",
        struct.pack("<I", 0),
        struct.pack("<I", 4) + b"\x00abc",
        struct.pack("<IxIII", 14, 1, 1, 2) + b"a",
        struct.pack("<IxIII", 15, 1, 1, 2) + b"\xff\xff",
    ],
)
def test_garbage_is_an_error_of_the_worker(data: bytes) -> None:
    with pytest.raises(EngineFailed):
        list(protocol.Unpacker().feed(data))


@pytest.mark.parametrize(
    "tree", [["Nothing", {}], ["Ended", {"id": 1}], ["Ended", {"id": 1, "reason": "stop", "odd": 1}], ["Begun"]]
)
def test_an_output_that_is_none_is_an_error_of_the_worker(tree: list[Any]) -> None:
    with pytest.raises(EngineFailed):
        received(protocol.pack({"t": "out", "o": [tree]}))


@pytest.mark.parametrize(
    "message", [{"t": "out"}, {"t": "out", "o": 3}, {"t": "out", "o": [3]}, {"t": "out", "o": [[]]}]
)
def test_outputs_that_are_no_list_of_them_are_an_error_of_the_worker(message: dict[str, Any]) -> None:
    with pytest.raises(EngineFailed):
        received(protocol.pack(message))
