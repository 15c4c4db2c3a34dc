"""Real models from the user's cache, where `make real` puts them; a test whose model is missing is skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benches.real_models import folder

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the native library is loaded


def real_file(name: str) -> Path:
    """The path of one model; skip the test where it is missing."""
    path = folder() / name
    if not path.exists():
        pytest.skip(f"{name} is not in {path.parent}: run make real")
    return path


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[..., Any]]:
    """Loads engines once per module and closes them after it."""
    from mullama.engines.base import WeightsOptions
    from mullama.engines.llamacpp.engine import LlamaEngine
    from mullama.engines.llamacpp.engine import load as load_engine

    loaded: dict[str, LlamaEngine] = {}

    def one(name: str) -> LlamaEngine:
        if name not in loaded:
            loaded[name] = load_engine((str(real_file(name)),), WeightsOptions(), lambda _share: True)
        return loaded[name]

    yield one
    for engine in loaded.values():
        engine.close()
