"""The screen of the fleet, over three real servers: all well, a rollout that stopped at a host, a host away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.accessibility import walked, wrong
from tests.browser.pages import opened
from tests.e2e.stack import Stack, stack_in
from tests.e2e.test_fleet import RealFleet, command

WELL = "shared: {from: builtin:tiny, hosts: [a, b], replicas: 2}, single: {from: builtin:tiny, hosts: [c]}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFleet]:
    """Three hosts whose models are as an apply placed them. Each test leaves them so."""
    folder = tmp_path_factory.mktemp("fleet")
    homes = [folder / name for name in ("control", "a", "b", "c")]
    for home in homes:
        home.mkdir()
    with stack_in(homes[0]) as control, stack_in(homes[1]) as a, stack_in(homes[2]) as b, stack_in(homes[3]) as c:
        found = RealFleet(control, {"a": a, "b": b, "c": c})
        found.declare(WELL, "{canary: 1}")
        command(found, "apply", "--yes")
        yield found


@pytest.fixture
def stack(fleet: RealFleet) -> Stack:
    """The host whose page is open."""
    return fleet.stacks["a"]


def row_of(page: Any, host: str) -> Any:
    """Return the row of a host."""
    rows = page.get_by_role("region", name="Hosts").locator("tbody tr")
    return rows.nth("abc".index(host))


def place_of(page: Any, model: str, host: str) -> Any:
    entries = page.get_by_role("region", name="Models by host").locator("li", has=page.get_by_text(model, exact=True))
    return entries.locator("li", has=page.get_by_text(host, exact=True))


def test_a_fleet_that_is_well_shows_its_hosts_rollout_and_places(page: Any, stack: Stack) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, stack)
    page.get_by_role("link", name="Fleet", exact=True).click()
    page.get_by_role("heading", name="Fleet", level=1).wait_for()
    page.get_by_text("fleet · 3 hosts · 0 requests running · 0 waiting").wait_for()
    rollout = page.get_by_role("region", name="Last apply")
    rollout.get_by_text("reached every host").wait_for()
    assert "Lease\nfree" in rollout.inner_text()
    assert rollout.locator("dt", has_text="Canary").count() == 1
    for host in "abc":
        row_of(page, host).get_by_text("ready").first.wait_for()
        row_of(page, host).get_by_text("1 of 1 steps").wait_for()
        assert "● changed" in row_of(page, host).inner_text()
        assert row_of(page, host).get_by_role("cell").nth(2).inner_text() == "1 of 1"
        row_of(page, host).get_by_text("main memory").wait_for()
    row_of(page, "a").get_by_text("this server").wait_for()
    page.get_by_text("2 of 2 replicas ready").wait_for()
    place_of(page, "single", "c").get_by_text("0 running · 0 waiting").wait_for()
    assert all(url.startswith(f"{stack.url}/") for url in asked)
    page.get_by_role("link", name="c", exact=True).wait_for()


def test_a_rollout_that_stopped_shows_the_host_and_its_reason(
    page: Any, stack: Stack, fleet: RealFleet, browser: Any, axe: str
) -> None:
    script = fleet.control.home / "broken.script.json"
    script.write_text('{"name": "broken", "faults": true, "on_open": "crash abort"}')
    fleet.declare(f"{WELL}, broken: {{from: {script}, hosts: [b, c], replicas: 2}}", "{canary: 1}")
    opened(page, stack, "fleet")
    page.get_by_text("reached every host").wait_for()
    command(fleet, "apply", "--yes", code=None)
    page.get_by_text("stopped at b, in step 1 of").wait_for()
    page.get_by_text("b: partly applied").wait_for()
    page.locator(".problem", has_text="broken: ").wait_for()
    assert "not reached" in row_of(page, "c").inner_text()
    assert "failed" in row_of(page, "b").inner_text()
    assert "absent" in place_of(page, "broken", "c").inner_text()
    assert "failed" in place_of(page, "broken", "b").inner_text()
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce")
    tab = opened(context.new_page(), stack, "fleet")
    tab.get_by_text("b: partly applied").wait_for()
    assert walked(tab) == []
    tab.evaluate(axe)
    assert wrong(tab) == {}
    context.close()
    fleet.declare(WELL)
    command(fleet, "apply", "--yes")
    page.get_by_text("reached every host").wait_for()


def test_a_host_that_is_away_is_shown_with_the_reason(page: Any, stack: Stack, fleet: RealFleet) -> None:
    opened(page, stack, "fleet")
    row_of(page, "b").get_by_text("ready").first.wait_for()
    fleet.kill("b")
    row_of(page, "b").get_by_text("no answer").wait_for()
    row_of(page, "b").get_by_text("peer b is not reachable").wait_for()
    page.get_by_text("3 hosts · 1 without an answer").wait_for()
    place_of(page, "shared", "b").get_by_text("the host was not asked, or does not answer").wait_for()
    page.get_by_text("1 of 2 replicas ready").wait_for()
    fleet.restart("b")  # at another address, which the next apply tells the others
    fleet.declare(WELL)
    command(fleet, "apply", "--yes")
    row_of(page, "b").get_by_text("ready").first.wait_for()
    page.get_by_text("2 of 2 replicas ready").wait_for()


def test_a_manifest_of_its_own_is_shown_as_a_change_and_ends_the_part_of_the_host(page: Any, fleet: RealFleet) -> None:
    c = fleet.stacks["c"]
    opened(page, fleet.stacks["a"], "fleet")
    row_of(page, "c").get_by_text("ready").first.wait_for()
    c.write({"own": "builtin:tiny"})
    c.apply()
    row_of(page, "c").get_by_text("changed since the rollout").wait_for()
    place_of(page, "own", "c").get_by_text("the last apply did not place it here").wait_for()
    opened(page, c)
    page.get_by_role("link", name="own").first.wait_for()
    assert page.get_by_role("link", name="Fleet", exact=True).count() == 0
    opened(page, c, "fleet")
    page.get_by_text("This server is in no fleet").wait_for()
