"""Devices of another host over a real network: two namespaces of the kernel, joined by a virtual cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mullama.engines.base import ContextOptions, EngineChoice, Piece, WeightsOptions
from mullama.errors import EngineFailed
from mullama.reconcile.machine import host_devices
from mullama.runtime.worker.blocking import BlockingWorker
from tests.engines.conftest import TINY
from tests.engines.engine_driver import ask, user
from tests.lent_devices import MIB, LentDevices

pytestmark = pytest.mark.soak
NAME, CABLE = f"mullama{os.getpid()}", f"mu{os.getpid()}"
HERE, THERE = "10.213.77.1", "10.213.77.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace with the address THERE; this one has the address HERE."""
    if shutil.which("ip") is None:
        pytest.skip("there is no command ip")
    try:
        ip("netns", "add", NAME)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"namespaces cannot be made here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", f"{CABLE}a", "type", "veth", "peer", "name", f"{CABLE}b", "netns", NAME)
        ip("addr", "add", f"{HERE}/30", "dev", f"{CABLE}a")
        ip("link", "set", f"{CABLE}a", "up")
        ip("-n", NAME, "addr", "add", f"{THERE}/30", "dev", f"{CABLE}b")
        ip("-n", NAME, "link", "set", f"{CABLE}b", "up")
        ip("-n", NAME, "link", "set", "lo", "up")  # `mullama rpc` talks to its processes over it
        yield NAME
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a virtual cable cannot be made here: {error.stderr.decode().strip()}")
    finally:
        with suppress(subprocess.CalledProcessError):
            ip("link", "delete", f"{CABLE}a")
        ip("netns", "delete", NAME)


def text_of(device: str) -> str:
    devices = (device,) if device else ()
    options = WeightsOptions(gpu_layers=-1 if device else 0, devices=devices)
    worker = BlockingWorker(EngineChoice(name="llamacpp", files=(str(TINY),), options=options))
    try:
        worker.call(worker.worker.open_context("main", ContextOptions(size=256)))
        job = ask(worker.worker.next_id(), user("How are you?"), max_tokens=12)
        return "".join(output.text for output in worker.outputs(job) if isinstance(output, Piece))
    finally:
        worker.close()


def test_a_device_of_another_host_answers_as_the_cpu_and_its_loss_is_named(namespace: str) -> None:
    with LentDevices(64 * MIB, listen=f"{THERE}:50052", prefix=["ip", "netns", "exec", namespace]) as lent:
        assert "is reachable from other machines" in lent.wait_for("warning:")
        (device,) = host_devices([lent.host])
        assert (device.name, device.total) == ("RPC0", 64 * MIB)

        assert text_of(device.address) == text_of("") != ""

        options = WeightsOptions(gpu_layers=-1, devices=(device.address,))
        worker = BlockingWorker(EngineChoice(name="llamacpp", files=(str(TINY),), options=options))
        worker.call(worker.worker.open_context("main", ContextOptions(size=512)))
        lent.stop(signal.SIGKILL)
        job = ask(worker.worker.next_id(), user("How are you?"), max_tokens=12)
        with pytest.raises(EngineFailed, match=f"the RPC host {lent.host} does not answer"):
            list(worker.outputs(job))
        worker.close()
