"""Swaps and faults on three hosts under load, by a seed: the short form, and the long one of `make soak`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.hosts.chaos import HOSTS, Account, actions, fleet_of_three, run
from tests.hosts.network import Network

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("MULLAMA_SEED", "1"))
CLIENTS = 8


def judge(account: Account, faults: int) -> None:
    report = "\n".join(account.actions)
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
        account = await run(fleet, plan, CLIENTS, least=10_000)
        account.actions.append(f"{account.requests} requests, {len(account.at_lost_hosts)} failed at lost hosts")
        sys.stderr.write("\n".join(account.actions) + "\n")
        judge(account, faults=8)
        assert account.requests >= 10_000


def test_a_plan_follows_from_its_seed() -> None:
    plan = actions(7, swaps=20, faults=9)
    assert plan == actions(7, swaps=20, faults=9) != actions(8, swaps=20, faults=9)
    assert [kind for kind, _ in plan].count("swap") == 20
    assert {host for kind, host in plan if kind != "swap"} <= set(HOSTS)
