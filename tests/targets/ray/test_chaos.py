"""Parts of a cluster that fail under load, replicas that come and go, and an apply that is killed.

`make ray` runs these tests in an environment with the extra. They are skipped where Ray is not installed. A request may
fail that was in progress on the part that failed, and no other one; each failure is an error or a closed connection.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed; make ray installs it in an environment of its own")

from tests.targets.ray.cluster_stack import Load, Stack, until
from tests.targets.ray.local_cluster import LocalCluster, local_cluster

pytestmark = pytest.mark.timeout(900)
NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}
"""The head notices a silent node within 20 s; Ray's defaults take a minute."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster(**NOTICE) as started:
        yield started


@pytest.fixture
def stack(cluster: LocalCluster, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    yield made
    done = made.run("down", "--yes")
    assert done.returncode == 0, done.stderr


def pids(stack: Stack, beginning: str) -> set[int]:
    return {int(one["pid"]) for one in stack.replicas(beginning)}


def nodes(stack: Stack) -> Counter[str]:
    return Counter(str(one["node_id"]) for one in stack.replicas("m-a-"))


def more_answers(load: Load, count: int = 20) -> None:
    before = load.total
    until(lambda: load.total > before + count, "more answers")


def test_a_killed_replica_loses_only_its_own_requests(stack: Stack) -> None:
    stack.script("a", "alive", scale={"min": 2, "max": 2})
    stack.apply()
    until(lambda: len(pids(stack, "m-a-")) == 2, "two replicas")
    victim = min(pids(stack, "m-a-"))
    with Load(stack, "a") as load:
        more_answers(load)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(pids(stack, "m-a-") - {victim}) == 2, "another replica")
        more_answers(load)
    # A request in progress is repeated on the other replica, unless a part of its answer was sent.
    assert len(load.failures) <= 4, load.failures
    assert all("error" in failure for failure in load.failures), load.failures
    assert stack.who("a") == "alive"


def test_a_killed_gateway_loses_only_its_own_requests(stack: Stack) -> None:
    stack.script("a", "alive")
    stack.apply()
    until(lambda: len(pids(stack, "gateway-")) == 2, "two gateways")
    victim = min(pids(stack, "gateway-"))
    with Load(stack, "a") as load:
        more_answers(load)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(pids(stack, "gateway-") - {victim}) == 2, "another gateway")
        more_answers(load)
    assert len(load.failures) <= 4, load.failures
    # The new gateway has the snapshot: both know the key, the model and the route.
    assert {stack.who("default") for _ in range(8)} == {"alive"}


def test_replicas_come_under_load_and_go_without_it(stack: Stack) -> None:
    stack.script("a", "alive", scale={"min": 1, "max": 3, "target_ongoing": 1, "idle": "5s"})
    stack.apply()
    assert len(pids(stack, "m-a-")) == 1
    with Load(stack, "a", threads=1) as light:
        with Load(stack, "a", threads=5, text="slow 20ms 40 tokens") as heavy:
            until(lambda: len(pids(stack, "m-a-")) == 3, "three replicas", within=240)
            more_answers(heavy, 40)
        until(lambda: len(pids(stack, "m-a-")) == 1, "one replica", within=240)
        more_answers(light)
    assert (light.failures, heavy.failures) == ([], [])


def test_a_model_without_replicas_gets_one_for_a_request(stack: Stack) -> None:
    stack.script("a", "alive", scale={"min": 0, "max": 1, "idle": "3s"})
    stack.apply()
    until(lambda: not pids(stack, "m-a-"), "no replica", within=240)
    assert stack.status()["state"] == "ready"
    assert stack.who("a") == "alive"


def test_an_apply_after_a_killed_one_does_not_switch_to_what_it_left(stack: Stack) -> None:
    stack.script("a", "good")
    stack.apply()
    good = dict(stack.models["a"])
    broken = stack.folder / "broken.script.json"
    broken.write_text(json.dumps({"faults": True, "on_load": "crash exit"}))
    stack.models["a"] = {"from": str(broken), "context": {"threads": 1}}
    with Load(stack, "a", threads=2) as load:
        line, env = stack.command("apply", "--yes")
        with subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as applying:
            until(lambda: len(applications(stack)) == 2, "the declared application")
            applying.kill()
        again = stack.run("apply", "--yes", "--timeout", "4m")
        assert again.returncode not in (0, 2)
        stack.models["a"] = good
        stack.apply()
    assert load.failures == []
    assert stack.who("a") == "good"
    assert len(applications(stack)) == 1


def applications(stack: Stack) -> list[str]:
    rows = stack.status()["applications"]
    return [row["application"] for row in rows if row["application"].startswith("m-a-")]


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_lost_node_loses_only_its_own_requests(stack: Stack, how: str) -> None:
    """silent: it answers nothing and closes nothing, so requests on it wait until the head notices."""
    cluster = stack.cluster
    node = cluster.add_node()
    stack.script("a", "alive", scale={"min": 3, "max": 3})
    stack.apply()
    until(lambda: nodes(stack).total() == 3, "three replicas")
    until(lambda: len(nodes(stack)) == 2, "replicas on both nodes")
    with Load(stack, "a") as load:
        more_answers(load)
        (cluster.kill if how == "killed" else cluster.freeze)(node)
        until(lambda: nodes(stack).total() == 3 and len(nodes(stack)) == 1, "all on the other node", within=240)
        more_answers(load)
        if how == "silent":
            cluster.thaw(node)
            until(lambda: node.poll() is not None, "the end of a node that the cluster has given up")
            more_answers(load)
    assert len(load.failures) <= 8, load.failures
    assert stack.who("a") == "alive"
    cluster.kill(node)


def test_a_lost_head_ends_the_cluster_and_one_apply_brings_the_stack_back(tmp_path: Path) -> None:
    with local_cluster(cpus=0, **NOTICE, RAY_gcs_rpc_server_reconnect_timeout_s="10") as cluster:
        node = cluster.add_node(cpus=4)
        stack = Stack(cluster, tmp_path)
        stack.script("a", "alive")
        stack.apply()
        assert stack.who("a") == "alive"
        cluster.kill(cluster.nodes[0])
        gone = stack.run("status")
        assert gone.returncode == 11, gone.stdout + gone.stderr
        until(lambda: node.poll() is not None, "the end of the other node")
    with local_cluster(cpus=4) as cluster:
        stack = Stack(cluster, tmp_path, stack.models)
        assert stack.status()["state"] == "absent"
        stack.apply()
        assert stack.who("a") == "alive"
        assert stack.status()["generation"] == 1, "the revisions before are lost with the head"
