"""Files from neighbours by digest: each way in which one fails leads to the next one, and last to the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mullama.errors import MullamaError, Refused
from mullama.sources import neighbours
from mullama.sources.neighbours import BLOBS, PATIENCE, QUICK, ordered
from mullama.sources.settings import Neighbour, Timeouts
from mullama.struct import replace
from mullama.weights.located import Credential
from mullama.weights.stored import LockEntry, PinnedFile
from tests.sources.source_fixture import DATA, SourceFixture
from tests.stub_hub import Announce, Cut, Drip, Gzip, Other, Redirect, Silent, Stall, Status, Step, StubHub, sha256

SOURCE, FILE = "hf:org/m:Q8_0", "m-Q8_0.gguf"
DIGEST = f"sha256:{sha256(DATA)}"
PATH = f"{BLOBS}/{DIGEST}"
PATIENT = replace(QUICK, connect=60, headers=60, idle=60, slow_bytes=1, slow_seconds=60)
# A busy machine delays a good server, too, so only the tests of servers that hang have short limits.
HANGING = replace(PATIENT, headers=1, idle=1)
SLOW = replace(PATIENT, slow_bytes=4000, slow_seconds=0.3)


@dataclass
class Street:
    """Three servers that share the file, in the order in which they are asked, and the store that asks."""

    here: SourceFixture
    hub: StubHub
    near: list[StubHub]

    def pull(self, lock: LockEntry | None = None) -> None:
        assert self.here.pull(SOURCE, lock).digest == DIGEST
        self.here.check_blobs()

    @property
    def origin(self) -> str:
        """The place that the file came from."""
        (done,) = (progress for progress in self.here.seen if progress.phase == "done")
        return done.origin

    @property
    def reasons(self) -> list[str]:
        return [p.message for p in self.here.seen if p.phase == "retrying" and p.message.startswith("peer")]

    @property
    def from_source(self) -> int:
        """The bytes that the source sent."""
        return self.hub.sent


@pytest.fixture
def street(sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    monkeypatch.setattr(neighbours, "ordered", lambda found, digest, host: tuple(found))
    monkeypatch.setattr(neighbours, "QUICK", PATIENT)
    monkeypatch.setattr(neighbours, "PATIENCE", replace(PATIENCE, first=0.001))
    with ExitStack() as stack:
        near = [stack.enter_context(StubHub()) for _ in range(3)]
        for server in near:
            server.files[PATH] = DATA
        sources.settings = replace(
            sources.settings,
            neighbours=tuple(
                Neighbour(
                    name=name, url=server.url,
                    credential=Credential({"Authorization": f"Bearer sk-{name}"}, f"peers.{name}.key"),
                )
                for name, server in zip("abc", near, strict=True)
            ),
        )  # fmt: skip
        yield Street(sources, hub, near)


def test_the_first_neighbour_that_has_the_file_sends_it(street: Street) -> None:
    street.pull()
    assert (street.origin, street.from_source, street.near[0].sent) == ("peer a", 0, len(DATA))
    assert street.near[0].requests[0].headers["Authorization"] == "Bearer sk-a"
    assert not street.near[1].requests


@pytest.mark.parametrize(
    ("step", "reason", "limits"),
    [
        (Status(404), "does not have the file", PATIENT),
        (Status(401), "answered 401", PATIENT),
        (Status(500), "answered 500", PATIENT),
        (Status(503, {"Retry-After": "0"}), "answered 503", PATIENT),
        (Redirect("http://127.0.0.1:9/x"), "answered 302", PATIENT),
        (Silent(), "did not answer in time", HANGING),
        (Stall(1000), "did not answer in time", HANGING),
        (Cut(1000), "", PATIENT),
        (Other(bytes(len(DATA))), "has the digest", PATIENT),
        (Other(DATA[:-1]), "bytes, but", PATIENT),
        (Announce(len(DATA) + 1), "bytes, but", PATIENT),
        (Gzip(), "encoded", PATIENT),
        (Drip(0.02, 64), "sends less than", SLOW),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Step) else "",
)
def test_a_neighbour_that_fails_is_left_for_the_next_one(
    street: Street, step: Step, reason: str, limits: Timeouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "QUICK", limits)
    street.near[0].script(DIGEST, step, step)
    street.pull()
    assert (street.origin, street.from_source) == ("peer b", 0)
    assert len(street.reasons) == 1
    assert reason in street.reasons[0]


def test_without_a_neighbour_that_delivers_the_source_sends_the_file(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "QUICK", HANGING)
    for server, step in zip(street.near, (Status(404), Other(bytes(len(DATA))), Silent()), strict=True):
        server.script(DIGEST, step, step)
    street.pull()
    assert (street.origin, street.from_source) == (street.hub.host, len(DATA))
    assert [text.partition(" is left")[0] for text in street.reasons] == ["peer a", "peer b", "peer c"]


def test_the_bytes_of_one_place_are_continued_at_the_next(street: Street) -> None:
    street.near[0].script(DIGEST, Cut(1000), Cut(1000))
    for server in street.near[1:]:
        server.script(DIGEST, Status(404))
    street.pull()
    first = street.hub.asked(FILE)[0]
    assert (first.first, "If-Range" in first.headers) == (2000, False)
    assert street.from_source == len(DATA) - 2000


def test_wrong_first_bytes_do_not_count_against_the_neighbour_that_continues(street: Street) -> None:
    wrong = bytes(2000) + DATA[2000:]
    street.near[0].files[PATH] = wrong
    street.near[0].script(DIGEST, Cut(1000), Cut(1000))
    street.pull()
    assert (street.origin, street.from_source) == ("peer b", 0)
    assert street.near[1].sent == 2 * len(DATA) - 2000


def test_a_slow_neighbour_is_asked_again_when_the_source_is_out_of_reach(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "QUICK", SLOW)
    entry = LockEntry(
        source=SOURCE, resolved=f"hf:org/m:{FILE}@{'0' * 40}", revision="0" * 40,
        files=(PinnedFile(name=FILE, size=len(DATA), digest=DIGEST),),
    )  # fmt: skip
    street.near[0].script(DIGEST, Drip(0.02, 64), Drip(0.02, 64))
    for server in street.near[1:]:
        server.script(DIGEST, Status(404))
    street.hub.script(FILE, *[Status(503)] * 9)
    street.pull(entry)
    assert (street.origin, street.from_source) == ("peer a", 0)
    assert len(street.near[0].requests) == 3


def test_when_all_fail_the_error_is_that_of_the_source(street: Street) -> None:
    for server in street.near:
        server.script(DIGEST, Status(404))
    street.hub.script(FILE, *[Status(503)] * 9)
    with pytest.raises(MullamaError, match=f"{street.hub.host} answered 503"):
        street.here.pull(SOURCE)


def test_a_full_disk_ends_the_download_at_once(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(street.here.blobs, "free", lambda: 10)
    with pytest.raises(Refused, match="are free in"):
        street.here.pull(SOURCE)
    assert not any(server.requests for server in street.near)


def test_a_cancelled_download_asks_no_further_place(street: Street) -> None:
    street.near[0].script(DIGEST, Stall(1000))
    street.here.cancelled = lambda: street.near[0].sent >= 1000
    with pytest.raises(MullamaError, match="was cancelled"):
        street.here.pull(SOURCE)
    assert not street.near[1].requests
    assert street.from_source == 0


def test_a_key_that_this_machine_lacks_leaves_the_others_in_use(street: Street) -> None:
    first, *rest = street.here.settings.neighbours
    street.here.settings = replace(
        street.here.settings, neighbours=(replace(first, problem="peers.a.key: it is missing"), *rest)
    )
    street.pull()
    assert street.origin == "peer b"
    assert street.reasons == ["peer a is left: peers.a.key: it is missing"]


def test_a_file_without_a_known_digest_is_not_asked_of_neighbours(street: Street) -> None:
    street.hub.files["/plain.gguf"] = DATA
    found = street.here.pull(f"{street.hub.url}/plain.gguf")
    assert found.digest == DIGEST
    assert not any(server.requests for server in street.near)


def test_a_file_that_is_here_is_not_asked_for(street: Street) -> None:
    street.pull()
    street.here.pull(SOURCE)
    assert len(street.near[0].requests) == 1


def test_hosts_spread_over_the_neighbours_and_each_keeps_its_order() -> None:
    found = tuple(Neighbour(name=f"n{number}", url="") for number in range(8))
    orders = [names(ordered(found, DIGEST, f"host{number}")) for number in range(400)]
    assert all(sorted(order) == names(found) for order in orders)
    firsts = [order[0] for order in orders]
    assert min(firsts.count(name) for name in names(found)) >= 25
    fewer = [names(ordered(found[:3] + found[4:], DIGEST, f"host{number}")) for number in range(400)]
    assert fewer == [[name for name in order if name != "n3"] for order in orders]


def names(found: Sequence[Neighbour]) -> list[str]:
    return [neighbour.name for neighbour in found]


def test_a_neighbour_is_reached_without_the_proxy_of_the_environment(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = street.here.library.locate(SOURCE)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert street.here.library.ensure(located, street.here.seen.append, street.here.cancelled).digest == DIGEST
    assert street.origin == "peer a"


def test_a_certificate_file_that_is_missing_leaves_the_neighbour(street: Street, tmp_path: Path) -> None:
    first, *rest = street.here.settings.neighbours
    secure = replace(first, url=first.url.replace("http:", "https:"), ca_file=str(tmp_path / "none.pem"))
    street.here.settings = replace(street.here.settings, neighbours=(secure, *rest))
    street.pull()
    assert street.origin == "peer b"
    assert "none.pem" in street.reasons[0]
