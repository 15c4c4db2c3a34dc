"""The book of peers with real connections to servers of a few lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from mullama.chat import types as chat
from mullama.errors import Busy, MullamaError, NotFound, PeerLost, Unavailable
from mullama.manifest.spec import Manifest
from mullama.runtime.base import Caller
from mullama.runtime.metering import Metered
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.peers.completion import PeerCompletion
from tests.manifest.builders import read

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
TEXT = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'
END = b"data: [DONE]\n\n"
KEY = "sk-sesame"
pytestmark = pytest.mark.anyio


def status(line: str, body: object = "", *headers: str) -> bytes:
    data = json.dumps(body).encode()
    return "\r\n".join((f"HTTP/1.1 {line}", f"content-length: {len(data)}", *headers, "", "")).encode() + data


class Fixture:
    """A peer `p` that answers by the path of the model, and the book of a server with it."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.manifest = self.declared()
        self.notes: list[tuple[str, str, str]] = []
        self.now = 0.0
        self.pauses: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self.book = PeerBook(
            lambda: self.manifest, {"K": key}, lambda *note: self.notes.append(note), clock=lambda: self.now,
            pause=self.pause,
        )  # fmt: skip

    def declared(self, more: str = "") -> Manifest:
        peer = f"p: {{url: '{self.url}', key: {{from_env: K}}, timeout: 5s{more}}}"
        return read(f"peers: {{{peer}}}\nroutes: {{r: m@p, s: n@p}}\n").manifest

    async def pause(self, _seconds: float) -> None:
        event = asyncio.Event()
        self.pauses.put_nowait(event)
        await event.wait()

    async def ask(self, model: str = "m", hops: tuple[str, ...] = ()) -> list[chat.Event]:
        message = chat.Message(role="user", content=(chat.TextPart(text="hi"),))
        metered: list[Metered] = []
        run = PeerCompletion(
            self.book, chat.ChatRequest(model=f"{model}@p", messages=(message,)),
            Caller(dialect="openai", request_id="x", hops=hops), Metrics().of(f"{model}@p"), metered.append,
        )  # fmt: skip
        return [event async for events in run.events() for event in events]


@asynccontextmanager
async def peer(answers: Callable[[str], Sequence[bytes | asyncio.Event]], key: str = KEY) -> AsyncGenerator[Fixture]:
    """answers: the pieces for a request, and what to wait for between them, by its text."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            text = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next((int(x[15:]) for x in text.lower().split("\r\n") if x.startswith("content-length:")), 0)
            text += (await reader.readexactly(length)).decode()
            for piece in answers(text):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                else:
                    await piece.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        fixture = Fixture(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", key)
        try:
            yield fixture
        finally:
            await fixture.book.close()


async def failure(fixture: Fixture, model: str = "m") -> MullamaError:
    with pytest.raises(MullamaError) as raised:
        await fixture.ask(model)
    return raised.value


async def test_a_model_that_fails_takes_no_other_with_it() -> None:
    async with peer(lambda text: [HEAD, TEXT, END] if '"n"' in text else [status("503 Busy", {"error": "no m"})]) as p:
        route = (("m@p", 1), ("n@p", 1))
        for _ in range(3):
            assert "no m" in (await failure(p)).message
        assert [*map(p.book.usable(route), ("m@p", "n@p"))] == [False, True]
        await p.ask("n")
        shown = p.book.status()[0]
        assert (shown["state"], shown["passed_over"]) == ("ready", ["m@p"])
        assert [note[:2] for note in p.notes] == [("peer-ejected", "m@p")]
        p.now = 5.0
        assert p.book.usable(route)("m@p")
        assert p.book.status()[0]["passed_over"] == []


async def test_an_answer_that_breaks_off_counts_as_a_failure() -> None:
    answers = [[HEAD], [HEAD], [HEAD], [HEAD, TEXT, END]]
    async with peer(lambda _: answers.pop(0)) as p:
        for _ in range(3):
            await failure(p)
        assert not p.book.usable((("m@p", 1),))("m@p")
        await p.ask()
        assert p.book.usable((("m@p", 1),))("m@p")
        assert [note[0] for note in p.notes] == ["peer-ejected", "peer-recovered"]


async def test_a_refused_key_harms_no_request_that_runs() -> None:
    asked, held = asyncio.Event(), asyncio.Event()

    def answer(text: str) -> list[bytes | asyncio.Event]:
        if '"n"' not in text:
            return [status("401 No")]
        asked.set()
        return [HEAD, TEXT, held, END]

    async with peer(answer) as p:
        running = asyncio.ensure_future(p.ask("n"))
        await asked.wait()
        assert isinstance(await failure(p), PeerLost)
        held.set()
        assert isinstance((await running)[-1], chat.Completed)


@pytest.mark.parametrize("line", ["500 Error", "400 Bad", "429 Busy"])
async def test_a_peer_that_repeats_the_key_does_not_show_it(line: str) -> None:
    async with peer(lambda _: [status(line, {"error": {"message": f"wrong: {KEY}"}})]) as p:
        for _ in range(3):
            assert "wrong: ***" in (await failure(p)).message
        assert KEY not in repr((p.notes, p.book.status()))


@pytest.mark.parametrize("key", ["a\nb", "a\u00e9", "\u2603", "a\0b"])
async def test_a_key_that_no_header_can_have_is_refused_without_showing_it(key: str) -> None:
    async with peer(lambda _: [], key) as p:
        error = await failure(p)
        assert isinstance(error, PeerLost)
        assert "the key of peer p has a character" in error.message
        assert key not in str(error)


async def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    def answer(text: str) -> list[bytes]:
        asked.append(text)
        return [status("307 Moved", "", f"location: {p.url}/other")]

    async with peer(answer) as p:
        assert "redirects" in (await failure(p)).message
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("header", "expected"), [("17", 17.0), ("9" * 400, 3600.0), ("Wed, 21 Oct 2099 07:28:00 GMT", 1.0), ("", 1.0)]
)
async def test_the_wait_of_a_busy_peer_is_bounded(header: str, expected: float) -> None:
    async with peer(lambda _: [status("429 Busy", "", *([f"retry-after: {header}"] if header else []))]) as p:
        error = await failure(p)
        assert isinstance(error, Busy)
        assert (error.message, error.retry_after) == ("peer p: status 429", expected)


async def test_an_answer_ends_with_its_mark_on_an_open_connection() -> None:
    never = asyncio.Event()
    async with peer(lambda _: [HEAD, TEXT, END, never]) as p:
        assert isinstance((await p.ask())[-1], chat.Completed)
        never.set()


async def test_the_hops_are_sent_with_the_own_one_last() -> None:
    asked: list[str] = []
    async with peer(lambda text: asked.append(text) or [HEAD, TEXT, END]) as p:  # type: ignore[func-returns-value]
        await p.ask(hops=("a", "b"))
        [line] = [line for line in asked[0].split("\r\n") if line.startswith("mullama-hops:")]
        hops = tuple(line.partition(": ")[2].split(", "))
        assert hops[:2] == ("a", "b")
        assert p.book.forwards(hops[:2])
        assert not p.book.forwards(hops[2:])


async def test_a_removed_peer_is_probed_no_more() -> None:
    asked: list[str] = []

    def answer(text: str) -> list[bytes]:
        asked.append(text)
        return [status("401 No")]

    async with peer(answer) as p:
        for _ in range(3):
            assert isinstance(await failure(p), Unavailable)
        first = await p.pauses.get()
        first.set()
        second = await p.pauses.get()
        assert len(asked) == 4
        p.manifest = read("").manifest
        probe = p.book._entries["p"].probe
        assert probe is not None
        second.set()
        await probe
        assert (len(asked), p.book._entries) == (4, {})


async def test_a_look_at_a_peer_uses_its_client_and_ejects_nothing() -> None:
    asked: list[str] = []
    answers = iter([status("200 OK", {"state": "ready"}), *[status("500 No", {"error": f"key {KEY}"})] * 4])

    def answer(text: str) -> list[bytes]:
        asked.append(text)
        return [next(answers)]

    async with peer(answer) as p:
        assert await p.book.read("p", "/api/v1/status") == {"state": "ready"}
        assert asked[0].startswith("GET /api/v1/status ")
        assert f"Bearer {KEY}" in asked[0]
        for _ in range(4):
            with pytest.raises(MullamaError) as raised:
                await p.book.read("p", "/api/v1/status")
            assert KEY not in str(raised.value)
        [row] = p.book.status()
        assert (row["state"], row["failures"], p.notes) == ("ready", 0, [])
        with pytest.raises(NotFound, match="the manifest has no peer 'q'"):
            await p.book.read("q", "/api/v1/status")


async def test_a_look_with_a_missing_key_names_it() -> None:
    async with peer(lambda text: [status("200 OK")], key="") as p:
        with pytest.raises(PeerLost, match="the environment variable K is missing or empty"):
            await p.book.read("p", "/api/v1/status")
