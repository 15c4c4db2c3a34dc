"""Random models of every kind, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.llamacpp import making

KINDS: dict[str, Callable[[Path], None]] = {
    **making.MAKERS,
    "encoder": making.encoder,
    "rank": lambda path: making.encoder(path, rank=True),
    "decoder": lambda path: making.llama(path, embedding=True),
    "adapter": making.adapter,
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a random model of this kind."""
    folder = tmp_path_factory.mktemp("models")

    def path(kind: str) -> str:
        file = folder / f"{kind}.gguf"
        if not file.exists():
            KINDS[kind](file)
        return str(file)

    return path
