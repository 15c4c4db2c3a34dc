"""Clients that stream from a server while a test changes it."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx


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
                    self.texts.append(self._stream(client))
                except Exception as error:  # noqa: BLE001 - any error is a lost request
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _stream(self, client: httpx.Client) -> str:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "go"}],
            "stream": True,
            "max_tokens": 24,
            "temperature": 0,
        }
        text, finished, done = "", 0, False
        with client.stream("POST", f"{self._url}/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code} {answer.read()!r}")
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

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def reload(url: str) -> dict[str, Any]:
    """Make the server read its manifest now; return its answer."""
    tree: dict[str, Any] = httpx.post(f"{url}/api/v1/reload", json={}, timeout=60).json()
    return tree
