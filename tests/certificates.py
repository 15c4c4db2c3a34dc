"""Certificates for tests, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.name = folder, name
        folder.mkdir(exist_ok=True)
        self.cert, self._key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.cert, "-subj", f"/CN={name}", "-days", "30")

    def issue(self, name: str, *, days: int = 30, hosts: str = "DNS:localhost,IP:127.0.0.1") -> tuple[str, str]:
        """Write a certificate and its key; return their paths. days: a negative number makes an expired one."""
        cert, key, request, extensions = (str(self.folder / f"{name}.{end}") for end in ("pem", "key", "csr", "ext"))
        Path(extensions).write_text(f"subjectAltName={hosts}\n")
        _openssl("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-out", cert),
            *("-days", str(days), "-extfile", extensions),
        )
        return cert, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
