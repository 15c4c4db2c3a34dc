"""The playground over a real server with scripted models."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.pages import kept_conversation, opened
from tests.e2e.stack import Stack, serving

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LIMITS = {"parallel": 12}
SCRIPTS: dict[str, dict[str, Any]] = {
    "words": {"constraints": True, "context": 262_144},
    "eyes": {"media": ["image", "audio"]},
    "short": {"context": 128},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("playground")
    for name, script in SCRIPTS.items():
        (home / f"{name}.script.json").write_text(json.dumps(script))
    models = {
        name: {
            "from": f"./{name}.script.json",
            "limits": {"parallel": 8},
            "context": {"size": script.get("context", 8192)},
        }
        for name, script in SCRIPTS.items()
    }
    with serving(home, models, routes={"default": "words"}) as found:
        yield found


def asked(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def finished(page: Any, count: int = 1) -> None:
    page.get_by_role("button", name="Regenerate").nth(count - 1).wait_for()


def dropped(page: Any, name: str, kind: str, data: bytes) -> None:
    """Drop a file on the composer."""
    transfer = page.evaluate_handle(
        """([name, kind, text]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name, {type: kind}));
            return transfer;
        }""",
        [name, kind, base64.b64encode(data).decode()],
    )
    page.locator(".composer").dispatch_event("drop", {"dataTransfer": transfer})


def test_tools_are_called_and_their_results_given_by_hand(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    page.get_by_text("Tools", exact=True).click()
    page.get_by_role("button", name="Insert an example").first.click()
    asked(page, 'call get_weather {"city": "Oslo"}')
    page.get_by_role("region", name="Call of get_weather").get_by_text('"Oslo"').wait_for()
    page.get_by_label("Result of get_weather").fill('{"sky": "clear"}')
    with page.expect_request("**/api/models/chat") as sent:
        page.get_by_role("button", name="Give to words and continue").click()
    turns = sent.value.post_data_json["messages"]
    call = turns[1]["tool_calls"][0]
    assert (call["function"]["name"], turns[2]["role"], turns[2]["content"]) == (
        "get_weather",
        "tool",
        '{"sky": "clear"}',
    )
    assert turns[2]["tool_call_id"] == call["id"]
    page.get_by_text("Result of get_weather").first.wait_for()


def test_settings_with_a_mistake_send_nothing_and_keep_what_was_typed(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    page.get_by_text("JSON schema of the answer").click()
    page.get_by_role("textbox", name="JSON schema of the answer").fill('{"type": "object"')
    asked(page, "say hello")
    page.get_by_role("alert").get_by_text("the JSON schema must be JSON").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "say hello"
    page.reload()
    assert page.get_by_label("Message", exact=True).input_value() == "say hello"
    page.get_by_text("JSON schema of the answer").click()
    page.get_by_role("textbox", name="JSON schema of the answer").fill('{"type": "object"}')
    page.get_by_label("Temperature").fill("101")
    page.locator(".refusal").get_by_text("0 to 100").wait_for()
    page.get_by_label("Message", exact=True).press("Enter")
    page.get_by_role("alert").get_by_text("options.temperature must be a number between 0 and 100").wait_for()
    page.get_by_label("Temperature").fill("0")
    with page.expect_request("**/api/models/chat") as sent:
        page.get_by_role("button", name="Regenerate").click()
    assert sent.value.post_data_json["format"] == {"type": "object"}
    page.get_by_text("2 of 2").wait_for()


def test_media_are_refused_by_models_without_the_ability(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    dropped(page, "dot.png", "image/png", base64.b64decode(PIXEL))
    page.get_by_role("alert").get_by_text("a model reads images and sound by a projector").wait_for()
    page.get_by_label("Model", exact=True).select_option("eyes")
    dropped(page, "dot.png", "image/png", base64.b64decode(PIXEL))
    page.get_by_alt_text("attached picture").wait_for()
    asked(page, "see")
    page.locator(".markdown").get_by_text("[image ").wait_for()
    dropped(page, "notes.pdf", "application/pdf", b"%PDF")
    page.get_by_role("alert").get_by_text("neither a picture nor a sound").wait_for()


def test_two_models_answer_one_prompt_and_each_stops_alone(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    page.get_by_role("button", name="Compare").click()
    left, right = page.locator(".column").nth(0), page.locator(".column").nth(1)
    asked(page, "slow 20ms count to 400")
    right.get_by_text("1 2 3 4").last.wait_for()
    left.get_by_text("1 2 3 4").last.wait_for()
    left.get_by_role("button", name="Stop words").click()
    left.get_by_text("stopped").wait_for()
    before = right.locator(".markdown").inner_text()
    page.wait_for_function(
        "before => document.querySelectorAll('.markdown')[1].innerText.length > before", arg=len(before)
    )
    page.keyboard.press("Escape")
    right.get_by_text("stopped").wait_for()
    asked(page, "say more")
    left.locator(".markdown").get_by_text("more").wait_for()
    right.locator(".markdown").get_by_text("more").wait_for()
    right.get_by_role("button", name="Keep only this").click()
    assert page.locator(".column").count() == 1
    page.get_by_role("region", name="Messages with eyes").wait_for()


def test_an_answer_grows_while_another_screen_is_open(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    asked(page, "slow 5ms count to 60")
    page.locator(".markdown").get_by_text("1 2").wait_for()
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name="Playground").click()
    page.locator(".markdown").get_by_text("58 59 60").wait_for()
    page.reload()
    page.locator(".markdown").get_by_text("58 59 60").wait_for()


SHIFTS = """() => {
    window.shifts = [];
    const place = ({x, y}) => `${x}, ${y}`;
    const moved = ({node, previousRect, currentRect}) =>
        `${node?.outerHTML ?? node?.textContent}: ${place(previousRect)} to ${place(currentRect)}`;
    new PerformanceObserver((list) => {
        for (const one of list.getEntries()) window.shifts.push(...one.sources.map(moved));
    }).observe({type: "layout-shift"});
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_an_answer_that_grows_moves_nothing(page: Any, stack: Stack, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, stack, "playground")
    page.locator(".gauge").wait_for()
    words = "some words of a paragraph " * 6
    text = f"slow 5ms say {words}\n\n- a list\n- of two\n\n```python\nx = 1\n```\n\n" + f"{words}\n\n" * 3
    asked(page, "say begin")
    finished(page)
    page.evaluate(SHIFTS)
    for count in (2, 3):  # the second answer fills the view, and the third one begins at its end
        asked(page, text)
        finished(page, count)
        page.get_by_label("Model", exact=True).and_(page.locator(":enabled")).wait_for()
    page.locator(".markdown pre").last.wait_for()
    assert page.evaluate("window.shifts") == []


@pytest.mark.parametrize("form", ["curl", "openai", "anthropic", "ollama"])
def test_the_code_of_a_request_runs_as_it_is(page: Any, stack: Stack, form: str) -> None:
    opened(page, stack, "playground")
    page.get_by_label("System prompt").fill('Be "brief" \\ $HOME')
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Min p").fill("0.1")
    page.get_by_label("Maximum tokens").fill("50")
    asked(page, 'say it\'s "quoted" \\ `code`\nand more')
    finished(page)
    page.get_by_text("Show the request as code").click()
    page.get_by_label("Form").select_option(form)
    code = page.get_by_label("Code of the request").inner_text()
    if form == "curl":
        done = subprocess.run(
            ["bash", "-c", f"{code.strip()} -sS"], capture_output=True, text=True, check=True, timeout=60
        )
        shown = json.loads(done.stdout)["choices"][0]["message"]["content"]
    else:
        output = io.StringIO()
        names: dict[str, Any] = {}
        with contextlib.redirect_stdout(output):
            exec(compile(code, form, "exec"), names)
        getattr(names["client"], "_client", names["client"]).close()
        shown = output.getvalue()
    assert "quoted" in shown
    assert "and more" in shown


GROWTH = """() => new Promise((resolve) => {
    const touched = {};
    let updates = 0, nodes = 0;
    const last = () => [...document.querySelectorAll("article")].at(-1);
    const observer = new MutationObserver((records) => {
        updates += 1;
        const places = records.map(({target}) => target.nodeType === 1 ? target : target.parentElement);
        for (const article of new Set(places.map((place) => place?.closest("article")))) {
            const id = article?.dataset.id;
            if (article && article !== last()) touched[id] = (touched[id] ?? 0) + 1;
        }
        nodes += records.reduce((sum, record) => sum + record.addedNodes.length, 0);
        if (updates < 20 && last().ariaBusy === "true") return;
        observer.disconnect();
        resolve({updates, nodes, others: Object.values(touched)});
    });
    observer.observe(document.querySelector(".messages"), {subtree: true, childList: true, characterData: true});
})"""


def test_a_long_conversation_draws_what_is_seen_and_a_token_draws_its_answer_alone(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    file = {"name": "long.json", "mimeType": "application/json", "buffer": kept_conversation(2000).encode()}
    page.get_by_label("Exported conversations").set_input_files(file)
    page.get_by_text("1 imported").wait_for()
    page.get_by_role("link", name="Long").click()
    page.get_by_text("Text 1999").wait_for()
    assert page.locator("article").count() < 100
    assert page.evaluate("document.querySelectorAll('.messages *').length") < 3_000
    asked(page, "slow 10ms count to 900")
    page.locator("article").last.get_by_text("1 2 3").wait_for()
    grown = page.evaluate(GROWTH)
    assert grown["others"] == []
    assert grown["updates"] == 20
    assert grown["nodes"] < 200
    page.keyboard.press("Escape")
    page.get_by_role("region", name="Messages with words").evaluate("place => place.scrollTop = 0")
    page.locator("article").first.get_by_text("Text **0**").wait_for()
    assert page.locator("article").count() < 150
    page.get_by_role("button", name="To the newest message").click()
    page.locator("article").last.get_by_text("stopped").wait_for()


@pytest.mark.parametrize("leaf", ["gone", 5, None])
def test_an_import_whose_leaf_names_no_message_shows_its_newest_one(page: Any, stack: Stack, leaf: Any) -> None:
    opened(page, stack, "playground")
    tree = json.loads(kept_conversation(6))
    tree["conversations"][0] |= {"leaf": leaf, "title": "Odd"}
    file = {"name": "odd.json", "mimeType": "application/json", "buffer": json.dumps(tree).encode()}
    page.get_by_label("Exported conversations").set_input_files(file)
    page.get_by_text("1 imported").wait_for()
    page.get_by_role("link", name="Odd").first.click()
    page.get_by_text("Text 5").wait_for()


FENCES = "```js\nlet a = '<script>';\n```\n" * 4000
HOSTILE = {
    "marks": "\u202eevil\u2069 \x1b[31mred\x07\x00 [d](data:text/html,<script>window.stolen=1</script>)"
    " <svg onload=window.stolen=1>",
    "line": "a" * 1_000_000,
    "nesting": ">" * 20_000 + "x\n\n" + "\n".join(" " * 2 * depth + "- a" for depth in range(400)),
    "fences": FENCES,
    "table": "|a" * 1000 + "|\n" + "|-" * 1000 + "|\n" + "|b|\n" * 5000,
    "brackets": "![[" * 100_000,
}


def test_marks_of_direction_in_a_title_are_shown_as_such(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    text = kept_conversation(2).replace('"Long"', json.dumps("\u202eevil"))
    file = {"name": "evil.json", "mimeType": "application/json", "buffer": text.encode()}
    page.get_by_label("Exported conversations").set_input_files(file)
    page.get_by_role("link", name=r"\u202eevil").click()
    page.get_by_role("heading", name=r"\u202eevil").wait_for()
    page.get_by_role("button", name=r"Delete \u202eevil").click()
    page.get_by_text(r"Deleted “\u202eevil”").wait_for()


def test_hostile_answers_stay_text_and_cost_little(page: Any, stack: Stack) -> None:
    wanted: list[str] = []
    page.on("request", lambda request: wanted.append(request.url))
    lines = iter(HOSTILE.values())

    def answer(route: Any) -> None:
        line = {"message": {"role": "assistant", "content": next(lines)}, "done": False}
        body = json.dumps(line) + "\n" + json.dumps({"done": True, "eval_count": 1}) + "\n"
        route.fulfill(body=body, content_type="application/x-ndjson")

    page.route("**/api/models/chat", answer)
    opened(page, stack, "playground")
    for count, name in enumerate(HOSTILE, 1):
        asked(page, name)
        page.locator("article").nth(2 * count - 1).get_by_role("button", name="Regenerate").wait_for()
        page.locator("article").nth(2 * count - 1).locator(".markdown > div").first.wait_for()
        if name == "marks":
            page.get_by_text("\\u202eevil\\u2069 ␛[31mred␇␀").wait_for()
            assert page.locator(".markdown [href], .markdown svg").count() == 0
    assert page.evaluate("window.stolen") is None
    assert page.evaluate("document.querySelectorAll('*').length") < 200_000
    assert all(url.startswith((stack.url, "data:", "blob:")) for url in wanted)


@pytest.mark.parametrize(
    "fault",
    [
        "indexedDB.open = () => { throw new DOMException('storage is forbidden', 'SecurityError'); };"
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError'); }});",
        "IDBObjectStore.prototype.put = function () {"
        " this.transaction.abort(); throw new DOMException('the storage is full', 'QuotaExceededError'); };",
    ],
    ids=["forbidden", "full"],
)
def test_a_browser_that_keeps_nothing_loses_nothing(page: Any, stack: Stack, fault: str) -> None:
    page.add_init_script(fault)
    opened(page, stack, "playground")
    asked(page, "say kept in memory")
    finished(page)
    page.get_by_text("This browser does not keep the conversations").wait_for()
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name="Playground").click()
    page.locator(".markdown").get_by_text("kept in memory").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export them to a file").click()
    tree = json.loads(download.value.path().read_text())
    assert "kept in memory" in json.dumps(tree["conversations"][0]["messages"])


def test_the_keyboard_is_enough_and_an_answer_is_announced_once(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    box = page.get_by_label("Message", exact=True)
    box.wait_for()
    assert box.evaluate("place => place === document.activeElement")
    page.keyboard.type("say one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    announced = page.get_by_role("status").filter(has_text="words answered: one")
    announced.wait_for(state="attached")
    page.keyboard.press("ArrowUp")
    page.locator('[aria-label="Edited message"]:focus').wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Edited message").wait_for(state="detached")
    box.focus()
    page.keyboard.type("slow 20ms count to 500")
    page.keyboard.press("Enter")
    page.locator(".markdown").get_by_text("1 2 3").wait_for()
    assert announced.count() == 1  # the answer that grows is not announced
    page.keyboard.press("Escape")
    page.get_by_text("stopped").wait_for()


def test_the_gauge_warns_near_the_end_of_the_context(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground")
    page.get_by_label("Model", exact=True).select_option("short")
    page.evaluate(
        """() => new MutationObserver(() => {
            if (document.querySelector(".gauge .notice") && document.querySelector(".column select").disabled)
                window.moved = true;  // the notice moved the text of an answer that streams
        }).observe(document.body, {subtree: true, childList: true})"""
    )
    asked(page, "slow 5ms count to 300")
    page.get_by_text("ended at its limit of tokens or of the context").wait_for()
    page.get_by_text("The context is nearly full").wait_for()
    assert page.evaluate("window.moved") is None


def test_a_load_test_counts_what_its_clients_got(page: Any, stack: Stack) -> None:
    opened(page, stack, "playground/load")
    page.get_by_label("Clients, at most").fill("9")
    page.get_by_label("Answers of each").fill("2")
    page.get_by_role("textbox", name="Prompt").fill("count to 5")
    page.get_by_role("button", name="Start 9 clients").click()
    result = page.get_by_role("region", name="Result")
    result.locator("div").filter(has_text="Answers").get_by_text("18", exact=True).wait_for()
    assert result.locator("div").filter(has_text="Errors").get_by_text("0", exact=True).count() == 1
    page.get_by_role("textbox", name="Prompt").fill("slow 50ms count to 2000")
    page.get_by_label("Tokens of an answer").fill("5000")
    page.get_by_role("button", name="Start 9 clients").click()
    result.get_by_text("answering").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    result.get_by_text("stopped").first.wait_for()
