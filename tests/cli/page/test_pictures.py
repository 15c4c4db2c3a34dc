"""Pictures as characters."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import pytest

from mullama.cli.page.pictures import COLUMNS, LINES, pictures

image = pytest.importorskip("PIL.Image")

RED, BLUE, NONE = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


def drawn(*rows: tuple[Any, ...], form: str = "PNG") -> bytes:
    made = image.new("RGBA", (len(rows[0]), len(rows)))
    made.putdata([pixel for row in rows for pixel in row])
    file = io.BytesIO()
    (made if form == "PNG" else made.convert("RGB")).save(file, form)
    return file.getvalue()


def shown(*files: bytes) -> list[Any]:
    return list(pictures(base64.b64encode(file).decode() for file in files))


def test_two_pixels_are_one_character() -> None:
    assert shown(drawn((RED, BLUE), (BLUE, BLUE))) == [
        ((("▀", "#ff0000 on #0000ff"), ("▀", "#0000ff on #0000ff")),),
    ]  # fmt: skip


def test_transparent_pixels_have_no_colour_and_an_odd_row_has_an_upper_half() -> None:
    rows = drawn((NONE, RED, NONE), (BLUE, NONE, NONE), (RED, RED, NONE))
    assert shown(rows) == [
        ((("▄", "#0000ff"), ("▀", "#ff0000"), (" ", "")), (("▀", "#ff0000"), ("▀", "#ff0000"), (" ", ""))),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_large_picture_is_small(form: str) -> None:
    (rows,) = shown(drawn(*[(RED,) * 400] * 300, form=form))
    assert len(rows) <= LINES
    assert max(map(len, rows)) <= COLUMNS


BOMB = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0) + bytes(64)


WRONG = {
    "empty": b"", "text": b"no picture", "sound": b"RIFF\x00\x00\x00\x00WAVE", "bomb": BOMB,
    "cut": drawn((RED,) * 40)[:45], "jpeg": b"\xff\xd8\xff" + bytes(9),
}  # fmt: skip


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_no_picture_is_left_out(data: bytes) -> None:
    assert shown(data, drawn((RED,), (RED,))) == [((("▀", "#ff0000 on #ff0000"),),)]
