"""A stack on a cluster of Ray on this machine: dialects, swaps without loss, broken revisions, and full queues.

`make ray` runs these tests in an environment with the extra. They are skipped where Ray is not installed.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed; make ray installs it in an environment of its own")

from tests.targets import contract
from tests.targets.contract import KEY, chat
from tests.targets.ray.cluster_stack import Load, Stack, until
from tests.targets.ray.local_cluster import LocalCluster, local_cluster

SWAPS = int(os.environ.get("MULLAMA_RAY_SWAPS", "4"))
pytestmark = pytest.mark.timeout(900 + 60 * SWAPS)
OTHER = """
from ray import serve

@serve.deployment
class Other:
    def __call__(self, request):
        return "other"

def build(args):
    return Other.bind()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as started:
        (started.folder / "other_app.py").write_text(OTHER)
        yield started


@pytest.fixture
def stack(cluster: LocalCluster, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    yield made
    done = made.run("down", "--yes")
    assert done.returncode == 0, done.stderr


def test_a_stack_answers_in_every_dialect_with_keys_and_can_be_planned_again(stack: Stack) -> None:
    stack.script("a", "I am one")
    stack.models["tiny"] = {"from": "builtin:tiny", "context": {"size": 512, "threads": 1}}
    assert stack.run("diff").returncode == 2
    stack.apply()
    again = stack.run("diff")
    assert (again.returncode, again.stdout.strip()) == (0, "Nothing to do.")
    for case in contract.CASES:
        case(stack.ask)
    status, text = stack.ask("/api/generate", {"model": "tiny", "prompt": "Once", "stream": False, "raw": True})
    assert status == 200, text
    assert stack.ask("/api/pull", {"model": "x", "stream": False})[0] in (400, 403)
    assert stack.ask("/metrics")[0] == 200
    assert stack.status()["state"] == "ready"
    assert "revision 1 is applied" in stack.run("logs", "--model", "tiny").stdout


def test_swaps_and_live_changes_under_load_lose_no_request(stack: Stack) -> None:
    stack.script("a", "revision 0")
    stack.apply()
    with Load(stack, "a") as load:
        for number in range(1, SWAPS + 1):
            stack.script("a", f"revision {number}", description=f"swap {number}")
            stack.apply()
            assert stack.who("a") == f"revision {number}"
            print(f"swap {number}: {load.total} answers, {len(load.failures)} failures", flush=True)  # noqa: T201 - progress
        stack.models["a"]["system"] = "A live change."
        stack.apply()
    assert load.failures == []
    assert load.total > 20 * SWAPS
    assert set(load.answers) <= {"streamed", *(f"revision {number}" for number in range(SWAPS + 1))}
    undone = stack.run("undo", "--yes", "--to", str(SWAPS))
    assert undone.returncode == 0, undone.stderr
    assert stack.who("a") == f"revision {SWAPS - 1}"


def test_requests_that_wait_for_a_place_at_a_swap_are_answered(stack: Stack) -> None:
    """Serve leaves them in the queue of the application that it removes."""
    stack.script("a", "old", limits={"parallel": 1, "queue": 64})
    stack.apply()
    with ThreadPoolExecutor(8) as pool:
        bodies = [chat("a", f"slow 100ms {80 + number} tokens") for number in range(8)]
        asked = [pool.submit(stack.ask, "/v1/chat/completions", body, within=300) for body in bodies]
        stack.script("a", "new", limits={"parallel": 1, "queue": 64})
        stack.apply()
        waited = sum(not one.done() for one in asked)
        found = [one.result() for one in asked]
    assert [status for status, _ in found] == [200] * 8, found
    assert waited > 1, "the answers were complete before the swap"
    assert stack.who("a") == "new"


def test_live_settings_that_a_replica_does_not_take_are_reported_and_restored(stack: Stack) -> None:
    stack.script("a", "good")
    stack.apply()
    stack.models["a"]["template"] = {"text": "{{ messages"}
    failed = stack.run("apply", "--yes", "--timeout", "3m")
    assert failed.returncode == 1
    assert "the new settings are not used" in failed.stderr
    assert stack.who("a") == "good"
    assert stack.status()["generation"] == 1


@pytest.mark.parametrize("kind", ["load", "probe"])
def test_a_broken_revision_never_takes_traffic(stack: Stack, kind: str) -> None:
    stack.script("a", "good")
    stack.apply()
    with Load(stack, "a", threads=2) as load:
        if kind == "load":
            broken = stack.folder / "broken.script.json"
            broken.write_text(json.dumps({"faults": True, "on_load": "crash exit"}))
            stack.models["a"] = {"from": str(broken), "context": {"threads": 1}}
        else:
            stack.script("a", "bad", probe={"prompt": "who", "expect": "^good$", "timeout": "20s"})
        failed = stack.run("apply", "--yes", "--timeout", "4m")
    assert failed.returncode not in (0, 2)
    assert "m-a-" in failed.stderr
    assert load.failures == []
    assert set(load.answers) <= {"good", "streamed"}
    assert stack.who("a") == "good"
    found = stack.status()
    assert (found["state"], found["generation"]) == ("ready", 1)


def test_applications_of_others_are_kept_and_their_names_are_refused(stack: Stack) -> None:
    from mullama.targets.ray.cluster import read_cluster
    from mullama.targets.ray.dashboard import Dashboard

    dashboard = Dashboard(stack.cluster.dashboard)
    stack.script("a", "mine")
    stack.apply()
    cluster = read_cluster(dashboard.details())
    other = {"name": "other", "import_path": "other_app:build", "route_prefix": "/other", "args": {"x": 1}}
    dashboard.put({**cluster.settings, "applications": [*cluster.configs.values(), other]})
    until(lambda: read_cluster(dashboard.details()).states.get("other") == "RUNNING", "the other application")
    stack.script("a", "mine again")
    stack.apply()
    assert stack.ask("/other")[1] == "other"
    assert stack.who("a") == "mine again"
    assert stack.status()["others"] == ["other"]
    assert stack.run("down", "--yes").returncode == 0
    now = read_cluster(dashboard.details())
    assert {name: now.configs[name] for name in now.configs} == {"other": other}
    dashboard.put({**now.settings, "applications": []})
    until(lambda: not read_cluster(dashboard.details()).states, "the end of the other application")


def test_a_client_that_leaves_frees_its_place_and_a_full_queue_is_429(stack: Stack) -> None:
    stack.script("a", "done", limits={"parallel": 1, "queue": 2})
    stack.apply()
    link = http.client.HTTPConnection("127.0.0.1", stack.cluster.http, timeout=60)
    slow = chat("a", "slow 100ms 3000 tokens", stream=True)
    link.request("POST", "/v1/chat/completions", json.dumps(slow), {"authorization": f"Bearer {KEY}"})
    answer = link.getresponse()
    assert answer.readline()
    begun = time.monotonic()
    answer.close()
    link.close()
    assert stack.who("a") == "done"
    assert time.monotonic() - begun < 60, "the answer would take 300 s"
    with ThreadPoolExecutor(16) as pool:
        bodies = [chat("a", f"slow 100ms {30 + number} tokens") for number in range(16)]
        found = list(pool.map(lambda body: stack.ask("/v1/chat/completions", body), bodies))
    statuses = Counter(status for status, _ in found)
    assert set(statuses) == {200, 429}
    refused = next(text for status, text in found if status == 429)
    assert "queue" in json.loads(refused)["error"]["message"]
