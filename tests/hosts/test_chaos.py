"""Swaps and faults on three hosts under load, by a seed: the short form, and the long one of `make soak`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.hosts.chaos import HOSTS, Account, Loss, actions, fleet_of_three, run
from tests.hosts.network import Network
from tests.hosts.servers import Outcome

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("MULLAMA_SEED", "1"))
CLIENTS = 12


def judge(account: Account, faults: int) -> None:
    report = "\n".join((*account.actions, account.summary))
    assert not account.lost, f"{report}\n{account.lost[:3]}"
    assert all(outcome.retryable for outcome in account.at_lost_hosts), f"{report}\n{account.at_lost_hosts[:3]}"
    # A client has one request at a time, so each fault ends at most one of each.
    assert len(account.at_lost_hosts) <= CLIENTS * faults, report


@pytest.mark.timeout(240)
async def test_swaps_and_faults_lose_no_request_but_those_at_the_lost_host(network: Network, tmp_path: Path) -> None:
    plan = actions(SEED, swaps=3, faults=3)
    with fleet_of_three(network, tmp_path) as fleet:
        judge(await run(fleet, plan, CLIENTS, least=200), faults=2)


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_ten_thousand_requests_over_fifty_swaps(network: Network, tmp_path: Path) -> None:
    plan = actions(SEED, swaps=50, faults=12)
    with fleet_of_three(network, tmp_path) as fleet:
        account = await run(fleet, plan, CLIENTS, 10_000, lambda line: sys.stderr.write(f"{line}\n"))
        sys.stderr.write(f"seed {SEED}, {CLIENTS} clients, load {os.getloadavg()[2]:.1f}: {account.summary}\n")
        judge(account, faults=8)
        assert account.requests >= 10_000


def test_a_plan_follows_from_its_seed() -> None:
    plan = actions(7, swaps=20, faults=9)
    assert plan == actions(7, swaps=20, faults=9) != actions(8, swaps=20, faults=9)
    assert [kind for kind, _ in plan].count("swap") == 20
    assert {host for kind, host in plan if kind != "swap"} <= set(HOSTS)


@pytest.mark.parametrize(
    ("outcome", "allowed"),
    [
        (Outcome(model="chat@b", status=200, began=9.0), True),
        (Outcome(model="chat@b", status=200, began=10.1), False),  # it began at a host that was known as lost
        (Outcome(model="chat@a", status=200, began=9.0), False),  # at another host
        (Outcome(model="", status=503, began=9.0), False),  # before its first byte: another host can answer
    ],
)
def test_only_a_request_in_flight_at_the_lost_host_may_fail(outcome: Outcome, allowed: bool) -> None:
    assert Loss("b", at=10.0).ended(outcome) is allowed
