"""Random models of every architecture, each written once, and both ways to divide the cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benches import architectures
from mullama.engines.llamacpp.batcher import Pace
from mullama.engines.llamacpp.decode_cost import DecodeCost
from tests.engines.conftest import TINY
from tests.engines.llamacpp import builders

KINDS: dict[str, Callable[[Path], None]] = {
    **builders.BUILDERS,
    "hybrid window": lambda path: builders.hybrid(path, window=32),
    "encoder": builders.encoder,
    "wordpiece": builders.wordpiece,
    "rank": lambda path: builders.encoder(path, rank=True),
    "decoder": lambda path: builders.llama(path, embedding=True),
    "adapter": builders.adapter,
    "nextn": lambda path: architectures.write("qwen35-nextn", TINY, path),
    "renamed": lambda path: builders.llama(path, renamed=1000),
    "experts": builders.experts,
    "all experts": lambda path: builders.experts(path, used=8),
}

ADAPTER_OF = "adapter of "


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a random model of this kind, or of an adapter of one."""
    folder = tmp_path_factory.mktemp("models")

    def path(kind: str) -> str:
        file = folder / f"{kind}.gguf"
        if not file.exists() and kind.startswith(ADAPTER_OF):
            builders.adapter(file, weights=Path(path(kind.removeprefix(ADAPTER_OF))))
        elif not file.exists():
            KINDS[kind](file)
        return str(file)

    return path


@pytest.fixture
def pooled(load_settings: dict[str, Any]) -> None:
    """Every context has one pool of cells, however short its declared prefixes are."""
    load_settings["pool_threshold"] = 0


@pytest.fixture(params=["pool", "slots"])
def memory(request: pytest.FixtureRequest, load_settings: dict[str, Any]) -> str:
    """Both ways to divide the cells of a context."""
    load_settings["pool_threshold"] = 0 if request.param == "pool" else 1 << 30
    return str(request.param)


class FreeDecodes(DecodeCost):
    """Every decode takes the same time, so that every guess pays whatever the clock says."""

    known = True

    def seconds(self, tokens: int) -> float:
        return 1.0


@pytest.fixture
def guessing(load_settings: dict[str, Any]) -> None:
    """Guesses are made wherever they are possible."""
    load_settings["pace"] = lambda: Pace(cost=FreeDecodes())
