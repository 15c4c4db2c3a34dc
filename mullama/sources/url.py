"""`https://…/model.gguf`: a file by its address. The manifest has its digest, or the first download determines it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from mullama.errors import NotFound
from mullama.names import UrlRef
from mullama.sources.base import Cancelled
from mullama.weights.located import Located, LocatedFile
from mullama.weights.split import split_name

_REFERENCE: Final = re.compile(r"(?<==)from_env:([A-Za-z_][A-Za-z0-9_]*)")


class UrlSource:
    """Finds the files of an address. Sends no request: the download determines size and digest.

    env: the variables for values `from_env:NAME` in the query of an address.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def locate(self, ref: UrlRef, cancelled: Cancelled) -> Located:
        parts = urlsplit(ref.url)
        last = parts.path.rsplit("/", 1)[-1]
        name = unquote(last)
        query = f"?{_REFERENCE.sub(self._secret, parts.query)}" if parts.query else ""
        folder = f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}"
        files = tuple(
            LocatedFile(name=part, url=f"{folder}/{quote(part) if part != name else last}{query}")
            for part in split_name(name)
        )
        return Located(source=str(ref), resolved=str(ref), files=files)

    def _secret(self, found: re.Match[str]) -> str:
        secret = self._env.get(found[1], "").strip()
        if not secret:
            raise NotFound(
                f"the environment variable {found[1]}, to which an address refers, is missing or empty",
                name=found[1], hint="set it where the server starts",
            )  # fmt: skip
        return quote(secret, safe="")
