"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, stack_in
from tests.stub_hub import StubHub


@pytest.fixture
def empty_stack(tmp_path: Path) -> Iterator[Stack]:
    """A private home without a manifest."""
    with stack_in(tmp_path) as found:
        yield found


@pytest.fixture
def stack(empty_stack: Stack) -> Stack:
    """A private home with a manifest of the built-in model."""
    empty_stack.write()
    return empty_stack


@pytest.fixture
def hub() -> Iterator[StubHub]:
    """A hub on loopback. A module overrides this fixture to add its repositories."""
    with StubHub() as found:
        yield found


@pytest.fixture
def online(hub: StubHub, empty_stack: Stack) -> Stack:
    """A private home without a manifest whose hub is the stub."""
    empty_stack.variables |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    return empty_stack
