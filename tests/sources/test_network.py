"""The connection parts head and body wherever the pieces of an answer end."""

from __future__ import annotations

import itertools

import h11
import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.sources.network import Cancellation, Deadline, Stream

BODY = b"\r\n\r\n\n\nbody" * 3
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX: y\r\n\r\n" % len(BODY)


class Pieces(httpcore2.NetworkStream):
    """What arrives, in these pieces; what is there may be read in smaller ones."""

    def __init__(self, *pieces: bytes) -> None:
        self._left = list(pieces)
        self.written = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._left:
            return b""
        piece = self._left.pop(0)
        if piece[max_bytes:]:
            self._left.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.written += buffer


def split(data: bytes, cuts: set[int]) -> tuple[bytes, ...]:
    ends = [0, *sorted(cuts), len(data)]
    return tuple(data[a:b] for a, b in itertools.pairwise(ends) if b > a)


def parsed_head(stream: Stream) -> h11.Connection:
    """What the library does until it knows the head."""
    parser = h11.Connection(h11.CLIENT)
    stream.write(parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")])) or b"")
    stream.write(parser.send(h11.EndOfMessage()) or b"")
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Response):
            return parser
        if event is h11.NEED_DATA:
            parser.receive_data(stream.read(65536))


@given(st.sets(st.integers(1, len(HEAD + BODY) - 1)))
def test_a_body_is_read_past_the_parser_wherever_the_pieces_end(cuts: set[int]) -> None:
    stream = Stream(Pieces(*split(HEAD + BODY + b"more", cuts)), Deadline())

    parser = parsed_head(stream)

    assert stream.at_body
    assert parser.trailing_data == (b"", False)
    assert b"".join(stream.body(len(BODY), None)) == BODY


@given(st.sets(st.integers(1, len(HEAD + BODY) - 1)))
def test_the_parser_gets_all_of_it_where_nobody_goes_past_it(cuts: set[int]) -> None:
    stream = Stream(Pieces(*split(HEAD + BODY, cuts)), Deadline())
    parser, got = parsed_head(stream), b""

    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            got += bytes(event.data)
        else:
            parser.receive_data(stream.read(65536))
            assert not stream.at_body

    assert got == BODY


def test_an_interim_answer_leaves_the_whole_to_the_parser() -> None:
    stream = Stream(Pieces(b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + BODY), Deadline())

    parsed_head(stream)

    assert not stream.at_body


def test_a_body_that_ends_early_is_short() -> None:
    stream = Stream(Pieces(HEAD + b"ab", b"c"), Deadline())
    parsed_head(stream)

    assert b"".join(stream.body(100, None)) == b"abc"


def test_nobody_waits_for_an_answer_that_nobody_wants() -> None:
    patience = Deadline()
    stream = Stream(Pieces(HEAD, b"a", b"b"), patience)
    parsed_head(stream)
    pieces = stream.body(2, None)
    next(pieces)

    patience.cancelled = lambda: True

    with pytest.raises(Cancellation):
        next(pieces)
