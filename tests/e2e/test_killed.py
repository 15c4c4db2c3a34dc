"""SIGKILL at many moments: the next apply converges and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.stack import Stack, eventually


def answers(url: str) -> bool:
    body = {"model": "demo", "prompt": "2+2=", "max_tokens": 2, "temperature": 0}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == 200


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def interrupted_apply(stack: Stack, after: float) -> None:
    """Run apply and kill its process alone after `after` seconds."""
    process = stack.start("apply", "-f", stack.name, "--yes")
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(60)


@pytest.mark.parametrize("after", [0.01, 0.1, 0.3, pytest.param(1.0, marks=pytest.mark.soak)])
def test_an_apply_that_is_killed_is_continued_by_the_next(stack: Stack, after: float) -> None:
    interrupted_apply(stack, after)

    stack.apply()

    assert answers(stack.url)
    stack.run("diff", "-f", stack.name, code=0)
    assert len(stack.status()["workers"]) == 1


@pytest.mark.parametrize("after", [0.1, 0.3, pytest.param(0.6, marks=pytest.mark.soak)])
def test_a_server_that_is_killed_during_a_change_restarts_with_the_committed_revision(
    stack: Stack, after: float
) -> None:
    stack.apply()
    server = psutil.Process(stack.record["pid"])
    workers = server.children(recursive=True)
    stack.write({"demo": {"from": "builtin:tiny", "memory": {"mmap": False}}, "second": {"like": "demo"}})
    change = stack.start("apply", "-f", stack.name, "--yes")
    time.sleep(after)  # the moment of the kill is the parameter of the test
    workers += [child for child in server.children(recursive=True) if child not in workers]
    server.kill()
    change.wait(60)

    eventually(lambda: not any(map(lives, workers)), stack.log)
    stack.apply()
    assert answers(stack.url)
    stack.run("diff", "-f", stack.name, code=0)


def test_a_worker_that_dies_is_replaced_and_the_server_stays(stack: Stack) -> None:
    stack.apply()
    url = stack.url
    pid = stack.record["pid"]
    (first,) = stack.status()["workers"]

    os.kill(first, signal.SIGSEGV)

    def back() -> bool:
        return first not in stack.status()["workers"] and answers(url)

    eventually(back, stack.log)
    assert stack.record["pid"] == pid


def test_a_stream_whose_worker_dies_ends_with_an_error_event(stack: Stack) -> None:
    stack.apply()
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "stream": True,
        "ignore_eos": True,
        "max_tokens": 900,
    }
    (worker,) = stack.status()["workers"]  # asked first, because the command takes as long as some hundred tokens
    lines: list[str] = []
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 6:
                os.kill(worker, signal.SIGKILL)

    last = [line for line in lines if line.startswith("data: ")][-1]
    assert '"error"' in last
    assert "SIGKILL" in last


def test_a_term_signal_drains_what_runs_and_exits_with_zero(stack: Stack) -> None:
    process = stack.serve()
    url = stack.ready()
    body: dict[str, Any] = {"model": "demo", "prompt": "Once", "stream": True, "ignore_eos": True, "max_tokens": 100}
    seen = 0
    done = False
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            seen += line.startswith("data: {")
            done = done or line == "data: [DONE]"
            if seen == 3:
                process.send_signal(signal.SIGTERM)
                seen += 1
    assert done
    assert process.wait(30) == 0
    assert stack.processes() == []


def test_two_applies_at_once_leave_one_winner(stack: Stack) -> None:
    stack.apply()
    stack.write({"demo": {"from": "builtin:tiny", "memory": {"mmap": False}}})
    running = [stack.start("apply", "-f", stack.name, "--yes") for _ in range(2)]
    codes = sorted(process.wait(60) for process in running)

    assert codes in ([0, 0], [0, 10]), stack.log()
    stack.run("diff", "-f", stack.name, code=0)
