"""Decodes images of requests: base64, data URIs and addresses."""

from __future__ import annotations

import base64
import binascii
import re

from mullama.chat.types import ImagePart
from mullama.dialects.fields import to_text, unfit
from mullama.errors import Invalid
from mullama.names import JSONValue

MOST_IMAGES = 64
_DATA = re.compile(r"data:([a-zA-Z0-9.+/-]*)((?:;[a-zA-Z0-9=_.+-]+)*),", re.IGNORECASE)


def from_base64(value: JSONValue, path: str, media_type: str | None = None) -> ImagePart:
    """Return an image from bare base64 or from a `data:` URI."""
    text = to_text(value, path)
    if text[:5].lower() == "data:":
        return _from_data(text, path)
    return ImagePart(data=decoded(text, path), media_type=media_type, place=path)


def from_url(value: JSONValue, path: str) -> ImagePart:
    """Return an image from a `data:` URI, or its address, which the runtime fetches or refuses."""
    text = to_text(value, path)
    if text[:5].lower() == "data:":
        return _from_data(text, path)
    if not re.match(r"https?://[^/\s]", text, re.IGNORECASE) or len(text) > 8192:
        raise unfit(path, "a data: URI or an http(s) address")
    return ImagePart(url=text, place=path)


def decoded(text: str, path: str) -> bytes:
    """Return the bytes of base64 in either alphabet, with or without padding and line breaks."""
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{path} is not base64: {error}", field=path) from error
    if not data:
        raise unfit(path, "base64 of at least one byte")
    return data


def _from_data(text: str, path: str) -> ImagePart:
    head = _DATA.match(text)
    if head is None or not head[2].lower().endswith(";base64"):
        raise unfit(path, "a data: URI in base64")
    media_type = head[1].lower()
    if media_type and not media_type.startswith("image/"):
        raise unfit(path, f"an image, not {media_type[:40]}")
    return ImagePart(data=decoded(text[head.end() :], path), media_type=media_type or None, place=path)
