"""The client of a peer names the parts of its declaration that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.errors import PeerLost
from mullama.manifest.spec import Peer
from mullama.runtime.peers.client import PeerClient


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "no such file or directory"), ("x", "holds no certificate in PEM form")]
)
def test_certificate_authorities_that_cannot_be_read_are_named(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PeerLost) as caught:
        PeerClient("b", Peer(url="https://127.0.0.1:1", ca_file=str(path)), None)
    assert caught.value.message == f"the certificate authorities of peer b cannot be read from {path}: {reason}"
    assert "peers.b.ca_file" in caught.value.hint
    PeerClient("b", Peer(url="http://127.0.0.1:1", ca_file=str(path)), None)  # which needs none
