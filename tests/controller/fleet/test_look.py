"""Looks at the other hosts, and the record on this one: bounded, shared, with the keys of the manifest alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mullama.codec import to_tree
from mullama.controller.fleet.look import KEPT_SECONDS, FleetLook
from mullama.controller.fleet.rollout_book import RolloutBook
from mullama.errors import PeerLost, Unavailable
from mullama.manifest.spec import Manifest, Peer
from mullama.runtime.fleet import RolloutHost, RolloutRecord
from mullama.store.records import Records
from mullama.struct import replace
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio

RECORD = RolloutRecord(
    fleet="prod", host="a", kind="apply", holder="ann", fence=4, number=2, began=1.0, updated=2.0, ended="applied",
    hosts={name: RolloutHost(url=f"http://{name}", state="changed", revision="r1") for name in "abc"},
)  # fmt: skip
STATUS = {
    "format": "mullama.status/1", "state": "ready", "version": "1", "generation": 2, "revision": "r1", "models": [],
    "fleet": {"name": "prod", "host": "a", "fence": 4, "number": 2},
}  # fmt: skip


class Hosts:
    """Other hosts by their answers, and the requests that reached them."""

    def __init__(self, tmp_path: Path, **peers: Peer) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.asked: list[tuple[str, str]] = []
        self.now, self.status = 100.0, dict[str, Any](STATUS)
        self.manifest = Manifest(mullama="v1", peers=peers)
        self.records = Records(tmp_path, "main")
        self.book = RolloutBook(self.records)
        self.look = FleetLook(
            manifest=lambda: self.manifest, status=lambda: self.status, lease=lambda: {"fence": 4, "lease": None},
            book=self.book, read=self.read, within=0.2, clock=lambda: self.now,
        )  # fmt: skip

    async def read(self, name: str, path: str) -> Any:
        self.asked.append((name, path))
        answer = self.answers.get((name, path), STATUS)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def states(self) -> dict[str, tuple[str, str]]:
        return {row["name"]: (row["state"], row["reason"]) for row in (await self.look.view())["hosts"]}


def peer(name: str) -> Peer:
    return Peer(url=f"http://{name}")


async def test_only_hosts_that_the_manifest_names_are_asked(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, b=peer("b"), openai=peer("openai"))
    await hosts.book.leave(RECORD)
    assert await hosts.states() == {
        "a": ("ready", ""),
        "b": ("ready", ""),
        "c": ("not asked", "this server has no peer c, so it sends no requests there"),
    }
    assert hosts.asked == [("b", "/api/v1/status")]


async def test_a_peer_with_another_address_than_the_host_is_not_asked(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, b=peer("elsewhere"))
    await hosts.book.leave(RECORD)
    states = await hosts.states()
    assert states["b"] == ("not asked", "this server has another address of its peer b, so it sends no requests there")
    assert hosts.asked == []


async def test_hosts_that_fail_or_are_slow_have_the_reason(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, b=peer("b"), c=peer("c"))
    hosts.answers["b", "/api/v1/status"] = PeerLost("peer b: wrong key")
    hosts.answers["c", "/api/v1/status"] = None
    await hosts.book.leave(RECORD)
    states = await hosts.states()
    assert states["b"] == ("no answer", "peer b: wrong key")
    assert states["c"] == ("no answer", "c did not answer within 0.2s")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([], "the status of b: Expected `object`, got `array`"),
        ({"object": "list"}, "the status of b: Object missing required field `state`"),
        ({**STATUS, "models": [{"name": 7}]}, "the status of b.models[0].name: Expected `str`, got `int`"),
        ({**STATUS, "fleet": "prod"}, "the status of b.fleet: Expected `object | null`, got `str`"),
    ],
)
async def test_another_program_at_the_address_is_no_host(tmp_path: Path, answer: Any, reason: str) -> None:
    hosts = Hosts(tmp_path, b=peer("b"))
    hosts.answers["b", "/api/v1/status"] = answer
    await hosts.book.leave(RECORD)
    assert (await hosts.states())["b"] == ("no answer", reason)


async def test_answers_serve_for_some_seconds_and_callers_share_them(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, b=peer("b"))
    await hosts.book.leave(RECORD)
    await asyncio.gather(*(hosts.look.view() for _ in range(5)))
    assert len(hosts.asked) == 1
    hosts.now += KEPT_SECONDS
    await hosts.look.view()
    assert len(hosts.asked) == 2
    hosts.manifest = Manifest(mullama="v1", peers={"b": peer("b")})
    await hosts.look.view()
    assert len(hosts.asked) == 3
    await hosts.book.leave(replace(RECORD, number=3))
    assert (await hosts.look.view())["rollout"]["number"] == 3
    assert len(hosts.asked) == 4


async def test_a_newer_record_of_another_host_is_shown_with_its_hosts(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, b=peer("b"), c=peer("c"), d=peer("d"))
    newer = replace(
        RECORD, fence=6, number=1, host="b", hosts={**RECORD.hosts, "d": RolloutHost(url="http://d", state="changed")}
    )
    ahead = {**STATUS, "fleet": {"name": "prod", "host": "b", "fence": 6, "number": 1}}
    hosts.answers |= {("b", "/api/v1/status"): ahead, ("b", "/api/v1/fleet/rollout"): {"rollout": to_tree(newer)}}
    await hosts.book.leave(RECORD)
    view = await hosts.look.view()
    assert (view["host"], view["rollout"]["fence"]) == ("a", 6)
    assert {row["name"]: row["state"] for row in view["hosts"]} == dict.fromkeys("abcd", "ready")
    hosts.answers["b", "/api/v1/fleet/rollout"] = {"rollout": {"fleet": 1}}
    hosts.now += KEPT_SECONDS
    assert (await hosts.look.view())["rollout"]["fence"] == 4


async def test_a_server_in_no_fleet_asks_nobody(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, b=peer("b"))
    hosts.status = {**STATUS, "fleet": None}
    await hosts.book.leave(RECORD)
    view = await hosts.look.view()
    assert (view["name"], view["hosts"], hosts.asked) == (None, [], [])
    hosts.status = {**STATUS, "fleet": {"name": "other", "host": None, "fence": 1, "number": 0}}
    assert [row["this"] for row in (await hosts.look.view())["hosts"]] == [True]
    assert hosts.asked == []


async def test_the_newest_record_stays_and_outlives_the_process(tmp_path: Path) -> None:
    book = RolloutBook(Records(tmp_path, "main"))
    for fence, number in ((4, 2), (4, 1), (3, 9), (4, 2), (5, 1)):
        await book.leave(replace(RECORD, fence=fence, number=number))
    assert book.record == RolloutBook(Records(tmp_path, "main")).record == replace(RECORD, fence=5, number=1)


async def test_a_damaged_record_does_not_end_the_start(tmp_path: Path) -> None:
    records = Records(tmp_path, "main")
    for text in ("{", "[]", '{"fleet": 7}'):
        records.save_rollout({})
        (records.folder / "rollout.json").write_text(text)
        assert RolloutBook(records).record is None


async def test_a_record_that_cannot_be_saved_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path, "main")
    book = RolloutBook(records)

    def full(record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "save_rollout", full)
    with pytest.raises(Unavailable, match="the record of the rollout cannot be saved: no space left on device"):
        await book.leave(RECORD)
    assert book.record is None


async def test_a_server_sees_itself_as_a_host_until_a_manifest_of_its_own(server: LocalServer) -> None:
    assert (await server.operator.fleet())["name"] is None
    await server.apply({"a": {"from": server.script()}, "b": {"from": server.script("b", on_open="crash abort")}})
    revision = server.operator.stack()["revision"]
    own = RolloutHost(url="http://a", state="unchanged", revision=revision)
    await server.operator.rollouts.leave(replace(RECORD, hosts={"a": own}))
    assert server.operator.status()["fleet"] == {"name": "prod", "host": "a", "fence": 4, "number": 2}
    view = await server.operator.fleet()
    [row] = view["hosts"]
    assert (row["name"], row["this"], row["models"], row["ready"]) == ("a", True, 2, 1)
    [fault] = row["faults"]
    assert fault.startswith("b: WorkerCrashed: ")
    assert {place["state"] for model in view["models"] for place in model["places"]} == {"ready", "failed"}
    await server.apply({"a": {"from": server.script(), "description": "mine"}})
    assert (server.operator.status()["fleet"], (await server.operator.fleet())["hosts"]) == (None, [])
