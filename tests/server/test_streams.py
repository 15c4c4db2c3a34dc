"""The bytes of frames."""

from __future__ import annotations

import pytest

from mullama.dialects.base import Frame
from mullama.server.http.strict_json import to_json
from mullama.server.streams import to_bytes


@pytest.mark.parametrize(
    ("frame", "event", "line"),
    [
        (Frame(data={"a": "é"}), 'data: {"a":"é"}\n\n', '{"a":"é"}\n'),
        (Frame(data={"a": [1, None]}, event="x"), 'event: x\ndata: {"a":[1,null]}\n\n', '{"a":[1,null]}\n'),
        (Frame(data="[DONE]"), "data: [DONE]\n\n", '"[DONE]"\n'),
        (Frame(data="one\ntwo"), "data: one\ndata: two\n\n", '"one\\ntwo"\n'),
        (Frame(data="ping", comment=True), ": ping\n\n", ""),
        (Frame(data={"t": "a\nb"}), 'data: {"t":"a\\nb"}\n\n', '{"t":"a\\nb"}\n'),
    ],
)
def test_a_frame_is_an_event_or_a_line(frame: Frame, event: str, line: str) -> None:
    assert to_bytes([frame], "text/event-stream") == event.encode()
    assert to_bytes([frame], "application/x-ndjson") == line.encode()
    assert to_bytes([frame, frame], "text/event-stream") == event.encode() * 2


def test_nan_and_infinity_are_written_as_null() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        assert to_json({"x": [value, 1.5]}) == b'{"x":[null,1.5]}'
