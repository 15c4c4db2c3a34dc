"""TLS of a real server: the command verifies it, a renewed certificate is used, a bad one is not."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

from tests.certificates import Authority
from tests.e2e.stack import Stack, eventually


def test_a_server_with_tls_follows_its_certificate(empty_stack: Stack) -> None:
    stack = empty_stack
    authority = Authority(stack.home / "tls")
    authority.issue("server")
    tls = {"cert": "./tls/server.pem", "key": "./tls/server.key"}
    stack.write(server={"listen": ["127.0.0.1:0"], "tls": tls})
    stack.serve()
    eventually(lambda: stack.run("wait", "-f", stack.name, "--timeout", "30s", code=None).returncode == 0, stack.log)
    eventually(lambda: bool(stack.record["listen"]), stack.log)  # it is written after the models are ready
    url = stack.url.replace("http://", "https://")

    assert "--ca-file" in stack.run("status", "--host", url, code=11).stderr
    shown = stack.json("status", "--host", url, "--ca-file", authority.cert, "--json")
    assert shown["tls"]["names"] == ["localhost", "127.0.0.1"]
    assert "DEMO" in stack.run("ps", "--host", url, "--ca-file", authority.cert, "-a").stdout.upper()
    trust = ssl.create_default_context(cafile=authority.cert)
    with urllib.request.urlopen(f"{url}/livez", context=trust, timeout=30) as response:
        assert response.status == 200

    def condition() -> dict[str, object]:
        return next(c for c in stack.status()["conditions"] if c["type"] == "CertificateValid")

    key = Path(authority.folder / "server.key")
    good = key.read_text()
    key.write_text(Path(authority.issue("other")[1]).read_text())
    eventually(lambda: condition()["status"] is False, stack.log)
    assert "is not the key of the certificate" in str(condition()["message"])
    assert stack.json("status", "--host", url, "--ca-file", authority.cert, "--json", code=None)["tls"]
    key.write_text(good)
    authority.issue("server", days=-1)
    eventually(lambda: "expired on" in str(condition()["message"]), stack.log)
    assert stack.json("status", "--host", url, "--ca-file", authority.cert, "--json", code=None)["tls"] == shown["tls"]
    authority.issue("server", days=60)
    eventually(lambda: stack.status()["tls"]["expires"] > shown["tls"]["expires"] + 86400, stack.log)
    assert condition()["status"] is True
