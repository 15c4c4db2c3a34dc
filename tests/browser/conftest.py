"""A browser of this machine, driven by Playwright, and the page of a real server in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.web import DIST, build
from tests.e2e.stack import Stack, serving

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAME = "page.test"  # a name of this machine that the browser does not know as such, so a page of it is not secure


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A headless browser for the modules that follow one another. Skips where the machine has none, or the page was not
    built.

    Playwright's event loop runs in this thread until the tests leave this package: no asynchronous test may meet it.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: .ci/install test browser")
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        pytest.skip(f"there is no browser: {', '.join(BROWSERS)}")
    if not (DIST / "index.html").is_file():
        pytest.skip("the web page was not built: make ui")
    with api.sync_playwright() as playwright:
        # A container has no user namespaces for the sandbox; the pages are our own.
        resolver = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"
        found = playwright.chromium.launch(executable_path=command, args=["--no-sandbox", resolver])
        yield found
        found.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The text of axe-core, which is installed with the libraries of the page and is no part of it."""
    try:
        return (build._libraries(build._node()) / "axe-core/axe.min.js").read_text(encoding="utf-8")
    except build.NoTools as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with the built-in model and captures of all requests."""
    models = {
        "tiny": "builtin:tiny",
        "spare": {"from": "builtin:tiny", "context": {"size": 2048}, "residency": {"load": "on_demand"}},
    }
    captures = {"captures": {"size": "1MiB", "bodies": "all"}}
    with serving(tmp_path_factory.mktemp("page"), models, routes={"default": "tiny"}, observability=captures) as found:
        yield found


@pytest.fixture
def page(browser: Any, stack: Stack) -> Iterator[Any]:
    """An empty tab. A mistake of a script fails the test, and whatever the policy of the page forbids."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    tab.set_default_timeout(30_000)
    yield tab
    context.close()
    assert not wrong
