"""The small server of the commands' tests."""

from tests.cli.conftest import tiny as tiny
from tests.cli.conftest import tiny_unix as tiny_unix
