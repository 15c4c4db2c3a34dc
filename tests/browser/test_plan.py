"""The manifest edited, planned, saved and applied in the page of a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.browser.pages import opened, typed
from tests.e2e.stack import Stack, stack_in

TEXT = """\
mullama: v1
# the models of the office
server: {listen: ["127.0.0.1:0"]}
models:
  tiny: builtin:tiny
  spare:
    from: builtin:tiny
    context: {size: 2048}
    residency: {load: on_demand}
routes: {default: tiny}
profiles:
  night: {models: {spare: {context: {size: 1536}}}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with two models and a profile."""
    with stack_in(tmp_path_factory.mktemp("plan")) as found:
        found.write_text(TEXT)
        found.serve()
        found.ready()
        yield found


@pytest.fixture
def plan(page: Any, stack: Stack) -> Iterator[Any]:
    """The screen with the text of the file, which is applied again at the end."""
    opened(page, stack, "plan")
    page.get_by_text("Nothing to change").wait_for()
    before = revision(stack)
    yield page
    if stack.manifest.read_text() != TEXT or revision(stack) != before:
        stack.write_text(TEXT)
        stack.apply()


def revision(stack: Stack) -> str:
    found: str = httpx.get(f"{stack.url}/api/v1/stack", timeout=30).json()["revision"]
    return found


def offered(page: Any) -> list[str]:
    """Return the completions that the editor shows."""
    options = page.locator(".cm-tooltip-autocomplete .cm-completionLabel")
    options.first.wait_for()
    found: list[str] = options.all_inner_texts()
    return found


def applied(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{stack.url}/api/v1/stack", timeout=30).json()["manifest"]["models"]
    return found


def test_fields_words_and_names_are_completed(plan: Any) -> None:
    plan.get_by_role("textbox", name="Text of the manifest").click()
    plan.keyboard.press("Control+End")
    plan.keyboard.insert_text("groups:\n  one: {")
    plan.keyboard.type("ma")
    assert offered(plan) == ["max"]
    plan.get_by_text("cost of a change: live").wait_for()
    plan.keyboard.press("Tab")
    plan.keyboard.insert_text("1, models: [")
    plan.keyboard.press("Control+Space")
    assert offered(plan) == ["spare", "tiny"]
    plan.keyboard.press("Escape")
    plan.keyboard.insert_text("]}\ndefaults: {residency: {load: ")
    plan.keyboard.press("Control+Space")
    assert offered(plan)[:3] == ["at_start", "on_demand", "when_room"]


def test_tab_does_not_trap_the_keyboard(plan: Any) -> None:
    plan.get_by_role("textbox", name="Text of the manifest").click()
    plan.keyboard.press("Escape")
    plan.keyboard.press("Tab")
    assert plan.locator(".cm-content:focus").count() == 0


def test_a_mistake_leads_to_its_place(plan: Any) -> None:
    typed(plan, "context: {size: 2048", "kontext: {size: 2048")
    plan.get_by_role("button", name="line 8, column 5").click()
    plan.locator(".cm-content:focus").wait_for()
    plan.keyboard.press("Delete")
    plan.keyboard.type("c")
    plan.get_by_text("Nothing to change").wait_for()


def test_the_fields_of_the_text_have_help(plan: Any) -> None:
    plan.locator(".cm-content").get_by_text("residency").hover()
    plan.locator(".cm-help").get_by_text("Loading and unloading of the model").wait_for()


def test_another_profile_is_planned_and_applied(plan: Any, stack: Stack) -> None:
    plan.get_by_label("night").check()
    plan.get_by_text("context.size").wait_for()
    plan.get_by_role("rowheader", name="main memory").wait_for()
    plan.get_by_role("button", name="Apply with night").click()
    plan.get_by_text("applied", exact=True).wait_for()
    assert applied(stack)["spare"]["context"]["size"] == 1536


def test_a_held_file_is_applied_after_its_confirmation(plan: Any, stack: Stack) -> None:
    stack.write_text(TEXT.replace("  tiny: builtin:tiny\n", "").replace("default: tiny", "default: spare"))
    plan.get_by_text("Held.").wait_for()
    assert "tiny" in applied(stack)
    plan.get_by_role("button", name="Confirm and apply and remove 1 model").click()
    plan.get_by_text("applied", exact=True).wait_for()
    assert list(applied(stack)) == ["spare"]


def test_a_text_without_models_names_what_it_does(plan: Any, stack: Stack) -> None:
    typed(plan, plan.locator(".cm-content").inner_text(), "mullama: v1\nserver: {listen: [127.0.0.1:0]}\n")
    plan.get_by_role("button", name="Save and apply and remove all models").click()
    plan.get_by_text("applied", exact=True).wait_for()
    assert applied(stack) == {}


def test_a_refused_text_stays_on_the_page_and_is_not_saved(plan: Any, stack: Stack) -> None:
    protected = TEXT.replace("tiny: builtin:tiny", "tiny: {from: builtin:tiny, protect: true}")
    stack.write_text(protected)
    stack.apply()
    plan.get_by_text("protect: true").wait_for()
    typed(plan, "  tiny: {from: builtin:tiny, protect: true}\n", "")
    typed(plan, "default: tiny", "default: spare")
    plan.get_by_role("button", name="remove 1 model").click()
    plan.get_by_role("alert").get_by_text("apply `protect: false` for it first").wait_for()
    assert stack.manifest.read_text() == protected
    assert "default: spare" in plan.locator(".cm-content").inner_text()
    stack.write_text(TEXT)
    stack.apply()


def test_a_file_that_changed_meanwhile_is_overwritten_only_by_choice(plan: Any, stack: Stack) -> None:
    typed(plan, "2048", "1792")
    plan.get_by_text("context.size").wait_for()
    stack.write_text(f"{TEXT}\n# from elsewhere\n")
    plan.get_by_role("button", name="Save and apply").click()
    plan.get_by_role("alert").get_by_text("was changed since it was read").wait_for()
    assert "# from elsewhere" in stack.manifest.read_text()
    plan.get_by_role("button", name="Keep my text").click()
    plan.locator(".cm-deletedChunk").get_by_text("# from elsewhere").wait_for()
    plan.get_by_role("button", name="Save and apply").click()
    plan.get_by_text("applied", exact=True).wait_for()
    assert "1792" in stack.manifest.read_text()


def test_no_text_is_applied_before_its_plan_is_shown(plan: Any) -> None:
    held: list[Any] = []
    plan.route("**/api/v1/manifest/plan", lambda route: held.append(route))
    with plan.expect_request("**/api/v1/manifest/plan"):
        typed(plan, "2048", "1792")
        assert plan.get_by_role("button", name="Save and apply").is_disabled()
    assert plan.get_by_role("button", name="Save and apply").is_disabled()
    held[0].continue_()
    plan.get_by_text("context.size").wait_for()
    assert plan.get_by_role("button", name="Save and apply").is_enabled()
    typed(plan, "1792", "1536")
    assert plan.get_by_role("button", name="Save and apply").is_disabled()


def test_a_text_written_during_a_save_is_a_change_of_the_saved_file(plan: Any, stack: Stack) -> None:
    held: list[Any] = []
    plan.route(
        "**/api/v1/manifest", lambda route: held.append(route) if route.request.method == "PUT" else route.fallback()
    )
    typed(plan, "2048", "1792")
    plan.get_by_text("context.size").wait_for()
    with plan.expect_request(lambda request: request.method == "PUT"):
        plan.get_by_role("button", name="Save and apply").click()
    with plan.expect_response("**/api/v1/manifest/plan"):
        typed(plan, "1792", "1536")
    with plan.expect_response(lambda answer: answer.request.method == "GET" and "1792" in answer.text()):
        held[0].continue_()
    plan.get_by_text("applied", exact=True).wait_for()
    assert "1792" in stack.manifest.read_text()
    assert plan.get_by_text("changed by others").count() == 0
    held.clear()
    with plan.expect_request(lambda request: request.method == "PUT"):
        plan.get_by_role("button", name="Save and apply").click()
    held[0].continue_()
    plan.get_by_text("Nothing to change").wait_for()
    assert applied(stack)["spare"]["context"]["size"] == 1536


def test_a_model_that_cannot_run_is_named_beside_the_part_that_was_applied(plan: Any, stack: Stack) -> None:
    (stack.home / "bad.gguf").write_bytes(b"no weights" * 100)
    typed(plan, "routes:", "  bad: ./bad.gguf\n  extra: builtin:tiny\nroutes:")
    plan.get_by_text("bad add").or_(plan.get_by_text("2 steps")).first.wait_for()
    plan.get_by_role("button", name="Save and apply").click()
    plan.get_by_role("alert").filter(has_text="only GGUF files can be run").get_by_text(
        "Only a part was applied"
    ).wait_for()
    plan.get_by_text("The server serves what was applied of it.").wait_for()
    assert set(applied(stack)) == {"tiny", "spare", "extra"}


def test_a_text_that_was_saved_and_not_applied_is_named_as_both(plan: Any, stack: Stack) -> None:
    typed(plan, "routes:", "  big: {from: builtin:tiny, context: {size: 100000000}}\nroutes:")
    plan.get_by_text("1 step").wait_for()
    plan.get_by_role("button", name="Save and apply").click()
    plan.get_by_role("alert").filter(has_text="may use").get_by_text("Nothing was applied: refused").wait_for()
    plan.get_by_text("The file is saved with this text. The server serves what it served before.").wait_for()
    assert "big:" in stack.manifest.read_text()
    assert "big" not in applied(stack)


def test_an_apply_is_shown_again_after_another_screen(plan: Any, stack: Stack) -> None:
    held: list[Any] = []
    plan.route(
        "**/api/v1/manifest",
        lambda route: held.append(route) if route.request.method == "PUT" else route.fallback(),
    )
    typed(plan, "2048", "1792")
    plan.get_by_text("context.size").wait_for()
    with plan.expect_request(lambda request: request.method == "PUT"):
        plan.get_by_role("button", name="Save and apply").click()
    plan.get_by_role("link", name="Keys").click()
    plan.get_by_role("heading", name="Keys").wait_for()
    plan.get_by_role("link", name="Plan", exact=True).click()
    assert plan.get_by_role("button", name="Applying").is_disabled()
    held[0].continue_()
    plan.get_by_text("applied", exact=True).wait_for()
    plan.get_by_role("link", name="Keys").click()
    plan.get_by_role("heading", name="Keys").wait_for()
    plan.get_by_role("link", name="Plan", exact=True).click()
    plan.get_by_text("Nothing to change").wait_for()
    assert plan.get_by_text("applied", exact=True).count() == 0, "a result is shown until the screen is left"
    assert "1792" in stack.manifest.read_text()


def test_the_progress_has_bytes_and_an_ended_connection_is_stated(plan: Any) -> None:
    fetch = {"event": "fetch", "model": "spare", "file": "a.gguf", "phase": "downloading", "total": 4 * 1024**2}
    lines = [{"event": "phase", "phase": "fetch"}, {**fetch, "done": 1024**2}]
    body = "\n".join(map(json.dumps, lines))
    plan.route(
        "**/api/v1/manifest",
        lambda route: route.fulfill(body=body) if route.request.method == "PUT" else route.fallback(),
    )
    typed(plan, "2048", "1792")
    plan.get_by_role("button", name="Save and apply").click()
    plan.get_by_text("1.0 MiB of 4.0 MiB").wait_for()
    plan.get_by_role("alert").filter(has_text="The result is not known").get_by_text("continues the change").wait_for()
    plan.get_by_role("button", name="Discard").click()


def test_the_file_of_a_repository_is_downloaded_or_copied(page: Any, stack: Stack) -> None:
    def change(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "readonly": "it is that of a git repository"})

    page.route("**/api/v1/manifest", change)
    opened(page, stack, "plan")
    page.get_by_text("it is that of a git repository").wait_for()
    typed(page, "2048", "1792")
    page.get_by_text("context.size").wait_for()
    assert page.get_by_role("button", name="Save and apply").is_disabled()
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert "1792" in page.evaluate("navigator.clipboard.readText()")
    with page.expect_download() as found:
        page.get_by_role("button", name="Download").click()
    assert "1792" in found.value.path().read_text()


def test_a_manifest_is_edited_planned_and_applied(page: Any, stack: Stack) -> None:
    original = stack.manifest.read_text()
    opened(page, stack, "plan")
    page.get_by_text("Nothing to change").wait_for()
    typed(page, "2048", "1536")
    page.get_by_text("context.size").wait_for()
    page.get_by_role("button", name="Save and apply").click()
    page.get_by_text("applied", exact=True).wait_for()
    assert "1536" in stack.manifest.read_text()
    applied = httpx.get(f"{stack.url}/api/v1/stack", timeout=30).json()
    assert applied["manifest"]["models"]["spare"]["context"]["size"] == 1536
    stack.manifest.write_text(original)
    stack.apply()


def test_a_mistake_is_shown_with_its_line_and_survives_a_reload(page: Any, stack: Stack) -> None:
    original = stack.manifest.read_text()
    opened(page, stack, "plan")
    page.get_by_text("Nothing to change").wait_for()
    typed(page, "context:", "kontext:")
    page.get_by_text("did you mean").first.wait_for()
    page.get_by_text("line ").first.wait_for()
    assert page.get_by_role("button", name="Save and apply").is_disabled()
    page.reload()
    page.get_by_text("did you mean").first.wait_for()
    page.get_by_role("button", name="Discard").click()
    page.get_by_text("Nothing to change").wait_for()
    assert stack.manifest.read_text() == original
