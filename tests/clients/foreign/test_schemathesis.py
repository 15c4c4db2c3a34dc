"""schemathesis reads the API document of a live server and tries to break what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import Stack

HERE = Path(__file__).parent
CHECKS = ("not_a_server_error", "content_type_conformance", "response_schema_conformance", "unsupported_method")
# These change or end the server under test; they are the subject of other tests.
CHANGES = "/api/v1/(shutdown|stack|undo|events|reload)|/api/(pull|create|copy|delete|blobs|models)"
# These say with 501 that they are not there, as the servers do that they were copied from.
MISSING = ("/api/push", "/props", "/slots/0")


def test_nothing_that_the_document_allows_breaks_the_server(stack: Stack, tmp_path: Path) -> None:
    before = sorted(stack.status()["workers"])
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{stack.url}/openapi.json",
        "--checks", ",".join(CHECKS), "--exclude-path-regex", f"{CHANGES}|^/(api/push|props|slots/.*)$",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--max-time", "60", "--seed", "7",
        "--request-timeout", "20", "--no-color", "--generation-database", "none", "--continue-on-failure",
    ]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert sorted(stack.status()["workers"]) == before
    assert httpx.get(f"{stack.url}/readyz", timeout=60).status_code == 200


@pytest.mark.parametrize("path", MISSING)
def test_what_is_not_there_says_so_in_words(url: str, path: str) -> None:
    answer = httpx.post(url + path, json={"model": "script"}, timeout=60)

    assert answer.status_code == 501
    assert answer.json()["error"]
    assert answer.headers["x-should-retry"] == "false"
