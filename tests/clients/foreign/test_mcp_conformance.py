"""The conformance suite of the Model Context Protocol (npm), against `/mcp` and against the client for tools of models.

The scenarios that are left out call tools, prompts and resources of the suite's own example server, or concern parts of
the protocol that neither side announces: completion, logging, subscriptions, sampling, elicitation.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = ROOT / "tests/clients/node/node_modules"
NODE = MODULES / ".bin/node"
SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
CALLER = Path(__file__).with_name("tool_caller.py")
SECONDS = 120

pytestmark = pytest.mark.skipif(not (NODE.exists() and SUITE.exists()), reason="the suite is not here")


def run(tmp_path: Path, *words: str) -> str:
    """Run the suite in a folder of its own, which gets its results; return its output."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(
        [NODE, SUITE, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "scenario",
    ["server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection"],
)
def test_the_server_passes(url: str, tmp_path: Path, scenario: str) -> None:
    shown = run(tmp_path, "server", "--url", f"{url}/mcp", "--scenario", scenario)
    assert "0 failed" in shown
    assert "Passed: 0" not in shown


@pytest.mark.parametrize("scenario", ["initialize", "tools_call", "sse-retry"])
def test_the_client_for_tools_of_models_passes(tmp_path: Path, scenario: str) -> None:
    words = (os.environ.get("MULLAMA_PYTHON", sys.executable), str(CALLER))
    assert "OVERALL: PASSED" in run(tmp_path, "client", "--command", shlex.join(words), "--scenario", scenario)
