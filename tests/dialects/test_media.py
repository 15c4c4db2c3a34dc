"""Images: base64 in any usual form, data URIs and addresses; anything else is refused by name."""

from __future__ import annotations

import base64

import pytest

from mullama.chat.media import MOST_MEDIA
from mullama.chat.types import MediaPart
from mullama.dialects.media import from_base64, from_url
from mullama.dialects.ollama.chat import message
from mullama.errors import Invalid
from mullama.manifest.spec.server import MediaBounds

PNG = b"\x89PNG\r\n\x1a\n\xfb\xef"
PLAIN = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "said",
    [
        PLAIN,
        PLAIN.rstrip("="),
        base64.urlsafe_b64encode(PNG).decode(),
        f"{PLAIN[:5]}\r\n {PLAIN[5:]}",
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/png;charset=x;base64,{PLAIN}",
    ],
)
def test_base64_is_read_in_every_form_that_clients_send(said: str) -> None:
    assert from_base64(said, "images[0]").data == PNG


def test_a_data_uri_tells_the_kind_unless_the_bytes_do() -> None:
    assert from_url(f"data:image/png;base64,{PLAIN}", "url") == MediaPart(data=PNG)
    assert from_url(f"data:audio/wav;base64,{PLAIN}", "url") == MediaPart(data=PNG)
    assert from_url("data:audio/x;base64,AAAA", "url") == MediaPart(kind="audio", data=b"\0\0\0")


def test_an_address_is_not_fetched_here() -> None:
    assert from_url("https://example.org/a.png", "url") == MediaPart(url="https://example.org/a.png")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "!!!",
        "A",
        "QUJé",
        5,
        None,
        "data:image/png,abc",
        "data:text/plain;base64,YWJj",
        "data:image/png;base64,",
    ],
)
def test_what_is_no_image_is_refused_by_name(said: object) -> None:
    with pytest.raises(Invalid, match=r"images\[0\]"):
        from_base64(said, "images[0]")  # type: ignore[arg-type]


@pytest.mark.parametrize("said", ["file:///etc/passwd", "ftp://x/y", "https://", "x", "http://a/" + "b" * 9000])
def test_only_web_addresses_name_images(said: str) -> None:
    with pytest.raises(Invalid, match="data: URI or an http"):
        from_url(said, "url")


def test_forms_of_media_hold_as_many_as_the_manifest_may_allow() -> None:
    images = message({"role": "user", "images": [PLAIN] * MOST_MEDIA}, "messages[0]").content
    assert len(images) == MediaBounds(count=MOST_MEDIA).count
