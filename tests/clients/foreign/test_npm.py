"""The npm clients, run by node: ollama, openai, @anthropic-ai/sdk, and the AI SDK with three of its providers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "node"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None or not (HERE / "node_modules").is_dir(), reason="no node with the packages here")
def test_the_npm_clients_are_content(url: str) -> None:
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=spec", "clients.test.js"], cwd=HERE, capture_output=True, text=True,
        timeout=120, check=False, env={"PATH": os.environ["PATH"], "HOME": str(HERE), "MULLAMA_URL": url},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:]
