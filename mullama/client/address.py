"""Addresses of servers, as --host takes them."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mullama.errors import Invalid

DEFAULT_PORT = 11434


class ServerAddress(NamedTuple):
    """Address of a server: a Unix socket, or a host and port with or without TLS."""

    path: str | None = None
    """Path of the Unix socket; None for TCP."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: bool = False

    @property
    def node(self) -> Any:  # the declared types of `socket` lack bytes
        """The host for the resolver. Bytes spare the codec of international names, a tenth of a short command."""
        return self.host.encode("ascii") if self.host.isascii() else self.host

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Return the address of `http://host:port`, `https://host`, `host:port`, `host` or `unix:/path`.

        Raises `Invalid` for other text.
        """
        if text.startswith("unix:"):
            return cls(path=text.removeprefix("unix:").removeprefix("//"))
        parts = urlsplit(text if "://" in text else f"http://{text}")
        try:
            port = parts.port
        except ValueError as error:
            raise Invalid(f"{text!r} has no valid port", hint="for example 127.0.0.1:11434") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise Invalid(
                f"{text!r} is not the address of a server",
                hint="use http://HOST:PORT, https://HOST or unix:PATH, without a URL path",
            )
        tls = parts.scheme == "https"
        return cls(host=parts.hostname, port=port or (443 if tls else DEFAULT_PORT), tls=tls)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"
