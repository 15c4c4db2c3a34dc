"""Hosts of a network with a server each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.network import Network, joined


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with joined() as found:
        yield found
