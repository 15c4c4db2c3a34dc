"""The screen of the keys, over a server with keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.browser.pages import opened
from tests.e2e.stack import Stack, stack_in

SECRETS = {"OPS": "ops-secret-of-the-test", "CI": "ci-secret-of-the-test"}
KEYS = {
    "ops": {"secret": {"from_env": "OPS"}, "roles": ["admin"]},
    "ci": {"secret": {"from_env": "CI"}, "rate": {"requests": "60/h"}, "models": ["ti*"], "mcp": []},
    "gone": {"secret": {"from_env": "GONE", "optional": True}, "roles": ["read"]},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with keys, one of them without a secret."""
    folder = tmp_path_factory.mktemp("keys")
    with stack_in(folder) as found:
        found.variables |= SECRETS
        found.write({"tiny": "builtin:tiny"}, auth={"keys": KEYS})
        found.serve()
        found.ready()
        yield found


@pytest.fixture
def operated(page: Any, stack: Stack) -> Any:
    """The page with the key of an administrator, entered as a person does."""
    opened(page, stack, "keys")
    page.get_by_label("API key", exact=True).fill(SECRETS["OPS"])
    page.get_by_role("button", name="Use this key").click()
    return page


def test_keys_are_shown_with_rights_limits_and_use_and_without_secrets(operated: Any, stack: Stack) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    headers = {"authorization": f"Bearer {SECRETS['CI']}"}
    httpx.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers, timeout=60).raise_for_status()
    answers: list[str] = []
    operated.on("response", lambda answer: answers.append(answer.text()) if "/keys" in answer.url else None)
    operated.reload()

    def row(name: str) -> Any:
        return operated.get_by_role("row").filter(has=operated.get_by_role("rowheader", name=name))

    row("ci").get_by_text("59 of 60/h requests left").wait_for()
    row("ci").get_by_text("ti*").wait_for()
    row("ci").get_by_text("no tools of servers").wait_for()
    assert row("ops").get_by_text("tools of").count() == 0
    assert row("ci").get_by_role("cell").nth(3).inner_text() == "1"
    row("ops").get_by_text("this tab").wait_for()
    row("gone").get_by_text("secret is missing").wait_for()
    row("gone").get_by_text("never").wait_for()
    assert answers
    assert not any(secret in text for secret in SECRETS.values() for text in answers)


def test_the_lines_of_a_new_key_follow_the_form(operated: Any) -> None:
    operated.get_by_label("Lines of the manifest").wait_for()
    assert operated.get_by_text("is declared").count() == 0
    operated.get_by_label("Name", exact=True).fill("ci")
    operated.get_by_text("A key named ci is declared.").wait_for()
    operated.get_by_label("Name", exact=True).fill("web-shop")
    operated.get_by_role("checkbox", name="read").check()
    operated.get_by_label("Models and routes").fill("tiny, qwen3:*")
    lines = operated.get_by_label("Lines of the manifest").inner_text()
    assert "    web-shop:\n      secret: {from_env: WEB_SHOP_KEY}\n" in lines
    assert "roles: [infer, read]" in lines
    assert 'models: ["tiny", "qwen3:*"]' in lines


def test_a_key_without_the_role_sees_the_reason(page: Any, stack: Stack) -> None:
    opened(page, stack, "keys")
    page.get_by_label("API key", exact=True).fill(SECRETS["CI"])
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("alert").get_by_text("admin").first.wait_for()
