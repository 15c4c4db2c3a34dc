"""Decodes images and sounds of requests: base64, data URIs and addresses."""

from __future__ import annotations

import base64
import re

from mullama.chat.media import MediumKind
from mullama.chat.media.formats import KINDS, format_of
from mullama.chat.types import MediaPart
from mullama.dialects.fields import Body, to_text, unfit
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue

_DATA = re.compile(r"data:([a-zA-Z0-9.+/-]*)((?:;[a-zA-Z0-9=_.+-]+)*),", re.IGNORECASE)


def from_base64(value: JSONValue, path: str, kind: MediumKind = "image") -> MediaPart:
    """Return a medium from bare base64 or from a `data:` URI. Its bytes decide on its kind; `kind` if they do not."""
    text = to_text(value, path)
    if text[:5].lower() == "data:":
        return _from_data(text, path, kind)
    return _part(decoded(text, path), path, kind)


def from_url(value: JSONValue, path: str, kind: MediumKind = "image") -> MediaPart:
    """Return a medium from a `data:` URI, or its address, which the server fetches or refuses."""
    text = to_text(value, path)
    if text[:5].lower() == "data:":
        return _from_data(text, path, kind)
    if not re.match(r"https?://[^/\s]", text, re.IGNORECASE) or len(text) > 8192:
        raise unfit(path, "a data: URI or an http(s) address")
    return MediaPart(kind=kind, url=text, place=path)


def image_part(body: Body) -> MediaPart:
    """Return the image of a part in OpenAI's forms: `image_url` is an address, or an object with one."""
    holder = body.raw("image_url")
    if isinstance(holder, dict):
        return from_url(holder.get("url"), body.at("image_url.url"))
    if holder is None and body.has("file_id"):
        raise _not_stored(body)
    return from_url(holder, body.at("image_url"))


def sound_part(body: Body) -> MediaPart:
    """Return the sound of a part in OpenAI's form: `input_audio` has `data` in base64 and a `format`, or a `url`."""
    holder = body.child("input_audio")
    if holder is None:
        raise Invalid(f"{body.at('input_audio')} is required", field=body.at("input_audio"))
    if not holder.has("data") and holder.has("url"):
        return from_url(holder.raw("url"), holder.at("url"), "audio")
    part = from_base64(holder.raw("data"), holder.at("data"), "audio")
    if part.kind != "audio":
        raise unfit(holder.at("data"), f"a sound, not {part.kind}")
    return part


def file_part(body: Body) -> MediaPart:
    """Return the image or sound of a part in OpenAI's forms of a file.

    Chat has an object `file`, Responses has its members in the part: `file_data` is a data URI or base64, and
    `file_url` is an address. Raises `Unsupported` for a stored file and for a file that is no medium.
    """
    holder = body.child("file") or body
    if holder.has("file_data"):
        place = holder.at("file_data")
        text = to_text(holder.raw("file_data"), place)
        head = _DATA.match(text)
        data = decoded(text[head.end() :] if head else text, place)
        if format_of(data) is None:
            name = str(holder.raw("filename") or (head[1] if head else "") or "the file")[:80]
            raise Unsupported(
                f"{place}: {name!r} is no image and no sound",
                hint="send the text of a document as text",
                field=place,
            )
        return _part(data, place, "image")
    if holder.has("file_url"):
        return from_url(holder.raw("file_url"), holder.at("file_url"))
    if holder.has("file_id"):
        raise _not_stored(holder)
    raise Invalid(f"{holder.at('file_data')} is required", field=holder.at("file_data"))


def decoded(text: str, path: str) -> bytes:
    """Return the bytes of base64 in either alphabet, with or without padding and line breaks."""
    try:
        # Bytes, because the pieces of a text with many spaces would take 50 times its memory.
        plain = text.encode("ascii").translate(_PLAIN, b" \t\r\n\v\f").rstrip(b"=")
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError as error:  # also of binascii
        raise Invalid(f"{path} is not base64: {_fault(error)}", field=path) from error
    if not data:
        raise unfit(path, "base64 of at least one byte")
    return data


_PLAIN = bytes.maketrans(b"-_", b"+/")


def _fault(error: ValueError) -> str:
    """Return the reason; the one of `UnicodeEncodeError` names a codec, which is no fact of the request."""
    return f"character {error.start} is no ASCII" if isinstance(error, UnicodeEncodeError) else str(error)


def _part(data: bytes, path: str, kind: MediumKind) -> MediaPart:
    found = format_of(data)
    return MediaPart(kind=KINDS[found] if found else kind, data=data, place=path)


def _from_data(text: str, path: str, kind: MediumKind) -> MediaPart:
    head = _DATA.match(text)
    if head is None or not head[2].lower().endswith(";base64"):
        raise unfit(path, "a data: URI in base64")
    media_type = head[1].lower()
    if media_type.startswith("audio/"):
        kind = "audio"
    elif media_type and not media_type.startswith("image/") and media_type != "application/octet-stream":
        raise unfit(path, f"an image or a sound, not {media_type[:40]}")
    return _part(decoded(text[head.end() :], path), path, kind)


def _not_stored(body: Body) -> Unsupported:
    return Unsupported(f"{body.path}: files are not stored; send the file itself", field=body.path)
