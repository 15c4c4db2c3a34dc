"""Damaged images and sounds are errors of their requests: no answer is a 5xx, and no process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.damaged_media import seeing_and_hearing, send_damaged

FILES = 100


@pytest.mark.timeout(120)
def test_damaged_media_end_their_own_requests_alone(tmp_path: Path) -> None:
    with seeing_and_hearing(tmp_path) as stack:
        before = {process.pid for process in stack.processes()}
        outcomes = send_damaged(stack.url, FILES)
        assert not outcomes.failures
        assert sum(outcomes.statuses.values()) == FILES
        # Both ways are tested: files that are read in spite of the damage, and files that are refused.
        assert min(outcomes.statuses[200], outcomes.statuses[400]) > FILES // 10
        assert outcomes.questions
        assert before <= {process.pid for process in stack.processes()}
