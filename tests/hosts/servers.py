"""Servers of mullama on the hosts of a network, and clients that count what they got."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.e2e.stack import COMMAND, Stack, Started
from tests.hosts.network import NetworkHost

PORT = 11434
SECRET = "sk-of-all-hosts"
HEADERS = {"authorization": f"Bearer {SECRET}"}
KEY = {"from_env": "HOSTS_KEY"}
"""The one key of all hosts: a server that other machines reach has one."""
WAIT_SECONDS = 200.0
"""The longest wait for one event of a run, which ends with `TimeoutError`: the long run has no other time limit."""


@dataclass
class HostStack(Stack):
    """A server on one host. Commands run on this machine, over the control socket in its home."""

    host: NetworkHost | None = None

    def __post_init__(self) -> None:
        self.variables["HOSTS_KEY"] = SECRET

    def start(self, *arguments: str) -> Started:
        assert self.host is not None
        with (self.home / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.host.prefix, *COMMAND, *arguments], env=self.env, cwd=self.home, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.servers.append(process)
        return process

    @property
    def url(self) -> str:
        assert self.host is not None
        return f"http://{self.host.address}:{PORT}"

    def write(self, models: dict[str, Any] | None = None, **blocks: Any) -> None:
        assert self.host is not None
        auth = {"keys": {"hosts": {"secret": KEY, "roles": ["admin"]}}}
        super().write(models, server={"listen": [f"{self.host.address}:{PORT}"]}, auth=auth, **blocks)

    def close(self) -> None:
        """End every process of the host; no test looks at an orderly end."""
        self.kill()

    def kill(self) -> None:
        """End all processes of the host at once, as a power cut does."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
                process.kill()
        for server in self.servers:
            server.wait(60)
        psutil.wait_procs(self.processes(), 60)


@dataclass
class Outcome:
    """The end of one request."""

    text: str = ""
    model: str = ""
    """The header `mullama-model`."""
    status: int = 0
    error: str = ""
    """The error of the answer or of its stream; "" for a complete answer."""
    began: float = 0.0
    ended: float = 0.0

    @property
    def retryable(self) -> bool:
        """True for an error after which the same request may succeed."""
        return self.status in (429, 503, 504) or any(
            kind in self.error for kind in ("unavailable", "overloaded", "timeout", "server_error")
        )


async def ask(
    client: httpx.AsyncClient, url: str, model: str, text: str, begins: Callable[[Outcome], object] = lambda begun: None
) -> Outcome:
    """Stream one answer. begins: is called once, with the outcome so far, after its first text."""
    loop = asyncio.get_running_loop()
    found = Outcome(began=loop.time())
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    done = False
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=HEADERS) as answer:
            found.status, found.model = answer.status_code, answer.headers.get("mullama-model", "")
            if answer.status_code != 200:
                found.error = (await answer.aread()).decode()
                return found
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                    if "error" in event:
                        found.error = json.dumps(event["error"])
                    before = found.text
                    for choice in event.get("choices", ()):
                        found.text += choice["delta"].get("content") or ""
                    if found.text and not before:
                        begins(found)
    except httpx.HTTPError as error:
        found.error = f"connection: {type(error).__name__} {error}"
    finally:
        found.ended = loop.time()
    if not done and not found.error:
        found.error = "connection: the stream ended early"
    return found


@dataclass
class Clients:
    """Clients that ask one after the other until `stop`. ask_next: makes the text of request number N of client C."""

    url: str
    model: str
    count: int
    text: Callable[[int, int], str] = lambda client, number: f"conversation {client} {number} 4 tokens"
    found: list[Outcome] = field(default_factory=list)
    running: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self.count)]

    async def _client(self, client: int) -> None:
        number = 0
        async with httpx.AsyncClient(timeout=60) as http:
            while not self._stop.is_set():
                self.running += 1
                outcome = await ask(http, self.url, self.model, self.text(client, number))
                self.running -= 1
                async with self._ended:
                    self.found.append(outcome)
                    self._ended.notify_all()
                number += 1

    async def until(self, count: int) -> None:
        """Wait until so many requests have ended."""
        async with asyncio.timeout(WAIT_SECONDS), self._ended:
            await self._ended.wait_for(lambda: len(self.found) >= count)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.found if outcome.error]

    @property
    def models(self) -> Counter[str]:
        return Counter(outcome.model for outcome in self.found if not outcome.error)


def script(home: Path, name: str = "chat") -> str:
    """Write a script into a home; return its `from`."""
    (home / f"{name}.script.json").write_text(json.dumps({"name": name}))
    return f"./{name}.script.json"
