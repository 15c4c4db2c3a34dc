"""A private home with a manifest, and the real commands and servers of mullama run in it."""

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

from tests.processes import forked

# Tests that run in another environment name the interpreter of mullama's.
COMMAND = (os.environ.get("MULLAMA_PYTHON", sys.executable), "-m", "mullama")
SECONDS = 60.0
TINY = Path(__file__).parents[2] / "mullama/sources/builtin_models/tiny.gguf"


# The certificates of the tests, which are read quickly, and the measurement of coverage are for servers too.
_KEPT = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


def tiny_variant(number: int) -> bytes:
    """The built-in model with another last byte: it runs and has a digest of its own."""
    data = TINY.read_bytes()
    return data[:-1] + bytes([data[-1] ^ number])


Started = subprocess.Popen[bytes] | forked.ForkedProcess


@dataclass
class Stack:
    """One manifest and the servers that were started for it; `close` ends all of them."""

    home: Path
    name: str = "mullama.yaml"
    variables: dict[str, str] = field(default_factory=dict)
    """Further variables of the environment."""
    forks: bool = forked.AVAILABLE
    """False starts each process in an interpreter of its own, as measurements need it."""
    servers: list[Started] = field(default_factory=list)

    @property
    def manifest(self) -> Path:
        return self.home / self.name

    @property
    def env(self) -> dict[str, str]:
        keep = {key: os.environ[key] for key in _KEPT if key in os.environ}
        folders = {f"XDG_{kind}_HOME": str(self.home / kind.lower()) for kind in ("STATE", "DATA", "CACHE", "CONFIG")}
        # No test reaches a network: this proxy refuses every connection, and loopback needs none.
        keep |= {"HTTPS_PROXY": "http://127.0.0.1:1"}
        return {**keep, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home), **folders, **self.variables}

    def write(self, models: dict[str, Any] | None = None, **blocks: Any) -> None:
        """Save the manifest like an editor that writes another file and renames it."""
        tree = {
            "mullama": "v1",
            "server": {"listen": ["127.0.0.1:0"]},
            "models": {"demo": {"from": "builtin:tiny"}} if models is None else models,
            **blocks,
        }
        self.write_text(yaml.safe_dump(tree, sort_keys=False))

    def write_text(self, text: str) -> None:
        replace_file(self.manifest, text)

    def run(self, *arguments: str, code: int | None = 0, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code; None allows every code."""
        if self.forks:
            done = forked.run_forked(arguments, self.env, self.home, input, SECONDS)
        else:
            done = subprocess.run(
                [*COMMAND, *arguments], env=self.env, cwd=self.home, capture_output=True, text=True,
                timeout=SECONDS, check=False, input=input,
            )  # fmt: skip
        if code is not None:
            report = f"{arguments} exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
            assert done.returncode == code, report
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

    def start(self, *arguments: str) -> Started:
        """Start a command without a terminal, with its output in `serve.log`; `close` ends it."""
        path = self.home / "serve.log"
        process: Started
        if self.forks:
            process = forked.fork_command(arguments, self.env, self.home, (os.devnull, str(path), str(path)))
        else:
            with path.open("ab") as log:
                process = subprocess.Popen(
                    [*COMMAND, *arguments], env=self.env, cwd=self.home, stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
        self.servers.append(process)
        return process

    def serve(self) -> Started:
        """Start a server in the foreground; `close` ends it."""
        return self.start("serve", "-f", self.name)

    @property
    def record(self) -> dict[str, Any]:
        """The server.json of the only instance that runs; a stopped server leaves a blank one."""
        (text,) = filter(str.strip, (path.read_text() for path in self.home.glob("state/mullama/*/server.json")))
        tree: dict[str, Any] = json.loads(text)
        return tree

    @property
    def url(self) -> str:
        address = next(a for a in self.record["listen"] if not a.startswith("unix:"))
        return f"http://{address}"

    def ready(self) -> str:
        """Wait until every model that loads at start is loaded; return the URL of the server."""

        def is_ready() -> bool:
            with contextlib.suppress(httpx.HTTPError, ValueError, StopIteration, FileNotFoundError):
                return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
            return False

        eventually(is_ready, self.log)
        return self.url

    def log(self) -> str:
        logs = [*self.home.glob("state/mullama/*/server.log"), *self.home.glob("serve.log")]
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in logs)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of this home: servers and workers."""
        found = []
        for process in psutil.process_iter(["cwd", "status"]):  # a forked process keeps the environment of its parent
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and process.info["cwd"] == os.path.realpath(self.home):
                found.append(process)
        pids = {p.pid for p in found}
        with contextlib.suppress(psutil.Error):
            found += [c for p in list(found) for c in p.children(recursive=True) if c.pid not in pids]
        return found

    def close(self) -> None:
        """End every process of this home."""
        with contextlib.suppress(Exception):
            self.down()
        for process in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.send_signal(signal.SIGKILL)
            process.wait(SECONDS)
        for left in self.processes():
            with contextlib.suppress(psutil.Error):
                left.kill()
                left.wait(SECONDS)


def eventually(holds: Callable[[], bool], explain: Callable[[], str] = lambda: "", within: float = SECONDS) -> None:
    """Wait until a condition holds that depends on another process."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s\n{explain()}")
        time.sleep(0.02)


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old text or the new one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@contextlib.contextmanager
def stack_in(home: Path, *, forks: bool = forked.AVAILABLE) -> Iterator[Stack]:
    """A stack in this folder, closed at the end."""
    stack = Stack(home, forks=forks)
    try:
        yield stack
    finally:
        stack.close()


@contextlib.contextmanager
def serving(home: Path, models: dict[str, Any], **blocks: Any) -> Iterator[Stack]:
    """A stack in this folder whose server has loaded these models."""
    with stack_in(home) as stack:
        stack.write(models, **blocks)
        stack.serve()
        stack.ready()
        yield stack
