"""The environment of a worker's process."""

from __future__ import annotations

from mullama.runtime.worker.process import environment


def test_the_environment_of_a_child_holds_no_secret() -> None:
    found = environment({"PATH": "/bin", "HF_TOKEN": "secret", "MULLAMA_API_KEY": "secret", "HOME": "/root"})

    assert found["PATH"] == "/bin"
    assert "secret" not in found.values()
    assert "GOMP_SPINCOUNT" in found
