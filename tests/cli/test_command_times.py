"""Times of the commands on this machine; run by `make bench`."""

from __future__ import annotations

import compileall
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.stack import COMMAND, Stack, stack_in

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile all modules, so that no run has to."""
    compileall.compile_dir(Path(__file__).parents[2] / "mullama", quiet=1)


def fastest(arguments: tuple[str, ...], stack: Stack | None = None, *, runs: int = 7) -> float:
    """Return the seconds of the fastest run, which other processes disturbed least."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(
            arguments,
            capture_output=True,
            check=False,
            cwd=stack.home if stack else None,
            env=stack.env if stack else None,
        )
        times.append(time.perf_counter() - begun)
    return min(times)


def report(name: str, seconds: float, limit: float) -> None:
    print(  # noqa: T201 - the result of the measurement
        f"{name}: {seconds * 1000:.0f} ms (limit {limit * 1000:.0f} ms, {platform.processor() or platform.machine()})"
    )


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stack_in(tmp_path, forks=False) as found:
        found.write()
        yield found


def many(count: int) -> dict[str, object]:
    return {f"model-{i}": {"from": "builtin:tiny", "residency": {"load": "on_demand"}} for i in range(count)}


def test_the_version_costs_little_more_than_an_interpreter() -> None:
    bare = fastest((sys.executable, "-c", "pass"), runs=20)
    version = fastest((*COMMAND, "--version"), runs=20)
    report("--version beyond a bare interpreter", version - bare, 0.06)
    assert version - bare < 0.06


def test_a_diff_of_the_root_manifest_is_quick(stack: Stack) -> None:
    root = Path(__file__).parents[2] / "mullama.yaml"
    took = fastest((*COMMAND, "diff", "-f", str(root)), stack)
    report("diff of the root manifest", took, 0.3)
    assert took < 0.3


def test_a_thousand_models_are_planned_within_two_seconds_and_linearly(stack: Stack) -> None:
    times = {}
    for count in (250, 1000):
        stack.write(many(count))
        times[count] = fastest((*COMMAND, "diff", "-f", stack.name), stack, runs=3)
        report(f"diff of {count} models", times[count], 2.0)
    assert times[1000] < 2.0
    assert times[1000] < 5 * times[250], "four times the models take about four times as long"


def test_applying_a_thousand_models_again_is_quick(stack: Stack) -> None:
    stack.write(many(1000))
    stack.apply()
    took = fastest((*COMMAND, "apply", "-f", stack.name, "--yes"), stack, runs=3)
    report("apply of 1000 models with nothing to do", took, 2.0)
    assert took < 2.0


def test_a_live_edit_is_visible_within_a_second(stack: Stack) -> None:
    stack.write({"demo": {"from": "builtin:tiny", "system": "old"}})
    stack.serve()
    url = stack.ready()
    times = []
    for number in range(3):
        stack.write({"demo": {"from": "builtin:tiny", "system": f"new {number}"}})
        begun = time.perf_counter()
        while httpx.post(f"{url}/api/show", json={"model": "demo"}, timeout=5).json().get("system") != f"new {number}":
            assert time.perf_counter() - begun < 30
            time.sleep(0.01)
        times.append(time.perf_counter() - begun)
    report("a live edit is seen", min(times), 1.0)
    assert min(times) < 1.0


def test_an_idle_server_is_small(stack: Stack) -> None:
    stack.write(many(1))
    server = stack.serve()
    stack.ready()
    held = psutil.Process(server.pid).memory_info().rss / 1e6
    print(f"idle server without a model: {held:.0f} MB (limit 120 MB)")  # noqa: T201 - the result of the measurement
    assert held < 120


def test_the_wheel_is_small(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path))
    subprocess.run((*pip, str(Path(__file__).parents[2])), check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    size = wheel.stat().st_size / 1e6
    print(f"wheel: {size:.1f} MB (limit 15 MB)")  # noqa: T201 - the result of the measurement
    assert size < 15
