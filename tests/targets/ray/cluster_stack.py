"""A stack on a cluster of this machine: its command line, its requests, its replicas, and load on it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mullama.targets.ray.apply import replicas
from mullama.targets.ray.dashboard import Dashboard
from tests.targets import contract
from tests.targets.contract import KEY, chat
from tests.targets.ray.local_cluster import LocalCluster


class Stack:
    """A manifest with scripted models, and the command line on the cluster."""

    def __init__(self, cluster: LocalCluster, folder: Path, models: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.cluster, self.folder = cluster, folder
        self.models: dict[str, dict[str, Any]] = dict(models)

    def script(self, name: str, say: str, **model: Any) -> None:
        """Declare a model that answers `who` with a text."""
        path = self.folder / f"{name}-{abs(hash(say))}.script.json"
        rules = [{"when": "^who", "say": say}]
        path.write_text(json.dumps({"name": name, "rules": rules, "faults": True}))
        self.models[name] = {"from": str(path), "context": {"threads": 1}, **model}

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line, env = self.command(command, *arguments)
        return subprocess.run(line, env=env, capture_output=True, text=True, timeout=600, check=False)

    def command(self, command: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Write the manifest; return the command line and its environment."""
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
        return [*line, *arguments], env

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

    def replicas(self, beginning: str) -> list[dict[str, Any]]:
        """Return the replicas that run of the applications whose names begin so, as Serve reports them."""
        details = Dashboard(self.cluster.dashboard).details()
        names = [name for name in details["applications"] if name.startswith(beginning)]
        return [dict(one) for _, one in replicas(details, names) if one["state"] == "RUNNING"]

    def who(self, model: str, **more: Any) -> str:
        status, text = self.ask("/v1/chat/completions", chat(model, "who are you", **more))
        assert status == 200, text
        return str(json.loads(text)["choices"][0]["message"]["content"])


def until(done: Callable[[], bool], what: str, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline, f"{what}: not in {within} s"
        time.sleep(0.2)


class Load:
    """Asks a model from several threads until the end of a block, and counts the answers."""

    def __init__(self, stack: Stack, model: str, threads: int = 4, text: str = "who are you") -> None:
        self.stack, self.model, self.text = stack, model, text
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            streams = count % 2 == 0
            body = chat(self.model, f"{self.text}, {number}", stream=streams)
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
