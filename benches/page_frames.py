"""Measures how smoothly the web page shows a growing answer: `python -m benches.page_frames [MESSAGES]`.

A conversation of MESSAGES messages (2,000) is opened in Chromium, and the scripted engine streams an answer into it.
The times of the browser's main thread come from the DevTools protocol (`Performance.getMetrics`), the frames from
`requestAnimationFrame`, and moved content from the entries `layout-shift`. A dropped frame lasts more than 25 ms.
Run it on a quiet machine with a page that was built (`make ui`).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.conftest import BROWSERS
from tests.browser.pages import kept_conversation
from tests.e2e.stack import serving

TOKENS = "slow 5ms count to 1500"
TIMES = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
OBSERVE = """() => {
    const seen = window.seen = {frames: [], updates: 0, shifts: 0, long: 0};
    const frame = (now) => { seen.frames.push(now); requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    const options = {subtree: true, childList: true, characterData: true};
    new MutationObserver(() => { seen.updates += 1; }).observe(document.querySelector(".messages"), options);
    const shifts = (list) => { for (const entry of list.getEntries()) seen.shifts += entry.value; };
    new PerformanceObserver(shifts).observe({type: "layout-shift"});
    new PerformanceObserver((list) => { seen.long += list.getEntries().length; }).observe({type: "longtask"});
}"""


def measure(messages: int, command: str) -> dict[str, float]:
    """Return the figures of one streamed answer. command: the browser. Times in milliseconds."""
    home = Path(tempfile.mkdtemp())
    (home / "words.script.json").write_text(json.dumps({"context": 262_144}))
    with (
        serving(home, {"words": {"from": "./words.script.json", "context": {"size": 262_144}}}) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=command, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{stack.url}/ui/#/playground")
        file: Any = {"name": "l.json", "mimeType": "application/json", "buffer": kept_conversation(messages).encode()}
        page.get_by_label("Exported conversations").set_input_files(file)
        page.get_by_role("link", name="Long").click()
        page.get_by_text(f"Text {messages - 1}").wait_for()
        page.get_by_label("Message", exact=True).fill(TOKENS)
        page.keyboard.press("Enter")
        page.locator("article").last.get_by_text("1 2 3").wait_for()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        page.evaluate(OBSERVE)
        before = _metrics(session)
        page.get_by_text("1498 1499 1500").wait_for(timeout=120_000)
        after = _metrics(session)
        seen = page.evaluate("window.seen")
        browser.close()
    gaps = [b - a for a, b in zip(seen["frames"], seen["frames"][1:], strict=False)]
    seconds = sum(gaps) / 1000
    return {
        "seconds": seconds,
        "updates_per_second": seen["updates"] / seconds,
        "frames_per_second": len(gaps) / seconds,
        "dropped_frames": sum(gap > 25 for gap in gaps),
        "long_tasks": seen["long"],
        "layout_shift": seen["shifts"],
        **{f"{name}_per_update": 1000 * (after[name] - before[name]) / seen["updates"] for name in TIMES},
    }


def _metrics(session: Any) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}


def main() -> None:
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        print(f"there is no browser: {', '.join(BROWSERS)}")
        return
    for name, value in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, command).items():
        print(f"{name:32} {value:10.2f}")


if __name__ == "__main__":
    main()
