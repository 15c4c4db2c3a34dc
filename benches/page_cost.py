"""Measures the cost of an open page: `python -m benches.page_cost [MODELS] [SECONDS]`.

A server with MODELS models (200) has its overview open in Chromium. Three figures, each over SECONDS (10):

- First screen: the times of the navigation, as medians of ten loads, in milliseconds.
- Idle page: the processor time of the server and of the browser while nothing happens, in percent of one core. The
  time of the server without a page is subtracted.
- 50 events a second: the processor time of the browser while ten updates a second arrive, each with five events, five
  changed models and, once a second, a sample of twenty speeds. The stream is made in the page, because no server
  makes events at that rate.

Processor time does not depend on other work of the machine, the times of the first screen do. Run it with a page that
was built (`make ui`).
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import sync_playwright

from tests.browser.conftest import BROWSERS
from tests.e2e.stack import stack_in

LOADS = 10
TIMES = """() => {
    const page = performance.getEntriesByType("navigation")[0];
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    const first = {paint: paint?.startTime ?? NaN, table: window.table};
    return {interactive: page.domInteractive, loaded: page.loadEventEnd, ...first};
}"""
# Notes when the table of models is in the document.
TABLE = """
new MutationObserver((_, self) => {
    if (!document.querySelector("tbody th")) return;
    window.table = performance.now();
    self.disconnect();
}).observe(document, {subtree: true, childList: true});
"""
# Takes the first update of the server, and makes the later ones.
STREAM = """
const real = window.fetch, encoder = new TextEncoder();
window.seen = {shift: 0};
new PerformanceObserver((list) => { for (const one of list.getEntries()) seen.shift += one.value; })
    .observe({type: "layout-shift", buffered: true});
window.fetch = async (address, options) => {
    const answer = await real(address, options);
    if (!String(address).endsWith("api/v1/live")) return answer;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.includes("data: ") || !text.endsWith("\\n\\n")) text += (await reader.read()).value;
    reader.cancel();
    const first = JSON.parse(text.slice(text.lastIndexOf("data: ") + 6)), models = first.status.models;
    let event = first.events.at(-1)?.id ?? 0, update = first.id;
    const next = () => {
        update += 1;
        const changed = [0, 1, 2, 3, 4].map((place) => models[(update * 5 + place) % models.length]);
        const when = Date.now() / 1000;
        const events = changed.map(({name}) =>
            ({id: ++event, when, kind: "loaded", subject: name, models: [name], message: "in 1.2 s", generation: 1}));
        const rows = changed.map((model) => ({...model, active: update % 4}));
        const speed = ({name}, place) => [name, 30 + ((update + place) % 7)];
        const tokens = Object.fromEntries(models.slice(0, 20).map(speed));
        const sample = update % 10 ? {} : {sample: {when, tokens, running: 3, waiting: 1}};
        return `data: ${JSON.stringify({id: update, events, models: rows, ...sample})}\\n\\n`;
    };
    const start = (stream) => {
        stream.enqueue(encoder.encode(text));
        setInterval(() => stream.enqueue(encoder.encode(next())), 100);
    };
    return new Response(new ReadableStream({start}), {headers: {"content-type": "text/event-stream"}});
};
"""


def measure(models: int, seconds: float, command: str) -> dict[str, float]:
    """Return the figures. command: the browser."""
    home, found = Path(tempfile.mkdtemp()), {}
    with stack_in(home, forks=False) as stack, sync_playwright() as playwright:
        on_demand = {"from": "builtin:tiny", "residency": {"load": "on_demand"}}
        stack.write({f"model-{number:03}": on_demand for number in range(models)})
        stack.serve()
        address = f"{stack.ready()}/ui/"
        browser = playwright.chromium.launch(executable_path=command, args=["--no-sandbox"])
        size: Any = {"width": 1440, "height": 900}
        page = browser.new_page(viewport=size)
        page.add_init_script(TABLE)
        loads = []
        for _ in range(LOADS):
            page.goto("about:blank")
            page.goto(address)
            page.get_by_role("rowheader").first.wait_for()
            page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
            loads.append(page.evaluate(TIMES))
        found |= {f"first_screen_{name}_ms": statistics.median(load[name] for load in loads) for name in loads[0]}
        page.wait_for_timeout(1500)
        open_page = _used(page, seconds, server=stack.processes(), browser=_browsers())
        page.goto("about:blank")
        page.wait_for_timeout(1500)
        closed = _used(page, seconds, server=stack.processes())
        found["idle_server_percent"] = open_page["server"] - closed["server"]
        found["idle_browser_percent"] = open_page["browser"]
        page.close()
        page = browser.new_page(viewport=size)
        page.add_init_script(STREAM)
        page.goto(address)
        page.get_by_role("rowheader").first.wait_for()
        page.wait_for_timeout(2000)
        page.evaluate("seen.shift = 0")
        renderers = [one for one in _browsers() if "--type=renderer" in one.cmdline()]
        used = _used(page, seconds, renderers=renderers, browser=_browsers())
        found["events_renderer_percent"], found["events_browser_percent"] = used["renderers"], used["browser"]
        found["events_layout_shift"] = page.evaluate("seen.shift")
        browser.close()
    return found


def _browsers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]


def _used(page: Any, seconds: float, **groups: list[psutil.Process]) -> dict[str, float]:
    """Return the processor time of each group of processes over some seconds, in percent of one core."""

    def spent() -> dict[str, float]:
        times = {name: [one.cpu_times() for one in group if one.is_running()] for name, group in groups.items()}
        return {name: sum(one.user + one.system for one in group) for name, group in times.items()}

    before, began = spent(), time.monotonic()
    page.wait_for_timeout(seconds * 1000)
    after, passed = spent(), time.monotonic() - began
    return {name: 100 * (after[name] - before[name]) / passed for name in groups}


def main() -> None:
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        print(f"there is no browser: {', '.join(BROWSERS)}")
        return
    models, seconds = [int(text) for text in sys.argv[1:]] + [200, 10][len(sys.argv) - 1 :]
    for name, value in measure(models, seconds, command).items():
        print(f"{name:32} {value:10.2f}")


if __name__ == "__main__":
    main()
