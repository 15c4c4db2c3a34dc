"""A private home, a manifest in it, and the real commands: what a person has at a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

COMMAND = (sys.executable, "-m", "mullama")
SECONDS = 60.0


@dataclass
class Stack:
    """One manifest and the servers that were started for it."""

    home: Path
    name: str = "mullama.yaml"
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def manifest(self) -> Path:
        return self.home / self.name

    @property
    def env(self) -> dict[str, str]:
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        folders = {f"XDG_{kind}_HOME": str(self.home / kind.lower()) for kind in ("STATE", "DATA", "CACHE", "CONFIG")}
        return {**keep, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home), **folders}

    def write(self, models: dict[str, Any] | None = None, **blocks: Any) -> None:
        """Save the manifest as an editor does that writes beside and renames."""
        tree = {
            "mullama": "v1",
            "server": {"listen": ["127.0.0.1:0"]},
            "models": {"demo": {"from": "builtin:tiny"}} if models is None else models,
            **blocks,
        }
        self.write_text(yaml.safe_dump(tree, sort_keys=False))

    def write_text(self, text: str) -> None:
        beside = self.manifest.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.manifest)

    def run(self, *arguments: str, code: int | None = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        """A command to its end; `code` is what it must exit with, None for anything."""
        source = {} if "input" in more else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(
            [*COMMAND, *arguments], env=self.env, cwd=self.home, capture_output=True, text=True,
            timeout=SECONDS, check=False, **source, **more,
        )  # fmt: skip
        if code is not None:
            told = f"{arguments} exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
            assert done.returncode == code, told
        return done

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*arguments, code=code).stdout)

    def apply(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.run("apply", "-f", self.name, "--yes", *arguments, code=code)

    def down(self) -> None:
        self.run("down", "-f", self.name, "--yes", code=None)

    def status(self) -> dict[str, Any]:
        tree: dict[str, Any] = self.json("status", "-f", self.name, "--json", code=None)
        return tree

    def serve(self) -> subprocess.Popen[bytes]:
        """The server in the foreground of nobody's terminal; ended by `close`."""
        log = (self.home / "serve.log").open("ab")
        with log:
            process = subprocess.Popen(
                [*COMMAND, "serve", "-f", self.name], env=self.env, cwd=self.home, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.servers.append(process)
        return process

    @property
    def record(self) -> dict[str, Any]:
        """server.json of the one instance."""
        (path,) = self.home.glob("state/mullama/*/server.json")
        tree: dict[str, Any] = json.loads(path.read_text())
        return tree

    @property
    def url(self) -> str:
        address = next(a for a in self.record["listen"] if not a.startswith("unix:"))
        return f"http://{address}"

    def ready(self) -> str:
        """Wait until every model that loads at start answers; the server's address."""

        def is_ready() -> bool:
            with contextlib.suppress(httpx.HTTPError, ValueError, StopIteration, FileNotFoundError):
                return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
            return False

        eventually(is_ready, lambda: self.log())
        return self.url

    def log(self) -> str:
        logs = [*self.home.glob("state/mullama/*/server.log"), *self.home.glob("serve.log")]
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in logs)

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this home: servers and workers."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "status"]):
            environment = process.info["environ"] or {}
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and environment.get("HOME") == str(self.home):
                found.append(process)
        pids = {p.pid for p in found}
        with contextlib.suppress(psutil.Error):
            found += [c for p in list(found) for c in p.children(recursive=True) if c.pid not in pids]
        return found

    def close(self) -> None:
        """End everything that was started, whatever a test left behind."""
        with contextlib.suppress(Exception):
            self.down()
        for process in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)
        for left in self.processes():
            with contextlib.suppress(psutil.Error):
                left.kill()
                left.wait(SECONDS)


def eventually(holds: Callable[[], bool], explain: Callable[[], str] = lambda: "", within: float = SECONDS) -> None:
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s\n{explain()}")
        time.sleep(0.02)


@contextlib.contextmanager
def stack_in(home: Path) -> Iterator[Stack]:
    stack = Stack(home)
    try:
        yield stack
    finally:
        stack.close()
