"""A web on loopback for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.search.stub_web import StubWeb, stub_web


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubWeb]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with stub_web() as stub:
        yield stub
