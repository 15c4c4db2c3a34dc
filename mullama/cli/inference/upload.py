"""A form with a file (multipart/form-data) as pieces, so that a large file is never in memory whole."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 18


def form_pieces(fields: Mapping[str, str], name: str, head: bytes, file: BinaryIO) -> tuple[str, Iterator[bytes]]:
    """Return the content type and the body of a form with these fields and a `file`.

    name: of the file. head: its first bytes, which were read already.
    """
    boundary = secrets.token_hex(16)

    def pieces() -> Iterator[bytes]:
        for field, value in fields.items():
            yield _part(boundary, f'name="{field}"') + value.encode() + b"\r\n"
        shown = "".join(c for c in Path(name).name if c.isprintable() and c not in '"\\')
        yield _part(boundary, f'name="file"; filename="{shown or "sound"}"') + head
        while piece := file.read(_PIECE):
            yield piece
        yield f"\r\n--{boundary}--\r\n".encode()

    return f"multipart/form-data; boundary={boundary}", pieces()


def _part(boundary: str, disposition: str) -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
