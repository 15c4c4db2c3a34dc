"""Processes are identified by pid and start time."""

from __future__ import annotations

import os
import subprocess
import sys

from mullama.store.process import alive, process_identity, start_time


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not alive(child.pid)
    child.wait()


def test_a_process_keeps_its_identity_and_two_processes_have_two() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert alive(child.pid)
        own = process_identity(os.getpid())
        assert own == process_identity(os.getpid())
        assert own == "" or process_identity(child.pid) != own
        child.communicate(b"\n")
    assert not alive(child.pid)
    assert (start_time(child.pid), process_identity(child.pid)) == ("", "")
