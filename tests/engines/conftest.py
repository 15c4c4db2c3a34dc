"""What every test of an engine shares: the built-in model, loaded once, and the environment that a worker gets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the native library is loaded

TINY = Path(__file__).parents[2] / "mullama" / "sources" / "builtin_models" / "tiny.gguf"


@pytest.fixture(scope="session")
def tiny_path() -> str:
    """The built-in model's file."""
    return str(TINY)


@pytest.fixture
def load() -> Iterator[Callable[..., object]]:
    """Loads engines by name and closes them after the test."""
    from mullama.engines import find_engine
    from mullama.engines.base import Engine, WeightsOptions

    loaded: list[Engine] = []

    def one(name: str, *files: str) -> Engine:
        engine = find_engine(name)(files, WeightsOptions(), lambda _share: True)
        loaded.append(engine)
        return engine

    yield one
    for engine in loaded:
        engine.close()
