"""A stack on a cluster of Ray on this machine: dialects, swaps without loss, broken revisions, and killed parts.

`make ray` runs these tests in an environment with the extra. They are skipped where Ray is not installed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed; make ray installs it in an environment of its own")

from tests.targets import contract
from tests.targets.contract import KEY, chat
from tests.targets.ray.local_cluster import LocalCluster, local_cluster

pytestmark = pytest.mark.timeout(900)
SWAPS = int(os.environ.get("MULLAMA_RAY_SWAPS", "4"))
OTHER = """
from ray import serve

@serve.deployment
class Other:
    def __call__(self, request):
        return "other"

def build(args):
    return Other.bind()
"""


class Stack:
    """A manifest with scripted models, and the command line on the cluster."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.models: dict[str, dict[str, Any]] = {}

    def script(self, name: str, say: str, **model: Any) -> None:
        """Declare a model that answers `who` with a text."""
        path = self.folder / f"{name}-{abs(hash(say))}.script.json"
        rules = [{"when": "^who", "say": say}]
        path.write_text(json.dumps({"name": name, "rules": rules, "faults": True}))
        self.models[name] = {"from": str(path), "context": {"threads": 1}, **model}

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        manifest = {
            "mullama": "v1",
            "metadata": {"name": "test"},
            "server": {"listen": [f"127.0.0.1:{self.cluster.http}"]},
            "auth": contract.AUTH,
            "models": self.models,
            "routes": {"default": next(iter(self.models), "none")} if self.models else {},
        }
        (self.folder / "m.yaml").write_text(json.dumps(manifest))
        env = {**self.cluster.env, "TEAM_KEY": KEY, "RAY_DASHBOARD_ADDRESS": self.cluster.dashboard}
        line = [sys.executable, "-m", "mullama", command, "--file", str(self.folder / "m.yaml"), "--on", "ray"]
        return subprocess.run([*line, *arguments], env=env, capture_output=True, text=True, timeout=600, check=False)

    def apply(self) -> None:
        done = self.run("apply", "--yes", "--timeout", "3m")
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json").stdout))

    def ask(self, path: str, body: Any = None, *, key: str = KEY, within: float = 120) -> tuple[int, str]:
        """Return the status and the body of one answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.cluster.http, timeout=within)
        try:
            data = None if body is None else json.dumps(body)
            link.request("GET" if body is None else "POST", path, data, {"authorization": f"Bearer {key}"})
            answer = link.getresponse()
            return answer.status, answer.read().decode()
        finally:
            link.close()

    def who(self, model: str, **more: Any) -> str:
        status, text = self.ask("/v1/chat/completions", chat(model, "who are you", **more))
        assert status == 200, text
        return str(json.loads(text)["choices"][0]["message"]["content"])


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


def until(done: Callable[[], bool], what: str, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline, f"{what}: not in {within} s"
        time.sleep(0.2)


class Load:
    """Asks a model from several threads until the end of a block, and counts the answers."""

    def __init__(self, stack: Stack, model: str, threads: int = 4) -> None:
        self.stack, self.model = stack, model
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            streams = count % 2 == 0
            body = chat(self.model, f"who are you, {number}", stream=streams)
            try:
                status, text = self.stack.ask("/v1/chat/completions", body)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            if status != 200 or (streams and "[DONE]" not in text) or '"error"' in text:
                self.failures.append(f"{status} {text[-300:]}")
            else:
                self.answers["streamed" if streams else json.loads(text)["choices"][0]["message"]["content"]] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        return self.answers.total()


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
        stack.models["a"]["system"] = "A live change."
        stack.apply()
    assert load.failures == []
    assert load.total > 20 * SWAPS
    assert set(load.answers) <= {"streamed", *(f"revision {number}" for number in range(SWAPS + 1))}
    undone = stack.run("undo", "--yes", "--to", str(SWAPS))
    assert undone.returncode == 0, undone.stderr
    assert stack.who("a") == f"revision {SWAPS - 1}"


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


def test_a_killed_replica_loses_only_its_own_requests(stack: Stack) -> None:
    from mullama.targets.ray.apply import replicas
    from mullama.targets.ray.dashboard import Dashboard

    stack.script("a", "alive", scale={"min": 2, "max": 2})
    stack.apply()
    dashboard = Dashboard(stack.cluster.dashboard)

    def pids() -> list[int]:
        details = dashboard.details()
        names = [name for name in details["applications"] if name.startswith("m-a-")]
        return [int(one["pid"]) for _, one in replicas(details, names) if one["state"] == "RUNNING"]

    until(lambda: len(pids()) == 2, "two replicas")
    victim = pids()[0]
    with Load(stack, "a") as load:
        until(lambda: load.total > 20, "some answers")
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(pids()) == 2 and victim not in pids(), "another replica")
        before = load.total
        until(lambda: load.total > before + 20, "more answers")
    # A request in progress is repeated on the other replica, unless a part of its answer was sent.
    assert len(load.failures) <= 4, load.failures
    assert all("error" in failure for failure in load.failures), load.failures
    assert stack.who("a") == "alive"


def test_a_killed_node_loses_only_its_own_requests(stack: Stack) -> None:
    from mullama.targets.ray.apply import replicas
    from mullama.targets.ray.dashboard import Dashboard

    node = stack.cluster.add_node()
    dashboard = Dashboard(stack.cluster.dashboard)
    stack.script("a", "alive", scale={"min": 3, "max": 3})
    stack.apply()

    def nodes() -> Counter[str]:
        details = dashboard.details()
        names = [name for name in details["applications"] if name.startswith("m-a-")]
        return Counter(str(one["node_id"]) for _, one in replicas(details, names) if one["state"] == "RUNNING")

    until(lambda: nodes().total() == 3, "three replicas")
    with Load(stack, "a") as load:
        until(lambda: load.total > 20, "some answers")
        stack.cluster.kill(node)
        until(lambda: nodes().total() == 3 and len(nodes()) == 1, "all replicas on the other node", within=240)
        before = load.total
        until(lambda: load.total > before + 20, "more answers")
    assert len(load.failures) <= 8, load.failures
    assert stack.who("a") == "alive"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, 0)
