"""The environment of a worker's process, and the causes of its end."""

from __future__ import annotations

import signal

import pytest

from mullama.runtime.worker.process import DeathCause, cause_of
from mullama.runtime.worker.spawn import environment


def test_the_environment_of_a_child_holds_no_secret() -> None:
    found = environment({"PATH": "/bin", "HF_TOKEN": "secret", "MULLAMA_API_KEY": "secret", "HOME": "/root"})

    assert found["PATH"] == "/bin"
    assert "secret" not in found.values()
    assert "GOMP_SPINCOUNT" in found


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (0, DeathCause.OUTSIDE),
        (1, DeathCause.CRASH),
        (134, DeathCause.CRASH),
        (-signal.SIGSEGV, DeathCause.CRASH),
        (-signal.SIGABRT, DeathCause.CRASH),
        (-signal.SIGBUS, DeathCause.CRASH),
        (-signal.SIGFPE, DeathCause.CRASH),
        (-signal.SIGILL, DeathCause.CRASH),
        (-signal.SIGKILL, DeathCause.OUTSIDE),  # also the end of a process when memory is short
        (-signal.SIGTERM, DeathCause.OUTSIDE),
        (-signal.SIGHUP, DeathCause.OUTSIDE),
        (-signal.SIGXCPU, DeathCause.OUTSIDE),
        (-63, DeathCause.OUTSIDE),
    ],
)
def test_only_a_fault_of_the_process_itself_may_be_the_fault_of_a_request(code: int, cause: DeathCause) -> None:
    assert cause_of(code) is cause
