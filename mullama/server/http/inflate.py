"""Decompression of request bodies, piece by piece and within the size limit of a body."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from mullama.errors import Invalid, TooLarge
from mullama.server.http.exchange import Rejection
from mullama.units import size

_WINDOW_LOG = 23  # a zstd frame may require a window of any size: 8 MiB is what every decoder must support


class Inflater(Protocol):
    """Decodes one body."""

    def feed(self, piece: bytes) -> bytes:
        """Return the decoded bytes of a piece; raise `Invalid` for malformed data and `Rejection` beyond the limit."""
        ...

    def end(self) -> bytes:
        """Return the remaining bytes; raise `Invalid` for incomplete data."""
        ...


def inflater(encoding: str, limit: int) -> Inflater:
    """Return the decoder of a Content-Encoding, for at most `limit` decoded bytes (a 413 beyond, 415 if unknown)."""
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Packed("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error, limit)
        case "zstd":
            return _zstd(limit)
        case other:
            error = Invalid(f"the body has Content-Encoding {other[:40]!r}", hint="send it plain, or as gzip or zstd")
            raise Rejection(415, error, close=True)


class _Plain:
    def feed(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> bytes:
        return b""


class _Packed:
    """Decodes one compressed stream; `make` returns an object with the interface of zlib's decompressors."""

    def __init__(self, name: str, make: Callable[[], Any], failure: type[Exception], limit: int) -> None:
        self._name, self._failure = name, failure
        self._decompressor = make()
        self._left = limit
        self._limit = limit
        self._fed = False

    def feed(self, piece: bytes) -> bytes:
        self._fed = True
        if self._decompressor.eof:
            raise Invalid(f"the body continues after the end of its {self._name} data")
        try:
            plain: bytes = self._decompressor.decompress(piece, self._left + 1)
        except self._failure as error:
            raise Invalid(f"the body is not valid {self._name}: {error}") from error
        self._left -= len(plain)
        if self._left < 0:
            large = TooLarge(
                f"the body unpacks to more than {size(self._limit)}",
                hint="send less, or raise server.limits.body in the manifest",
            )
            raise Rejection(413, large, close=True)
        if self._decompressor.unused_data:
            raise Invalid(f"the body continues after the end of its {self._name} data")
        return plain

    def end(self) -> bytes:
        if self._fed and not self._decompressor.eof:
            raise Invalid(f"the {self._name} data of the body is incomplete")
        return b""


def _zstd(limit: int) -> Inflater:
    """Return the decoder of zstd. Its library is imported for the first such body, which few clients send."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
    return _Packed("zstd", lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError, limit)
