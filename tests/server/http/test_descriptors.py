"""The limit of open files is raised where it can be, and said where it cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import logging, resource, sys
from mullama.server.http.descriptors import allow_descriptors
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
print(allow_descriptors(2048), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "limit"), [(4096, 2048), (256, 256)])
def test_the_limit_is_raised_as_far_as_it_goes(hard: int, limit: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(hard=hard)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == [str(limit), str(limit)]
    assert ("raise ulimit -n" in ran.stderr) == (hard < 2048)
