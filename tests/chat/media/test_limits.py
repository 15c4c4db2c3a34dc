"""Files of a request are refused by their headers before anything decodes them."""

from __future__ import annotations

import pytest

from mullama.chat.media import MediaLimits, MediumKind
from mullama.chat.media.limits import check_count, check_file
from mullama.errors import Invalid, TooLarge
from tests.chat.media.test_formats import FLAC, GIF, JPEG, PNG, WAV

LIMITS = MediaLimits()


@pytest.mark.parametrize(
    ("kind", "data"), [("image", PNG), ("image", JPEG), ("image", GIF), ("audio", WAV), ("audio", FLAC)]
)
def test_files_within_the_limits_pass(kind: MediumKind, data: bytes) -> None:
    check_file(kind, data, "images[0]", LIMITS)


@pytest.mark.parametrize(
    ("kind", "data", "limits", "error", "words"),
    [
        ("image", b"", LIMITS, Invalid, "not an image of a known format"),
        ("image", b"%PDF-1.7", LIMITS, Invalid, "not an image of a known format"),
        ("image", WAV, LIMITS, Invalid, "not an image of a known format"),
        ("audio", PNG, LIMITS, Invalid, "not a sound of a known format"),
        ("image", PNG[:20], LIMITS, Invalid, "its png header ends early"),
        ("image", PNG.replace(b"\0\0\x02\x80", bytes(4)), LIMITS, Invalid, "0 x 480 pixels"),
        ("image", PNG, MediaLimits(pixels=640 * 480 - 1), TooLarge, "640 x 480 pixels, and 307199"),
        ("image", PNG, MediaLimits(image=8), TooLarge, "8 B is the most"),
        ("audio", WAV, MediaLimits(sound=8), TooLarge, "8 B is the most"),
        ("audio", FLAC, MediaLimits(seconds=2.5), TooLarge, "3 s, and 2.5 s is the most"),
    ],
)
def test_a_file_beyond_a_limit_is_refused_by_its_place(
    kind: MediumKind, data: bytes, limits: MediaLimits, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        check_file(kind, data, "images[0]", limits)
    assert "images[0]" in str(caught.value)


def test_the_number_of_media_is_bounded() -> None:
    check_count(2, MediaLimits(count=2))
    with pytest.raises(TooLarge, match="3 images and sounds, and 2 are the most"):
        check_count(3, MediaLimits(count=2))
