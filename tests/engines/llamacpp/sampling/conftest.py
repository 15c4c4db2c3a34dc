"""The built-in model, loaded once for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mullama.engines.base import WeightsOptions
from mullama.engines.llamacpp.binding.model import NativeModel


@pytest.fixture(scope="module")
def model(tiny_path: str) -> Iterator[NativeModel]:
    model = NativeModel([tiny_path], WeightsOptions(), lambda _share: True)
    yield model
    model.close()
