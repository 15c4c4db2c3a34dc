"""`https://…/model.gguf`: a file by its address. The manifest has its digest, or the first download determines it."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

from mullama.errors import Invalid
from mullama.names import UrlRef
from mullama.sources.base import Cancelled
from mullama.weights.located import Located, LocatedFile
from mullama.weights.split import split_name

_SCHEMES: Final = ("http", "https")


class UrlSource:
    """Finds the files of an address. Sends no request: the download determines size and digest."""

    def locate(self, ref: UrlRef, cancelled: Cancelled) -> Located:
        parts = urlsplit(ref.url)
        if parts.scheme not in _SCHEMES:
            raise Invalid(
                f"{ref.url[:120]!r} has a scheme that mullama does not download from", hint="use https:// or hf:"
            )
        if parts.scheme == "http" and not _loopback(parts.hostname or ""):
            raise Invalid(f"{ref.url[:120]!r} is not encrypted", hint="use https://; http:// only for this machine")
        name = unquote(parts.path.rsplit("/", 1)[-1])
        if not name.lower().endswith(".gguf"):
            raise Invalid(f"{ref.url[:120]!r} does not end in .gguf", hint="only GGUF files can be run")
        files = tuple(
            LocatedFile(name=part, url=ref.url.replace(name, part) if part != name else ref.url)
            for part in split_name(name)
        )
        return Located(source=str(ref), resolved=str(ref), files=files)


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
