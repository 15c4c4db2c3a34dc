"""The parts of the page's scripts that need no browser, run by Node: `tests/web/scripts/*.test.ts`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mullama.web import build

SCRIPTS = Path(__file__).parent / "scripts"
# The modules of the page look at the browser when they are loaded, and use nothing of it here.
BROWSER = """globalThis.document = {baseURI: "http://127.0.0.1/ui/", addEventListener() {}};
globalThis.window = {addEventListener() {}, location: {hash: ""}};"""


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.test.ts")), ids=lambda path: path.name)
def test_the_scripts_hold(script: Path, tmp_path: Path) -> None:
    try:
        node = build._node()
        libraries = build._libraries(node)
    except build.NoTools as error:
        pytest.skip(str(error))
    made = tmp_path / "tests.mjs"
    bundle = [str(libraries / "esbuild/bin/esbuild"), str(script), "--bundle", "--platform=node", "--format=esm"]
    environment = {**os.environ, "NODE_PATH": str(libraries)}
    subprocess.run(
        [*node, *bundle, f"--outfile={made}", "--log-level=warning", f"--banner:js={BROWSER}"],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    done = subprocess.run([*node, "--test", str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
