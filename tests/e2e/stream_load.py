"""Clients that stream from a server while a test changes it."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx


class Refusal(RuntimeError):
    """The server refused a request before its answer began."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.status_code} {answer.read()!r}")
        self.status, self.headers = answer.status_code, answer.headers


def stream(client: httpx.Client, url: str, model: str, key: str = "") -> str:
    """Return one streamed answer; raise for a refused, failed or incomplete one."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "go"}],
        "stream": True,
        "max_tokens": 24,
        "temperature": 0,
    }
    headers = {"authorization": f"Bearer {key}"} if key else {}
    text, finished, done = "", 0, False
    with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        if answer.status_code != 200:
            raise Refusal(answer)
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                done = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                finished += choice["finish_reason"] is not None
    if not done or finished != 1:
        raise RuntimeError(f"cut after {text!r}")
    return text


class Load:
    """Streams answers with several clients until `stop`; collects texts and failures."""

    def __init__(self, url: str, model: str, clients: int) -> None:
        self._url, self._model = url, model
        self._stop = threading.Event()
        self.texts: list[str] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                try:
                    self.texts.append(stream(client, self._url, self._model))
                except Exception as error:  # noqa: BLE001 - any error is a lost request
                    self.failures.append(f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def reload(url: str, key: str = "") -> dict[str, Any]:
    """Make the server read its manifest now; return its answer. key: of an administrator, if the server has keys."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    tree: dict[str, Any] = httpx.post(f"{url}/api/v1/reload", json={}, headers=headers, timeout=60).json()
    return tree
