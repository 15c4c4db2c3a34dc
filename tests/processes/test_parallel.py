"""A small suite, run by forked processes as the whole one is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.processes import forked

pytestmark = pytest.mark.skipif(not forked.AVAILABLE, reason="the processes of the tests are forked on Linux alone")

ROOT = Path(__file__).parents[2]
# A fixture that lasts until the tests leave its package, as the browser: no test of another package may meet it.
PACKAGE = """
import pytest
from pathlib import Path
STATE = []
@pytest.fixture(scope="package")
def loop():
    STATE.append(1)
    yield
    STATE.clear()
"""
IN_PACKAGE = """
def test_one(loop): pass
def test_two(loop): pass
"""
OUTSIDE = """
import sys
def test_no_loop():
    assert not any(getattr(module, "STATE", []) for name, module in list(sys.modules.items()) if "conftest" in name)
def test_another(): pass
"""
BROKEN = """
import os
def test_before(): pass
def test_the_process_dies(): os._exit(7)
def test_after(): pass
def test_fails(): assert not "a mistake"
"""


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_each_test_runs_once_and_a_dead_process_fails_the_test_that_it_ran(tmp_path: Path, processes: int) -> None:
    modules = {"tests/browser/test_a.py": IN_PACKAGE, "tests/browser/test_b.py": IN_PACKAGE}
    modules |= {f"tests/{folder}/test_it.py": OUTSIDE for folder in ("chat", "e2e", "engines", "server")}
    modules |= {"tests/browser/conftest.py": PACKAGE, "tests/browser/__init__.py": "", "tests/cli/test_it.py": BROKEN}
    for name, text in modules.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.processes.parallel", "-rA", "-q"]
    env = os.environ | {"MULLAMA_TEST_PROCESSES": str(processes), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, "--import-mode=importlib", "--color=no"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = [line.split()[:2] for line in run.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "ERROR"))]
    assert Counter(word for word, _ in lines) == {"PASSED": 14, "FAILED": 2}, run.stdout + run.stderr
    assert len({test for _, test in lines}) == 16
    broken = {test for word, test in lines if word == "FAILED"}
    assert broken == {"tests/cli/test_it.py::test_the_process_dies", "tests/cli/test_it.py::test_fails"}
    assert "the process of this test ended with 7" in run.stdout
    assert run.returncode == 1
