"""Addresses of media are fetched from allowed hosts only, each hop is checked, and a refusal names the field."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any

import pytest

from mullama.chat.media import MediaLimits
from mullama.chat.model_settings import settings_for
from mullama.chat.types import ChatRequest, CompletionRequest, MediaPart, Message, TextDelta, TextPart
from mullama.errors import Invalid, Refused, TooLarge, Unavailable, Unsupported
from mullama.manifest.spec import Manifest
from mullama.runtime.serving import fetched_media
from mullama.runtime.serving.fetched_media import with_fetched
from mullama.sources.media import fetch_medium
from mullama.struct import replace
from tests.chat.media.test_formats import PNG, WAV
from tests.runtime.runtime_fixture import CALLER, LocalServer
from tests.stub_hub import Redirect, Silent, Status, StubHub


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with StubHub() as running:
        yield running


class Sees:
    """A deployment whose model reads images and sounds."""

    settings = replace(settings_for("m", ""), media=("image", "audio"), media_limits=MediaLimits(image=200))


class Blind:
    settings = settings_for("m", "")


def link(url: str, kind: str = "image") -> MediaPart:
    return MediaPart(kind=kind, url=url, place="messages[0].content[0].image_url.url")  # type: ignore[arg-type]


def fetched(request: Any, hosts: tuple[str, ...] = ("images.example.org",), model: Any = Sees, **more: Any) -> Any:
    return asyncio.run(with_fetched(request, model, Manifest(mullama="v1", server={"fetch_media": hosts}), **more))  # type: ignore[arg-type]


def chat(*parts: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message(role="user", content=parts),))


def test_a_file_takes_the_place_of_its_address_and_is_fetched_once() -> None:
    asked: list[str] = []

    def fetch(url: str, permits: Any, most: int, *_: Any) -> bytes:
        asked.append(url)
        assert permits("images.example.org")
        assert not permits("example.org")
        assert most == 200
        return WAV if "wav" in url else PNG

    one, two = link("https://images.example.org/a"), link("https://images.example.org/wav")
    made = fetched(chat(TextPart(text="x"), one, one, two), fetch=fetch)
    assert [getattr(part, "data", None) for part in made.messages[0].content] == [None, PNG, PNG, WAV]
    assert made.messages[0].content[3].kind == "audio"
    assert asked == ["https://images.example.org/a", "https://images.example.org/wav"]
    raw = CompletionRequest(model="m", prompts=("x",), media=(one,))
    assert fetched(raw, fetch=fetch).media[0].data == PNG
    plain = chat(TextPart(text="x"))
    assert fetched(plain) is plain


def test_a_model_without_vision_and_a_manifest_without_hosts_refuse_before_anything_is_fetched() -> None:
    def fetch(*_: Any) -> bytes:
        raise AssertionError

    request = chat(link("https://images.example.org/a"))
    with pytest.raises(Unsupported, match="does not support vision"):
        fetched(request, model=Blind, fetch=fetch)
    with pytest.raises(Unsupported, match="this server fetches none") as caught:
        fetched(request, hosts=(), fetch=fetch)
    assert caught.value.field == "messages[0].content[0].image_url.url"
    assert "server.fetch_media" in caught.value.hint


def test_too_many_addresses_are_refused_before_anything_is_fetched() -> None:
    def fetch(*_: Any) -> bytes:
        raise AssertionError

    links = [link(f"https://images.example.org/{number}") for number in range(17)]
    with pytest.raises(TooLarge, match="the request has 17 images and sounds, and 16 are the most"):
        fetched(chat(*links), fetch=fetch)


@pytest.mark.parametrize(
    ("entry", "host", "permitted"),
    [
        ("[2001:db8::1]", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8:0::1", True),
        ("2001:db8::1", "2001:db8::2", False),
        ("*.example.org", "a.Example.org.", True),
        ("*.example.org", "example.org", False),
    ],
)
def test_a_host_is_compared_in_its_canonical_spelling(entry: str, host: str, permitted: bool) -> None:
    def fetch(url: str, permits: Any, most: int, *_: Any) -> bytes:
        assert permits(host) is permitted
        return PNG

    fetched(chat(link("https://images.example.org/a")), hosts=(entry,), fetch=fetch)


def test_the_memory_of_a_file_is_reserved_as_it_arrives_and_a_lack_of_it_is_no_fault_of_the_request() -> None:
    taken: list[int] = []

    def take(count: int) -> None:
        taken.append(count)
        if sum(taken) > 100:
            raise Unavailable("all memory is used", retry_after=1.0)

    def fetch(url: str, permits: Any, most: int, cancelled: Any, take: Any) -> bytes:
        take(60)
        return PNG

    one, two = link("https://images.example.org/a"), link("https://images.example.org/b")
    fetched(chat(one), take=take, fetch=fetch)
    assert taken == [60]
    with pytest.raises(Unavailable, match="all memory is used") as refused:
        fetched(chat(one, two), take=take, fetch=fetch)
    assert refused.value.retry_after == 1.0


class Memory:
    """Counts the bytes that requests hold."""

    def __init__(self) -> None:
        self.held = self.most = 0

    @contextmanager
    def share(self) -> Iterator[Memory]:
        yield self
        self.held = 0

    def take(self, count: int) -> None:
        self.held += count
        self.most = max(self.most, self.held)


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_request_holds_the_memory_of_its_files_to_its_end(
    streamed: bool, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, permits: Any, most: int, cancelled: Any, take: Any) -> bytes:
        take(len(PNG))
        return PNG

    monkeypatch.setattr(fetched_media, "_fetcher", lambda: fetch)
    script = server.script("a", media=["image"])
    await server.apply({"a": {"from": script}}, server={"fetch_media": ["images.example.org"]})
    memory, text = Memory(), ""
    request = replace(chat(link("https://images.example.org/a"), TextPart(text="?")), model="a")
    caller = replace(CALLER, memory=memory)
    if streamed:
        async with aclosing(server.service.events(request, caller)) as stream:
            async for events in stream:
                text += "".join(event.text for event in events if isinstance(event, TextDelta))
                assert memory.held == len(PNG)
    else:
        text = (await server.service.answer(request, caller)).choices[0].text  # type: ignore[union-attr]
    assert text.startswith("[image ")
    assert (memory.held, memory.most) == (0, len(PNG))


def test_a_failure_names_the_field() -> None:
    def refuses(*_: Any) -> bytes:
        raise Refused("no")

    def fails(*_: Any) -> bytes:
        raise Unavailable("away")

    request = chat(link("https://images.example.org/a"))
    with pytest.raises(Unsupported, match=r"image_url\.url: no"):
        fetched(request, fetch=refuses)
    with pytest.raises(Invalid, match=r"image_url\.url: away"):
        fetched(request, fetch=fails)


def test_each_hop_must_be_an_allowed_host_with_an_allowed_address(hub: StubHub) -> None:
    hub.files["/a.png"] = PNG
    here = "127.0.0.1".__eq__
    taken: list[int] = []
    assert fetch_medium(f"{hub.url}/a.png", here, 100, take=taken.append, allowed=lambda address: True) == PNG
    assert sum(taken) == len(PNG)
    with pytest.raises(Refused, match="not a public address"):
        fetch_medium(f"{hub.url}/a.png", here, 100)
    with pytest.raises(Refused, match="not a host from which media are fetched"):
        fetch_medium(f"{hub.url}/a.png", "example.org".__eq__, 100, allowed=lambda address: True)
    with StubHub("127.0.0.2") as other:
        other.files["/a.png"] = PNG
        hub.script("/away", Redirect(f"{other.url}/a.png"))
        with pytest.raises(Refused, match=r"127\.0\.0\.2 is not a host"):
            fetch_medium(f"{hub.url}/away", here, 100, allowed=lambda address: True)
        assert other.requests == []


def test_a_file_is_bounded_and_a_refusal_of_the_host_is_an_error(hub: StubHub) -> None:
    hub.files["/a.png"] = PNG
    hub.script("/gone", Status(410))
    with pytest.raises(TooLarge, match="larger than 8 B"):
        fetch_medium(f"{hub.url}/a.png", lambda host: True, 8, allowed=lambda address: True)
    with pytest.raises(Unavailable, match="answered 410"):
        fetch_medium(f"{hub.url}/gone", lambda host: True, 8, allowed=lambda address: True)


def test_slow_hosts_take_no_thread_from_other_work() -> None:
    """Prompts are prepared in the default threads of the loop, of which there are few."""
    gate = threading.Event()

    def fetch(*_: Any) -> bytes:
        assert gate.wait(30)
        return PNG

    async def scenario() -> tuple[str, Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        manifest = Manifest(mullama="v1", server={"fetch_media": ["images.example.org"]})  # type: ignore[arg-type]
        request = chat(link("https://images.example.org/a.png"))
        waiting = asyncio.create_task(with_fetched(request, Sees, manifest, fetch=fetch))  # type: ignore[arg-type]
        try:
            await asyncio.sleep(0)
            async with asyncio.timeout(4):
                done = await asyncio.to_thread(lambda: "prepared")
        finally:
            gate.set()
        return done, await waiting

    done, made = asyncio.run(scenario())
    assert done == "prepared"
    assert made.messages[0].content[0].data == PNG


def test_a_client_that_goes_ends_its_fetch(hub: StubHub) -> None:
    asked, ended = threading.Event(), threading.Event()

    def fetch(url: str, permits: Any, most: int, cancelled: Any, *_: Any) -> bytes:
        asked.set()
        try:
            return fetch_medium(f"{hub.url}/a.png", lambda host: True, most, cancelled, allowed=lambda address: True)
        finally:
            ended.set()

    async def scenario() -> None:
        manifest = Manifest(mullama="v1", server={"fetch_media": ["images.example.org"]})  # type: ignore[arg-type]
        request = chat(link("https://images.example.org/a.png"))
        waiting = asyncio.create_task(with_fetched(request, Sees, manifest, fetch=fetch))  # type: ignore[arg-type]
        await asyncio.to_thread(asked.wait, 4)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.to_thread(ended.wait, 4)

    hub.files["/a.png"] = PNG
    hub.script("/a.png", Silent())
    asyncio.run(scenario())
