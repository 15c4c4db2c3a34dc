"""The header check against llama.cpp itself: whatever ends the native process must have been refused before."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from mullama.errors import BadWeights
from mullama.weights.inspect import inspect
from tests import ggufs
from tests.weights.mutations import mutations

BUILTIN = Path(str(resources.files("mullama.sources") / "builtin_models" / "tiny.gguf"))

LOAD = """
import sys, llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=64, n_batch=32, n_threads=1, verbose=False)
tokens = model.tokenize("Hi\\n  \\x01\\u00e9\\u4e00 <|im_end|>".encode(), special=True)
model.eval(tokens[:40]); model.sample(); model.detokenize(tokens)
"""


def dies(path: Path) -> bool:
    """Whether loading and one decode end the process by a signal, or never end."""
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(path)], capture_output=True, timeout=60, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode < 0


def refused(raw: bytes) -> bool:
    try:
        inspect([ggufs.reader(raw)])
    except BadWeights:
        return True
    return False


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("base", ["builtin", "llama"])
def test_no_one_field_change_that_ends_llama_cpp_passes_the_header_check(base: str, tmp_path: Path) -> None:
    file = ggufs.parse(BUILTIN.read_bytes()) if base == "builtin" else ggufs.model()
    path = tmp_path / "m.gguf"
    missed = []
    for name, changed in mutations(file):
        raw = changed.bytes()
        if not refused(raw):
            path.write_bytes(raw)
            if dies(path):
                missed.append(name)
    assert missed == []
