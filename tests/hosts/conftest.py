"""Hosts of a network with a server each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.fleet import NetworkFleet, fleet_of_hosts
from tests.hosts.network import Network, joined


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with joined() as found:
        yield found


@pytest.fixture(scope="module")
def fleet(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkFleet]:
    with fleet_of_hosts(network, tmp_path_factory.mktemp("fleet")) as found:
        yield found
