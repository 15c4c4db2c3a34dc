"""A stub hub with one repository, and sources that pull from it. No test reads the tokens or stores of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.source_fixture import DATA, SourceFixture, source_fixture
from tests.stub_hub import StubHub


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with StubHub() as stub:
        stub.repo("org/m", {"m-Q8_0.gguf": DATA, "README.md": b"# m"})
        yield stub


@pytest.fixture
def sources(tmp_path: Path, hub: StubHub) -> SourceFixture:
    return source_fixture(tmp_path, hub)
