"""A server without HTTP for each test that names it."""

from tests.runtime.runtime_fixture import server as server
