"""A digest in the manifest is a promise about the bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.e2e.stack import Stack

TINY = Path(__file__).parents[2] / "mullama/sources/builtin_models/tiny.gguf"


def test_another_digest_than_declared_is_refused_with_both(stack: Stack) -> None:
    (stack.home / "a.gguf").write_bytes(TINY.read_bytes())
    actual = hashlib.sha256(TINY.read_bytes()).hexdigest()
    stack.write({"demo": {"from": "./a.gguf", "digest": f"sha256:{'0' * 64}"}})

    done = stack.apply(code=5)

    assert actual in done.stderr + done.stdout
    assert "0" * 64 in done.stderr + done.stdout
    stack.write({"demo": {"from": "./a.gguf", "digest": f"sha256:{actual}"}})
    stack.apply()
