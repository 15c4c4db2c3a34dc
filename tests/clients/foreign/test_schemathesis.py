"""schemathesis reads the API document of a live server and tries to break what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
from tests.e2e.stack import Stack

CHECKS = ("not_a_server_error", "content_type_conformance", "response_schema_conformance", "unsupported_method")
# These change or end the server under test; they are the subject of other tests.
LEFT_OUT = "/api/v1/(shutdown|stack|undo|events|reload)|/api/(pull|create|copy|delete|blobs)"


def test_nothing_that_the_document_allows_breaks_the_server(stack: Stack, tmp_path: Path) -> None:
    before = sorted(stack.status()["workers"])
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{stack.url}/openapi.json",
        "--checks", ",".join(CHECKS), "--exclude-path-regex", LEFT_OUT, "--phases", "examples,coverage,fuzzing",
        "--max-examples", "8", "--seed", "7", "--request-timeout", "20", "--workers", "2", "--no-color",
        "--generation-database", "none", "--max-failures", "10",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)

    assert done.returncode == 0, done.stdout[-6000:]
    assert sorted(stack.status()["workers"]) == before
    assert httpx.get(f"{stack.url}/readyz").status_code == 200
