"""One test for each way in which a download goes wrong: what must happen, and that no wrong file is ever visible."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.errors import Denied, NotFound, Refused, TransferFailed, Unavailable
from mullama.sources import transfer
from mullama.sources.base import DownloadProgress
from mullama.sources.http_client import open_web
from mullama.sources.settings import RetryPolicy, Timeouts
from mullama.struct import replace
from tests.sources.source_fixture import DATA, QUICK, SourceFixture, source_fixture
from tests.stub_hub import (
    Announce,
    Cut,
    Drip,
    Fine,
    Gzip,
    Other,
    Redirect,
    Silent,
    Stall,
    Status,
    Step,
    StubHub,
    WholeForRange,
    WrongRange,
    sha256,
)

SOURCE, FILE = "hf:org/m:Q8_0", "m-Q8_0.gguf"
DIGEST = f"sha256:{sha256(DATA)}"
OTHER = bytes(len(DATA))


@pytest.fixture(autouse=True, params=["parsed", "straight"])
def direct_read(request: pytest.FixtureRequest, sources: SourceFixture) -> int:
    """Large bodies are read past the HTTP parser; every failure must end the same way."""
    size = 1 if request.param == "straight" else 2**40
    sources.settings = replace(sources.settings, direct_read=size)
    return size


def ranges(hub: StubHub) -> list[str | None]:
    return [asked.headers.get("Range") for asked in hub.asked(FILE)]


def test_a_file_comes_whole_is_hashed_and_is_asked_for_once(sources: SourceFixture, hub: StubHub) -> None:
    stored = sources.pull(SOURCE)
    assert stored.digest == DIGEST
    assert Path(stored.files[0]).read_bytes() == DATA
    assert not stored.in_place
    assert (hub.sent, sources.phases[-1], sources.left) == (len(DATA), "done", 0)
    sources.pull(SOURCE)
    assert hub.sent == len(DATA)
    assert len(hub.requests) == 2


@pytest.mark.parametrize("after", [0, 1, 1000, len(DATA) - 1])
def test_a_cut_download_is_continued_where_it_stopped(sources: SourceFixture, hub: StubHub, after: int) -> None:
    hub.script(FILE, Cut(after))
    assert sources.pull(SOURCE).digest == DIGEST
    assert hub.sent == len(DATA)
    assert ranges(hub) == [None, f"bytes={after}-" if after else None]
    assert hub.asked(FILE)[1].headers.get("If-Range") == (f'"{sha256(DATA)[:32]}"' if after else None)


def test_after_five_failures_in_a_row_it_gives_up_and_keeps_what_came(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, Cut(1000), *[Cut(0)] * 10)
    with pytest.raises(TransferFailed, match=r"after 4 tries.*1000 B are kept"):
        sources.pull(SOURCE)
    assert sources.left == 1000
    hub.script(FILE)
    assert sources.pull(SOURCE).digest == DIGEST
    assert hub.sent == len(DATA)
    assert "resuming" in sources.phases


def test_failures_with_progress_between_them_do_not_add_up(sources: SourceFixture, hub: StubHub) -> None:
    data = DATA + bytes(12 * 2**20)
    hub.repo("org/big", {"b-Q8_0.gguf": data})
    hub.script("b-Q8_0.gguf", *[Cut(2**20 + 1)] * 10)
    file = sources.library.locate("hf:org/big").files[0]
    with open_web(sources.settings) as web:
        assert transfer.fetch(file, sources.blobs, web, sources.seen.append, RetryPolicy(tries=2, first=0.001)) == (
            f"sha256:{sha256(data)}"
        )
    assert hub.sent == len(data)


def test_a_wrong_digest_is_fetched_anew_twice_and_then_both_are_told(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, *[Other(OTHER)] * 9)
    with pytest.raises(TransferFailed) as caught:
        sources.pull(SOURCE)
    assert DIGEST in str(caught.value)
    assert f"sha256:{sha256(OTHER)}" in str(caught.value)
    assert len(hub.asked(FILE)) == 3
    assert sources.left == 0
    sources.check_blobs()
    assert not sources.blobs.has(f"sha256:{sha256(OTHER)}")


def test_a_mismatch_that_passes_is_cured(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, Other(OTHER))
    assert sources.pull(SOURCE).digest == DIGEST
    assert sources.phases.count("retrying") == 1


def test_a_file_of_another_size_than_announced_is_refused(sources: SourceFixture, hub: StubHub) -> None:
    hub.repos["org/m"].sizes[FILE] = len(DATA) + 10
    with pytest.raises(TransferFailed, match=f"has {len(DATA)} bytes, but {len(DATA) + 10} were announced"):
        sources.pull(SOURCE)
    sources.check_blobs()


def test_a_body_shorter_than_its_own_length_is_a_cut(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, Announce(len(DATA) + 99))
    assert sources.pull(SOURCE).digest == DIGEST


@pytest.mark.parametrize("asked", ["0", "1"])
def test_429_waits_as_long_as_it_is_asked_to(sources: SourceFixture, hub: StubHub, asked: str) -> None:
    hub.script(FILE, Status(429, {"Retry-After": asked}))
    assert sources.pull(SOURCE).digest == DIGEST
    waits = [progress.wait for progress in sources.seen if progress.phase == "retrying"]
    assert waits == ([1.0] if asked == "1" else [])


@pytest.mark.parametrize("asked", ["999999999999", "soon", "-5", "", "1e9"])
def test_absurd_wishes_to_wait_are_answered_by_our_own_patience(
    sources: SourceFixture, hub: StubHub, asked: str
) -> None:
    hub.script(FILE, Status(429, {"Retry-After": asked}))
    assert sources.pull(SOURCE).digest == DIGEST
    assert all(progress.wait < 1 for progress in sources.seen)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_errors_of_the_hub_are_tried_again_and_named(sources: SourceFixture, hub: StubHub, code: int) -> None:
    hub.script(FILE, Status(code), Status(code))
    assert sources.pull(SOURCE).digest == DIGEST
    hub.script("x-Q8_0.gguf", *[Status(code)] * 9)
    hub.repo("org/x", {"x-Q8_0.gguf": DATA + b"x"})
    with pytest.raises(TransferFailed, match=f"{hub.host} answered {code}"):
        sources.pull("hf:org/x")


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [(401, Denied, "looked for in"), (403, Denied, "looked for in"), (404, NotFound, FILE), (410, NotFound, FILE)],
)
def test_a_refusal_is_not_tried_again(
    sources: SourceFixture, hub: StubHub, code: int, error: type[Exception], words: str
) -> None:
    hub.script(FILE, *[Status(code)] * 9)
    with pytest.raises(error, match=words):
        sources.pull(SOURCE)
    assert len(hub.asked(FILE)) == 1


def test_other_answers_end_the_pull(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, Status(418))
    with pytest.raises(TransferFailed, match="answered 418"):
        sources.pull(SOURCE)


@pytest.mark.parametrize("step", [Silent(), Stall(0), Stall(5000), Drip()])
def test_a_hub_that_hangs_or_crawls_is_left_and_asked_again(sources: SourceFixture, hub: StubHub, step: Step) -> None:
    """Only the answer that hangs has short limits: a busy machine may hold up the one after it."""
    file = sources.library.locate(SOURCE).files[0]
    hub.script(FILE, step)
    with open_web(sources.settings) as web:
        web.waits = Timeouts(connect=5, headers=0.4, idle=0.4, slow_bytes=10_000, slow_seconds=0.3)

        def patient_from_now_on(progress: DownloadProgress) -> None:
            if progress.phase == "retrying":
                web.waits = QUICK.waits

        assert transfer.fetch(file, sources.blobs, web, patient_from_now_on, sources.settings.patience) == DIGEST
    assert len(hub.asked(FILE)) == 2


def test_a_name_that_nobody_knows_is_tried_again_and_told(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unknown(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match=r"models\.example.*Name or service not known"):
        sources.pull("https://models.example/m.gguf")
    assert asked == ["models.example"] * 4


def test_a_hub_that_is_not_there_is_unavailable(sources: SourceFixture, hub: StubHub) -> None:
    file = sources.library.locate(SOURCE).files[0]
    nobody = replace(file, url="http://127.0.0.1:1/m.gguf")
    with open_web(sources.settings) as web, pytest.raises(Unavailable, match="nothing was downloaded"):
        transfer.fetch(nobody, sources.blobs, web, sources.seen.append, sources.settings.patience)


@pytest.mark.parametrize(
    "step",
    [
        WholeForRange(),
        WrongRange("bytes 0-{last}/{total}"),
        WrongRange("bytes {first}-{last}/*"),
        WrongRange("bytes {first}-5/{total}"),
        WrongRange("nonsense"),
        WrongRange("bytes {first}-{last}/99"),
        Gzip(),
        Status(416, {"Content-Range": "bytes */5"}),
    ],
)
def test_a_range_that_is_not_the_one_asked_for_begins_from_zero(
    sources: SourceFixture, hub: StubHub, step: Step
) -> None:
    hub.script(FILE, Cut(1000), step)
    assert sources.pull(SOURCE).digest == DIGEST
    assert ranges(hub)[:2] == [None, "bytes=1000-"]
    assert not any(ranges(hub)[2:])
    sources.check_blobs()


def test_an_encoded_body_is_never_written(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, *[Gzip()] * 9)
    with pytest.raises(Unavailable, match="encoded"):
        sources.pull(SOURCE)
    assert sources.left == 0


def test_a_file_that_changes_between_two_tries_begins_from_zero(sources: SourceFixture, hub: StubHub) -> None:
    """The first bytes were of an older file: If-Range makes the hub send the whole new one."""
    hub.files["/plain.gguf"] = DATA
    hub.script("/plain.gguf", _CutOther(b"old" * 1000, 1500))
    stored = sources.pull(f"{hub.url}/plain.gguf")
    assert stored.digest == DIGEST
    assert hub.asked("/plain.gguf")[1].headers["If-Range"] == '"old"'


class _CutOther(Other, Cut):
    """The older file, cut."""

    def __init__(self, data: bytes, after: int) -> None:
        self.data, self.after, self.etag = data, after, '"old"'


def test_without_validator_and_digest_nothing_is_continued(sources: SourceFixture, hub: StubHub) -> None:
    hub.validators = False
    hub.files["/plain.gguf"] = DATA
    hub.script("/plain.gguf", Cut(1000))
    assert sources.pull(f"{hub.url}/plain.gguf").digest == DIGEST
    assert [asked.headers.get("Range") for asked in hub.asked("/plain.gguf")] == [None, None]


def test_a_pinned_file_that_moved_is_told_so(sources: SourceFixture, hub: StubHub) -> None:
    stored = sources.pull(SOURCE)
    entry = stored.lock_entry(stored.facts)
    (sources.root / "store").rename(sources.root / "gone")
    fresh = SourceFixture(sources.root, sources.settings)
    hub.repos["org/m"].files[FILE] = OTHER
    with pytest.raises(TransferFailed, match=f"changed from {DIGEST} to sha256:{sha256(OTHER)}"):
        fresh.pull(SOURCE, entry)
    fresh.check_blobs()


def test_too_little_room_is_said_before_anything_is_asked(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.blobs, "free", lambda: 1000)
    with pytest.raises(Refused, match=r"KiB are needed and 1000 B are free"):
        sources.pull(SOURCE)
    assert hub.asked(FILE) == []


def test_a_cancelled_pull_ends_soon_and_keeps_what_came(sources: SourceFixture, hub: StubHub) -> None:
    hub.script(FILE, Stall(3000))
    sources.cancelled = lambda: any(progress.completed >= 3000 for progress in sources.seen) or sources.left >= 3000
    with pytest.raises(TransferFailed, match="was cancelled"):
        sources.pull(SOURCE)
    assert sources.left == 3000
    hub.script(FILE)
    sources.cancelled = lambda: False
    assert sources.pull(SOURCE).digest == DIGEST
    assert hub.sent == len(DATA)


def test_a_pull_can_be_cancelled_while_the_hash_is_behind(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a resumed download of a large file: how far it is is told, and nobody waits for its end."""
    gate, read = threading.Event(), os.preadv

    def slow(*arguments: Any) -> int:
        gate.wait(60)
        return read(*arguments)

    def told() -> bool:
        if "verifying" in sources.phases:
            gate.set()
        return gate.is_set()

    monkeypatch.setattr(os, "preadv", slow)
    sources.cancelled = told
    with pytest.raises(TransferFailed, match="was cancelled"):
        sources.pull(SOURCE)
    assert [progress.completed for progress in sources.seen if progress.phase == "verifying"] == [0]
    monkeypatch.undo()
    sources.cancelled = lambda: False
    assert sources.pull(SOURCE).digest == DIGEST
    assert hub.sent == len(DATA)


def test_redirects_lead_to_the_file_and_credentials_stay_at_home(sources: SourceFixture, hub: StubHub) -> None:
    with StubHub("127.0.0.2") as cdn:
        hub.cdn = cdn
        hub.repos["org/m"].gated = True
        token = "hf_canary_token"
        sources.settings = replace(
            sources.settings, hub=replace(sources.settings.hub, token=token, token_from="a test")
        )
        cdn.script(FILE, Cut(1000))
        assert sources.pull(SOURCE).digest == DIGEST
        assert all(asked.headers["Authorization"] == f"Bearer {token}" for asked in hub.asked(FILE))
        assert [asked.headers.get("Range") for asked in cdn.requests] == [None, "bytes=1000-"]
        assert token not in repr(cdn.requests)
        assert token not in repr(sources.library.locate(SOURCE))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{url}/org/m/resolve/main/m-Q8_0.gguf", "more than 5 redirects"),
        ("ftp://127.0.0.1/x", "redirects from http to"),
    ],
)
def test_redirects_in_circles_or_elsewhere_end(sources: SourceFixture, hub: StubHub, target: str, words: str) -> None:
    hub.script(FILE, *[Redirect(target.format(url=hub.url))] * 99)
    with pytest.raises(TransferFailed, match=words):
        sources.pull(SOURCE)


def test_two_pulls_at_once_fetch_a_file_once(sources: SourceFixture, hub: StubHub) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = [job.result() for job in [pool.submit(sources.pull, SOURCE) for _ in range(8)]]
    assert {stored.digest for stored in found} == {DIGEST}
    assert hub.sent == len(DATA)


steps = st.one_of(
    st.builds(Cut, st.integers(0, len(DATA))),
    st.builds(Other, st.just(OTHER)),
    st.sampled_from([WholeForRange(), Gzip(), Fine(), Status(503), Status(416), Announce(len(DATA) + 5)]),
    st.builds(WrongRange, st.sampled_from(["bytes 0-{last}/{total}", "bytes {first}-{last}/1", ""])),
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=6))
def test_whatever_the_hub_does_no_wrong_file_is_ever_visible(
    tmp_path: Path, direct_read: int, script: list[Step]
) -> None:
    with StubHub() as hub:
        hub.repo("org/m", {FILE: DATA})
        hub.script(FILE, *script)
        sources = source_fixture(tmp_path, hub)
        sources.settings = replace(sources.settings, direct_read=direct_read)
        for _ in range(3):
            try:
                stored = sources.pull(SOURCE)
            except (TransferFailed, Unavailable):
                sources.check_blobs()
            else:
                assert stored.digest == DIGEST
        sources.check_blobs()
        hub.script(FILE)
        assert sources.pull(SOURCE).digest == DIGEST
    for path in (tmp_path / "store" / "blobs").iterdir():
        path.unlink()
