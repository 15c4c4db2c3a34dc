"""Every screen by the rules of axe-core, and by the keyboard: two widths, and the dark theme at one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import ggufs
from tests.browser.accessibility import walked, wrong
from tests.browser.pages import kept_conversation
from tests.e2e.stack import Stack, stack_in
from tests.stub_hub import StubHub

KEY = "key-of-the-operators"
WEIGHTS = ggufs.model().bytes()
# Each screen with a text that it shows when its content is there.
SCREENS = {
    "": "builtin:tiny",
    "fleet": "This server is in no fleet",
    "models/tiny": "Resolved manifest",
    "plan": "Nothing to change",
    "history": "revision 1 is applied",
    "playground": "Text 3",
    "requests": "operators",
    "requests/1": "Prompt, as the template rendered it",
    "logs": re.compile("^[1-9][0-9,]* lines"),
    "metrics": "Generated tokens",
    "metrics/usage": "tiny",
    "keys": "this tab",
    "fetch/search/small": "org/small-GGUF",
    "fetch/repository/org/small-GGUF": "recommended",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with content on every screen."""
    with StubHub() as hub, stack_in(tmp_path_factory.mktemp("accessible")) as found:
        hub.repo("org/small-GGUF", {"s-Q4_K_M.gguf": WEIGHTS, "s-Q8_0.gguf": WEIGHTS + bytes(4096)})
        found.variables["OPS"] = KEY
        found.write(
            {"tiny": "builtin:tiny", "spare": {"from": "builtin:tiny", "residency": {"load": "on_demand"}}},
            auth={"keys": {"operators": {"secret": {"from_env": "OPS"}, "roles": ["admin"]}}},
            observability={"captures": {"size": "1MiB", "bodies": "all"}},
            sources={"hf": {"endpoint": hub.url}},
        )
        found.serve()
        url = found.ready()
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {KEY}"}
        httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def tab(browser: Any, stack: Stack) -> Iterator[Any]:
    """A tab of an administrator with a conversation. Its policy allows the script of axe-core."""
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce")
    found = context.new_page()
    found.set_default_timeout(30_000)
    found.goto(f"{stack.url}/ui/")
    found.evaluate("key => sessionStorage.setItem('mullama-key', key)", KEY)
    found.goto(f"{stack.url}/ui/#/playground")
    found.reload()
    found.get_by_role("button", name="Import").wait_for()
    kept = {"name": "kept.json", "mimeType": "application/json", "buffer": kept_conversation(4).encode()}
    found.locator("input[type=file][accept*=json]").set_input_files([kept])
    found.get_by_text("Text 3").wait_for()
    yield found
    context.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_no_screen_violates_a_rule_and_the_keyboard_reaches_all(tab: Any, stack: Stack, axe: str, screen: str) -> None:
    tab.goto("about:blank")
    tab.goto(f"{stack.url}/ui/#/{screen}")
    tab.get_by_role("main").get_by_text(SCREENS[screen]).filter(visible=True).first.wait_for()
    assert walked(tab) == []
    tab.evaluate(axe)
    assert wrong(tab) == {}
