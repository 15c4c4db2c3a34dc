"""Ten thousand damaged images and sounds: no answer is a 5xx, and no process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.damaged_media import seeing_and_hearing, send_damaged

pytestmark = pytest.mark.soak

FILES = 10_000


def test_damaged_media_end_their_own_requests_alone(tmp_path: Path) -> None:
    with seeing_and_hearing(tmp_path) as stack:
        before = {process.pid for process in stack.processes()}
        outcomes = send_damaged(stack.url, FILES, seed=7)
        assert not outcomes.failures
        assert before <= {process.pid for process in stack.processes()}
