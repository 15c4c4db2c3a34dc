"""The page where something goes wrong: servers that stop, keys that expire, several tabs, proxies, broken files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.conftest import NAME
from tests.browser.pages import opened, typed
from tests.browser.proxies import proxied
from tests.certificates import Authority
from tests.e2e.stack import Stack, stack_in

TEXT = """\
mullama: v1
server: {listen: ["127.0.0.1:PORT"], allowed_hosts: [page.test]}
auth:
  keys:
    ops: {secret: {from_file: ops.key}, roles: [admin]}
    eye: {secret: {from_file: eye.key}, roles: [read]}
    talk: {secret: {from_file: talk.key}, roles: [infer]}
models:
  tiny:
    from: builtin:tiny
    context: {size: 1024}
"""
OPS, EYE, TALK = "key-of-the-operators", "key-of-a-reader-of-the-status", "key-of-one-who-talks"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with a key for each role, whose secrets are files, at a fixed port."""
    with stack_in(tmp_path_factory.mktemp("robust")) as found:
        for name, secret in (("ops", OPS), ("eye", EYE), ("talk", TALK)):
            (found.home / f"{name}.key").write_text(secret)
            (found.home / f"{name}.key").chmod(0o600)
        found.write_text(TEXT.replace("PORT", "0"))
        found.serve()
        port = found.ready().rpartition(":")[2]
        found.write_text(TEXT.replace("PORT", port))  # where it is found again after a restart
        found.apply()
        yield found


def entered(page: Any, key: str) -> None:
    page.get_by_label("API key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()


@pytest.fixture
def plan(page: Any, stack: Stack) -> Any:
    """The plan with a draft."""
    opened(page, stack, "plan")
    entered(page, OPS)
    page.get_by_text("Nothing to change").wait_for()
    typed(page, "1024", "896")
    page.get_by_text("context.size").wait_for()
    return page


@pytest.fixture
def rotated(stack: Stack) -> Iterator[str]:
    """Another secret of the operators, which is taken back at the end."""
    for secret in ("another-key-of-the-operators", OPS):
        (stack.home / "ops.key").write_text(secret)
        stack.run("reload", "-f", stack.name)
        if secret != OPS:
            yield secret


def draft(page: Any) -> str:
    text: str = page.locator(".cm-content").inner_text()
    return text


def test_a_server_that_stops_and_returns_loses_nothing_that_is_written(plan: Any, stack: Stack) -> None:
    stack.down()
    plan.get_by_role("alert").get_by_text("The connection to the server is lost").wait_for()
    typed(plan, "896", "768")
    plan.get_by_role("link", name="Metrics").click()
    plan.get_by_text("This screen is loaded when the server answers again").wait_for()
    plan.get_by_role("link", name="Plan", exact=True).click()
    plan.get_by_text("The text is planned when the server answers again").wait_for()
    assert "768" in draft(plan)
    plan.get_by_role("link", name="Metrics").click()
    stack.serve()
    stack.ready()
    plan.get_by_role("button", name="Try now").or_(plan.get_by_role("heading", name="Metrics")).first.click()
    plan.get_by_role("heading", name="Metrics").wait_for()
    plan.get_by_role("link", name="Plan", exact=True).click()
    plan.get_by_role("alert").get_by_text("The connection to the server is lost").wait_for(state="detached")
    plan.get_by_role("region", name="Plan").get_by_text("768", exact=True).wait_for()
    assert "768" in draft(plan)


def test_a_wrong_key_is_asked_for_again(page: Any, stack: Stack) -> None:
    opened(page, stack)
    entered(page, "wrong")
    page.get_by_text("does not accept the key of this tab").wait_for()
    page.get_by_role("status").get_by_text("a key is needed").wait_for()
    entered(page, EYE)
    page.get_by_role("rowheader", name="tiny").wait_for()
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_label("API key", exact=True).wait_for()
    assert page.get_by_role("rowheader", name="tiny").count() == 0


def test_a_key_that_was_rotated_takes_no_key_of_the_writer(plan: Any, rotated: str) -> None:
    plan.get_by_role("textbox", name="Text of the manifest").click()
    plan.keyboard.press("Control+End")
    plan.keyboard.type("# a")
    plan.get_by_role("alert").get_by_text("does not accept the key of this tab any more").wait_for()
    plan.keyboard.type(" note")
    assert "# a note" in draft(plan)
    plan.get_by_role("button", name="Enter a key").click()
    entered(plan, rotated)
    plan.get_by_text("context.size").wait_for()
    plan.get_by_role("alert").wait_for(state="detached")


def test_a_reader_sees_the_status_and_is_told_what_the_plan_needs(page: Any, stack: Stack) -> None:
    opened(page, stack, "plan")
    entered(page, EYE)
    page.get_by_role("alert").get_by_text("admin").wait_for()
    page.get_by_role("button", name="Use another key").click()
    entered(page, OPS)
    page.get_by_text("Nothing to change").wait_for()


def test_a_key_that_may_only_talk_finds_the_models_in_the_playground(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    entered(page, TALK)
    page.get_by_label("Message", exact=True).fill("Hi")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="Regenerate").wait_for()
    assert page.get_by_label("Model", exact=True).input_value() == "tiny"
    page.get_by_role("status").get_by_text("the key may not read").wait_for()
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("alert").get_by_text("use a key with the role read").wait_for()


def test_two_tabs_have_their_own_keys_and_drafts_and_one_theme(plan: Any, stack: Stack) -> None:
    other = plan.context.new_page()
    opened(other, stack, "plan")
    entered(other, OPS)
    other.get_by_text("Nothing to change").wait_for()
    typed(other, "1024", "640")
    other.get_by_role("button", name="Save and apply").click()
    other.get_by_text("applied", exact=True).wait_for()
    plan.get_by_role("alert").get_by_text("changed by others").wait_for()
    assert "896" in draft(plan)
    assert "640" in stack.manifest.read_text()
    other.get_by_role("button", name="Theme").click()
    plan.get_by_role("button", name="Theme: light").wait_for()
    stack.write_text(stack.manifest.read_text().replace("640", "1024"))
    stack.apply()


def test_the_page_works_below_a_prefix_and_behind_tls(browser: Any, stack: Stack, tmp_path: Path) -> None:
    port = int(stack.url.rpartition(":")[2])
    context = browser.new_context(ignore_https_errors=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.set_default_timeout(30_000)
    with proxied(port, "/llm", Authority(tmp_path).issue("proxy")) as address:
        wanted: list[str] = []
        tab.on("request", lambda request: wanted.append(request.url))
        tab.goto(f"{address}/ui")
        entered(tab, OPS)
        tab.get_by_role("rowheader", name="tiny").wait_for()
        tab.get_by_role("link", name="Plan").click()
        tab.get_by_text("Nothing to change").wait_for()
        typed(tab, "1024", "768")
        tab.get_by_role("button", name="Save and apply").click()
        tab.get_by_text("applied", exact=True).wait_for()
        assert all(url.startswith((f"{address}/", "blob:")) for url in wanted if url != f"{address}/ui")
        context.close()
    stack.write_text(stack.manifest.read_text().replace("768", "1024"))
    stack.apply()


def test_a_page_of_another_machine_without_tls_talks_and_copies(page: Any, stack: Stack) -> None:
    page.goto(f"{stack.url.replace('127.0.0.1', NAME)}/ui/#/playground")
    entered(page, OPS)
    assert page.evaluate("[isSecureContext, navigator.clipboard, crypto.randomUUID]") == [False, None, None]
    page.get_by_label("Message", exact=True).fill("Hi")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="Regenerate").wait_for()
    page.get_by_role("button", name="Copy", exact=True).first.click()
    page.get_by_role("button", name="Copied").wait_for()
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.press("Control+V")
    assert page.get_by_label("Message", exact=True).input_value() == "Hi"


def test_a_revoked_key_sees_nothing_new_and_the_next_one_reads_again(page: Any, stack: Stack, rotated: str) -> None:
    opened(page, stack, "history")
    entered(page, rotated)
    page.get_by_role("link", name="Revision 1", exact=True).wait_for()
    (stack.home / "ops.key").write_text("the-third-key-of-the-operators")
    stack.run("reload", "-f", stack.name)
    page.get_by_text("does not accept the key").wait_for()
    page.get_by_role("button", name="Enter a key").click()
    entered(page, "the-third-key-of-the-operators")
    page.get_by_role("status").get_by_text("ready").wait_for()
    assert page.get_by_role("alert").count() == 0


def test_a_state_that_the_page_cannot_draw_leaves_the_other_screens(page: Any, stack: Stack) -> None:
    status = {"format": "mullama.status/9", "state": "ready", "version": "9", "conditions": "none", "models": {}}
    body = f"data: {json.dumps({'status': status, 'events': []})}\n\n"
    page.route("**/api/v1/live", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    page.add_init_script(f"sessionStorage.setItem('mullama-key', '{OPS}')")
    opened(page, stack)
    page.get_by_role("alert").get_by_text("cannot be drawn").wait_for()
    page.get_by_role("link", name="History").click()
    page.get_by_role("link", name="Revision 1", exact=True).wait_for()


def test_a_file_that_breaks_is_shown_with_its_mistake_and_its_return(page: Any, stack: Stack) -> None:
    text = stack.manifest.read_text()
    opened(page, stack, "plan")
    entered(page, OPS)
    page.get_by_text("Nothing to change").wait_for()
    stack.write_text(text.replace("context:", "kontext:"))
    page.get_by_text("did you mean context").wait_for()
    page.get_by_role("link", name="Overview").click()
    page.get_by_text("ConfigValid").wait_for()
    stack.write_text(text)
    page.get_by_text("ConfigValid").wait_for(state="detached")


def test_the_manifest_switches_the_page_off_and_on(page: Any, stack: Stack) -> None:
    text = stack.manifest.read_text()
    stack.write_text(text.replace('"], ', '"], ui: false, '))
    stack.apply()
    assert "server.ui" in httpx.get(f"{stack.url}/ui/", timeout=30).text
    stack.write_text(text)
    stack.apply()
    opened(page, stack)
    page.get_by_label("API key", exact=True).wait_for()
