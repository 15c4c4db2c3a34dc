"""The small server of the commands' tests."""

from tests.cli.conftest import tiny as tiny
