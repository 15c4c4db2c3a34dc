"""The page in circumstances of which a person must know: a followed repository, a full storage, a slow network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser.pages import opened, typed
from tests.e2e.stack import Stack, stack_in
from tests.git_host import git_host

TEXT = """\
mullama: v1
server: {listen: ["127.0.0.1:0"]}
models:
  tiny:
    from: builtin:tiny
    context: {size: 1024}
"""
LAUNCH = """\
mullama: v1
server: {listen: ["127.0.0.1:0"]}
sync:
  git: {url: URL, ref: main}
models: {}
"""
FULL = """
Storage.prototype.setItem = () => { throw new DOMException("the quota is exceeded", "QuotaExceededError"); };
"""
SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
    for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifts += one.value;
}).observe({type: "layout-shift", buffered: true});
"""
HIDE = """(state) => {
    Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_followed_repository_is_shown_with_its_commit_and_not_edited(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    with git_host(tmp_path / "host") as host, stack_in(tmp_path) as stack:
        commit = host.commit({"mullama.yaml": TEXT})
        stack.write_text(LAUNCH.replace("URL", host.url))
        stack.serve()
        stack.ready()
        tab = browser.new_page()
        tab.set_default_timeout(30_000)
        opened(tab, stack)
        tab.get_by_role("rowheader", name="tiny").wait_for()
        tab.get_by_text(commit[:12]).first.wait_for()
        tab.get_by_role("link", name="Plan").click()
        tab.get_by_text("This file cannot be saved here: it is that of a git repository").wait_for()
        tab.get_by_role("main").get_by_text(commit[:12]).wait_for()
        assert tab.get_by_role("button", name="Apply").is_disabled()
        tab.close()


def test_a_full_storage_is_stated_and_loses_nothing(page: Any, stack: Stack) -> None:
    page.add_init_script(FULL)
    opened(page, stack, "plan")
    page.get_by_text("Nothing to change").wait_for()
    typed(page, "2048", "1536")
    page.get_by_text("This browser does not keep the draft: the quota is exceeded").wait_for()
    page.get_by_role("link", name="History").click()
    page.get_by_role("link", name="Revision 1", exact=True).wait_for()
    page.get_by_role("link", name="Plan").click()
    page.get_by_text("context.size").wait_for()
    assert "1536" in page.locator(".cm-content").inner_text()


@contextmanager
def holding(page: Any, addresses: str) -> Iterator[None]:
    """Hold the requests for these addresses until the block ends: a busy machine may miss a state that is short."""
    held: list[Any] = []
    ended = False
    page.route(addresses, lambda route: route.continue_() if ended else held.append(route))
    yield
    ended = True
    for route in held:
        route.continue_()


def test_a_slow_network_shows_its_states_and_moves_nothing(page: Any, stack: Stack) -> None:
    page.add_init_script(SHIFTS)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    slow = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
    session.send("Network.emulateNetworkConditions", slow)
    with holding(page, "**/api/v1/live"):
        page.goto(f"{stack.url}/ui/", wait_until="commit")
        page.get_by_text("Connecting…").wait_for()
    page.get_by_role("rowheader", name="tiny").wait_for()
    with holding(page, "**/*.js"):
        page.get_by_role("link", name="Requests").click()
        page.get_by_text("Loading…").wait_for()
    page.get_by_role("heading", name="Requests").wait_for()
    assert page.evaluate("window.shifts") < 0.1


def test_a_hidden_tab_ends_its_stream_and_misses_nothing(page: Any, stack: Stack) -> None:
    page.clock.install()
    opened(page, stack)
    page.get_by_role("rowheader", name="tiny").wait_for()
    page.evaluate(HIDE, "hidden")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/api/v1/live")):
        page.clock.fast_forward(6000)
    stack.run("load", "spare", "-f", stack.name)
    with page.expect_request("**/api/v1/live"):
        page.evaluate(HIDE, "visible")
    page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="spare")).get_by_text("ready").wait_for()
    assert page.get_by_role("alert").count() == 0


def test_a_manifest_is_edited_planned_applied_found_in_the_history_and_undone(page: Any, stack: Stack) -> None:
    before = stack.manifest.read_text()
    opened(page, stack, "plan")
    page.get_by_text("Nothing to change").wait_for()
    typed(page, "2048", "1536")
    page.get_by_role("region", name="Plan").get_by_text("1536", exact=True).wait_for()
    page.get_by_role("button", name="Save and apply").click()
    page.get_by_text("applied", exact=True).wait_for()
    page.get_by_role("link", name="History").click()
    newest = page.get_by_role("row").filter(has=page.get_by_role("cell", name="1 updated (spare)")).first
    newest.locator(".tag").wait_for()  # it is the applied one, so the first button undoes it
    page.get_by_role("button", name="Plan the undo").first.click()
    page.get_by_text("context.size").first.wait_for()
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("cell", name="page (undo)").first.wait_for()
    page.get_by_role("link", name="Plan", exact=True).click()
    page.get_by_role("region", name="Plan").get_by_text("1536", exact=True).wait_for()  # the file still has it
    stack.write_text(before)
    page.get_by_text("Nothing to change").wait_for()
