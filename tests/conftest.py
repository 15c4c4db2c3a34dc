"""What holds for every test: hypothesis does not judge by the clock, which says nothing on a busy machine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# A machine that stops for a moment makes any example late and any drawing of values slow.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"
