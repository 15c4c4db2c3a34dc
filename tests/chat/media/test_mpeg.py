"""The end of a stream of MPEG is missed where the tag of its encoder states more."""

from __future__ import annotations

import pytest

from mullama.chat.media.mpeg import mpeg_tag

_FRAME = 417  # bytes at 128 kbit/s and 44.1 kHz
_SECONDS = 1152 / 44100


def tagged(tag: str, *, frames: int = 40, flags: int = 3, size: int | None = None) -> bytes:
    """Frames of MPEG 1 layer III without sound, the first of which has a tag. size: the bytes that it states."""
    head = bytes((0xFF, 0xFB, 0x90, 0x00)) + bytes(32)
    counts = frames.to_bytes(4, "big"), (_FRAME * (frames + 1) if size is None else size).to_bytes(4, "big")
    if tag == "VBRI":
        head += b"VBRI" + bytes(6) + counts[1] + counts[0]
    else:
        head += tag.encode() + flags.to_bytes(4, "big") + b"".join(counts[i] for i in (0, 1) if flags >> i & 1)
    return head.ljust(_FRAME, b"\0") + (head[:4] + bytes(_FRAME - 4)) * frames


@pytest.mark.parametrize("tag", ["Xing", "Info", "VBRI"])
@pytest.mark.parametrize("junk", [0, 100])
def test_a_tag_states_the_end(tag: str, junk: int) -> None:
    whole = bytes(junk) + tagged(tag)
    found = mpeg_tag(whole)
    assert found is not None
    assert found.seconds == pytest.approx(40 * _SECONDS)
    assert found.missing(len(whole)) == 0
    assert found.missing(len(whole) + 128) == 0  # a tag at its end
    assert found.missing(len(whole) - 10 * _FRAME) == pytest.approx(10 * _SECONDS, rel=0.05)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        tagged("Xing", flags=1),
        tagged("Xing", flags=2),
        tagged("none"),
        tagged("VBRI", size=0),
        tagged("Info")[:40],
    ],
)
def test_a_stream_without_such_a_tag_states_no_end(data: bytes) -> None:
    found = mpeg_tag(data)
    assert found is None or not found.missing(len(data))
