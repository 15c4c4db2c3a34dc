"""Messages between the server and a worker are received as they were sent, in any parts."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.types import DEFAULT_SAMPLING, Constraint, TokenLogprob
from mullama.engines import base
from mullama.errors import EngineFailed, Kind, TooLarge
from mullama.runtime.worker import protocol
from mullama.struct import replace

LOGPROB = TokenLogprob(
    id=3, text="é", bytes="é".encode()[:1], logprob=float("-inf"),
    top=(TokenLogprob(id=4, text="x", bytes=b"x", logprob=-0.5),),
)  # fmt: skip
COMMANDS: list[protocol.WorkerMessage] = [
    protocol.SubmitGenerate(
        job=base.Generate(id=1, context="c", prompt="héllo \x00", sampling=DEFAULT_SAMPLING, stop=("a",), logprobs=2,
                          constraint=Constraint(grammar="start: /x/", triggers=("<t>",), after="</think>")),
    ),
    protocol.SubmitGenerate(
        job=base.Generate(id=2, context="c", prompt=(1, 2, 3),
                          sampling=replace(DEFAULT_SAMPLING, logit_bias=((1, float("-inf")),))),
    ),
    protocol.SubmitGenerate(
        job=base.Generate(id=2, context="c", prompt="a \ue001", marker="\ue001", sampling=DEFAULT_SAMPLING,
                          media=(Medium.of("image", bytes(range(256))),), media_limits=MediaLimits(count=1)),
    ),
    protocol.CountTokens(number=6, prompt=base.Prompt(
        context="c", prompt="\ue001", marker="\ue001", media=(Medium.of("audio", b"RIFF"),), media_limits=MediaLimits(),
    )),
    protocol.SubmitEmbed(job=base.Embed(id=3, context="c", inputs=("a", (1, 2)), pairs=(("q", "d"),))),
    protocol.LoadWeights(number=1, choice=base.EngineChoice(
        name="scripted", files=("/f",), options=base.WeightsOptions(gpu_layers=-1, tensor_split=(3.0, 1.0), mlock=True),
    ), logs=True),
    protocol.OpenContext(number=2, name="c", options=base.ContextOptions(
        size=5, adapters=(base.Adapter(path="/a", scale=0.5),), prefixes=(base.Prefix(text="x"),),
    )),
    protocol.RetuneContext(number=3, name="c", threads=2, scales=(0.5,)),
    protocol.DeclarePrefixes(number=4, name="c", prefixes=(base.Prefix(text="x"),)),
    protocol.Tokenize(number=5, text="é", add_special=True, parse_special=False),
    protocol.CancelJob(id=1),
    protocol.GetLog(number=6),
    protocol.Exit(),
]  # fmt: skip
CACHE = base.CacheUse(context="a", cells=9, used=7, sequences=(base.CachedSequence(use="prefix", tokens=7),))
ANSWERS: list[Any] = [
    base.EngineStats(steps=3, contexts=("a",), caches=(CACHE,)),
    b"\xff\x00",
    None,
]
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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda v: type(v).__name__)
def test_a_command_survives_the_wire(command: protocol.WorkerMessage) -> None:
    assert list(protocol.Unpacker(protocol.command_reader()).feed(protocol.pack(command))) == [command]


@pytest.mark.parametrize("value", ANSWERS, ids=lambda v: type(v).__name__)
def test_an_answer_survives_the_wire(value: Any) -> None:
    (reply,) = protocol.Unpacker(protocol.reply_reader()).feed(protocol.pack(protocol.answer(3, value)))

    assert isinstance(reply, protocol.CallResult)
    assert reply.number == 3
    assert protocol.read_value(type(value), reply.value) == value
    with pytest.raises(EngineFailed):
        protocol.read_value(base.EngineFacts, reply.value)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda v: type(v).__name__)
def test_an_output_survives_the_wire(output: base.Output) -> None:
    assert repr(received(protocol.pack_outputs([output]))) == repr([output])


def received(data: bytes) -> list[base.Output]:
    """Return the outputs as a server reads them."""
    messages = protocol.Unpacker(protocol.reply_reader()).feed(data)
    return [output for outputs in messages if isinstance(outputs, list) for output in outputs]


def test_outputs_of_all_kinds_keep_their_order() -> None:
    assert repr(received(protocol.pack_outputs([*OUTPUTS, *OUTPUTS[::-1]]))) == repr([*OUTPUTS, *OUTPUTS[::-1]])


def test_a_lone_surrogate_is_replaced() -> None:
    failed = base.Failed(id=1, kind=Kind.NOT_FOUND, message="no \udc80", numbers=(("n", 1),))

    assert received(protocol.pack_outputs([failed])) == [replace(failed, message="no ?")]


def test_a_message_that_the_other_side_would_refuse_is_an_error_of_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "MAX_FRAME", 200)
    with pytest.raises(TooLarge, match=r"a message of .* between server and worker"):
        protocol.pack(protocol.Detokenize(number=1, tokens=(10**6,) * 100))


def test_an_output_that_is_too_large_fails_its_own_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_FRAME", 200)
    small = base.Embedded(id=1, vectors=((1.0,),), tokens=1)
    large = base.Embedded(id=2, vectors=((1.0,) * 100,), tokens=1)

    first, failed, last = received(protocol.pack_outputs([small, large, small]))

    assert (first, last) == (small, small)
    assert isinstance(failed, base.Failed)
    assert (failed.id, failed.kind) == (2, Kind.TOO_LARGE)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.text(), st.integers(0, 2**32 - 1)), max_size=5))
def test_pieces_of_text_survive_the_wire(values: list[tuple[int, str, int]]) -> None:
    pieces = [base.Piece(id=id, text=text, count=count) for id, text, count in values]
    there = [(piece.id, piece.text, piece.count) for piece in received(protocol.pack_outputs(pieces))]  # type: ignore[union-attr]

    assert there == [(id, text.encode("utf-8", "replace").decode(), count) for id, text, count in values]


@given(texts=st.lists(st.text(), max_size=6), data=st.data())
def test_frames_are_complete_however_they_are_cut(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(protocol.pack(protocol.CloseContext(number=1, name=text)) for text in texts)
    unpacker, found = protocol.Unpacker(protocol.command_reader()), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += [message.name for message in unpacker.feed(stream[:size])]  # type: ignore[union-attr]
        stream = stream[size:]

    assert found == texts


def frame(tree: Any) -> bytes:
    body = msgspec.msgpack.encode(tree)
    return struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", protocol.MAX_FRAME + 1),
        struct.pack("<I", 3) + b"nop",
        struct.pack("<I", 1) + b"\xff",
        struct.pack("<I", 0),
        struct.pack("<I", 4) + b"\x00abc",
        struct.pack("<IxIII", 14, 1, 1, 2) + b"a",
        struct.pack("<IxIII", 15, 1, 1, 2) + b"\xff\xff",
        frame([]),
        frame({}),
        frame(["Nothing"]),
        frame(["Pong", 1]),
        frame(["Pong", 1, "x"]),
        frame(["Outputs"]),
        frame(["Outputs", 3]),
        frame(["Outputs", [3]]),
        frame(["Outputs", [[]]]),
        frame(["Outputs", [["Nothing", {}]]]),
        frame(["Outputs", [["Ended", {"id": 1}]]]),
        frame(["Outputs", [["Ended", {"id": 1, "reason": "odd"}]]]),
        frame(["Outputs", [["Ended", {"id": "1", "reason": "stop"}]]]),
        frame(["Outputs", [["Begun"]]]),
    ],
)
def test_garbage_is_an_error_of_the_worker(data: bytes) -> None:
    with pytest.raises(EngineFailed):
        list(protocol.Unpacker(protocol.reply_reader()).feed(data))
