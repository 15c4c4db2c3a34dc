"""Where a server listens, as `--host` says it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from mullama.errors import Invalid

DEFAULT_PORT = 11434


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where a server listens: a unix socket's path, or a host and port, with TLS or without."""

    path: str | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """`http://host:port`, `https://host`, `host:port`, `host` or `unix:/path`."""
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
                hint="http://HOST:PORT, https://HOST or unix:PATH, with no path behind",
            )
        tls = parts.scheme == "https"
        return cls(host=parts.hostname, port=port or (443 if tls else DEFAULT_PORT), tls=tls)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"
