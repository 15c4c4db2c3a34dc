"""The page of a fleet in the pilot, against scripted servers: what is shown while hosts leave and return."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.client.address import ServerAddress
from mullama.client.http import Client
from mullama.targets.fleet.hosts import RemoteHost
from tests.cli.page.scripted import (
    ScriptedServer,
    failed,
    model,
    press,
    running,
    sample,
    screen_text,
    status,
    until,
)
from tests.cli.pty_session import pty_session
from tests.cli.tinyserver import Answer, TcpServer, TinyServer, handler, serving

pytest.importorskip("textual")
pytestmark = pytest.mark.anyio


def scripted(tree: dict[str, Any]) -> Iterator[ScriptedServer]:
    tiny = TinyServer(ServerAddress(port=0))
    http = TcpServer(("127.0.0.1", 0), handler(tiny))
    tiny.address = ServerAddress(port=http.server_address[1])
    server = ScriptedServer(tiny, tree)
    for _ in serving(http):
        yield server
        server.close()


@pytest.fixture
def a() -> Iterator[ScriptedServer]:
    yield from scripted(status(model("chat", active=1), failed("big", "no memory on CUDA0")))


@pytest.fixture
def b() -> Iterator[ScriptedServer]:
    yield from scripted(status(model("chat")))


@pytest.fixture
def page(a: ScriptedServer, b: ScriptedServer) -> Any:
    """The page of four hosts: `a` and `b` answer, the key of `c` cannot be read, and `d` is declared away."""
    from mullama.cli.page.screens.fleet import FleetPage, FleetPageHost

    urls = {"a": a.tiny.url, "b": b.tiny.url}
    hosts = [FleetPageHost(name, url, RemoteHost(name, Client(ServerAddress.parse(url)))) for name, url in urls.items()]
    hosts.append(FleetPageHost("c", "http://10.0.0.3:11434", None, "C_KEY is not set"))
    hosts.append(FleetPageHost("d", "http://10.0.0.4:11434", None, away=True))
    return FleetPage("prod", hosts)


def row(app: Any, *words: str) -> str:
    """Return the row that begins with these words; "" without one."""
    lines = app.query_one("#model-table").lines
    return next((line for line in lines if tuple(line.split()[: len(words)]) == words), "")


async def shown(app: Any, text: str, *words: str) -> None:
    await until(lambda: text in row(app, *words), lambda: f"{text!r} is not in {words}:\n{screen_text(app)}")


async def test_the_models_of_all_hosts_are_live_and_each_other_host_has_its_reason(
    page: Any, a: ScriptedServer, b: ScriptedServer
) -> None:
    async with running(page, 120, 20):
        await shown(page, "● ready", "a", "chat")
        await shown(page, "LoadFailed: no memory on CUDA0", "a", "big")
        await shown(page, "● ready", "b", "chat")
        assert "✗ no answer" in row(page, "c")
        assert "C_KEY is not set" in row(page, "c")
        assert "○ away" in row(page, "d")
        assert "prod · 3 models on 2 of 4 hosts" in screen_text(page).splitlines()[0]
        b.send(models=[model("chat", active=3)], **sample(chat=25.0))
        await shown(page, "25", "b", "chat")
        assert "25" not in row(page, "a", "chat")
        a.send(status=status(model("chat"), model("added")), **sample())
        await shown(page, "● ready", "a", "added")


async def test_a_host_that_is_lost_is_a_row_and_returns_by_itself(
    page: Any, a: ScriptedServer, b: ScriptedServer
) -> None:
    async with running(page, 120, 20):
        await shown(page, "● ready", "b", "chat")
        await shown(page, "● ready", "a", "chat")
        b.refusal = Answer({"error": {"kind": "unavailable", "message": "it is stopping", "hint": ""}}, 503)
        b.streams[0].end()
        await shown(page, "it is stopping", "b", "-", "✗", "no", "answer")
        assert "2 models on 1 of 4 hosts" in screen_text(page)
        a.send(models=[model("chat", active=7)], **sample(chat=1.0))
        await shown(page, "7", "a", "chat")
        b.tree, b.refusal = status(model("after")), None
        await shown(page, "● ready", "b", "after")
        assert not row(page, "b", "-")


async def test_rows_are_filtered_sorted_and_opened(page: Any) -> None:
    async with running(page, 120, 40) as pilot:
        await shown(page, "● ready", "b", "chat")
        await shown(page, "● ready", "a", "chat")
        await press(pilot, "s", "s")
        table = page.query_one("#model-table")
        await until(lambda: "by state" in screen_text(page), lambda: screen_text(page))
        assert [line.split()[0] for line in table.lines][:2] == ["c", "a"]
        await press(pilot, "slash", *"b chat", "enter")
        await until(lambda: len(table.lines) == 1, lambda: screen_text(page))
        await press(pilot, "enter")
        await until(lambda: "chat on b" in screen_text(page), lambda: screen_text(page))
        await press(pilot, "escape", "slash", "escape")
        await until(lambda: len(table.lines) == 5, lambda: screen_text(page))
        await press(pilot, "home", "enter")
        await until(lambda: "http://10.0.0.3:11434" in screen_text(page), lambda: screen_text(page))
        assert "C_KEY is not set" in screen_text(page)


def test_the_command_opens_it_on_a_terminal_and_names_a_key_that_is_missing(a: ScriptedServer, tmp_path: Path) -> None:
    hosts = f"a: {{url: '{a.tiny.url}'}}, b: {{url: 'http://127.0.0.1:1'}}"
    hosts += ", c: {url: 'http://10.0.0.3', key: {from_env: C_KEY}}, d: {url: 'http://10.0.0.4', away: true}"
    text = f"mullama: v1\nmetadata: {{name: prod}}\nfleet: {{hosts: {{{hosts}}}}}\nmodels: {{chat: builtin:tiny}}\n"
    (tmp_path / "mullama.yaml").write_text(text)
    with pty_session(["top"], tmp_path, LINES="24", COLUMNS="160", PYTHONPATH=str(Path(__file__).parents[3])) as page:
        for part in ("no memory on CUDA0", "no server answers", "C_KEY", "away"):
            if part not in page.seen:
                page.read_until(part)
        page.type("q")
        assert page.finish() == 0
