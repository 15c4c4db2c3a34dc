"""Fixtures of all engine tests: the built-in model's path, and a loader that closes engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the native library is loaded

TINY = Path(__file__).parents[2] / "mullama" / "sources" / "builtin_models" / "tiny.gguf"


@pytest.fixture(scope="session")
def tiny_path() -> str:
    """The built-in model's file."""
    return str(TINY)


@pytest.fixture
def load_settings() -> dict[str, Any]:
    """Keyword arguments for the load function of the engine; other fixtures add theirs."""
    return {}


@pytest.fixture
def load(load_settings: dict[str, Any]) -> Iterator[Callable[..., object]]:
    """Loads engines by name and closes them after the test."""
    from mullama.engines import find_engine
    from mullama.engines.base import Engine, WeightsOptions

    loaded: list[Engine] = []

    def one(name: str, *files: str, options: WeightsOptions | None = None, **settings: Any) -> Engine:
        function: Any = find_engine(name)
        engine: Engine = function(files, options or WeightsOptions(), lambda _share: True, **load_settings, **settings)
        loaded.append(engine)
        return engine

    yield one
    for engine in loaded:
        engine.close()
